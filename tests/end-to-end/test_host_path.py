# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""The kernel beside the gateway: what it gets, and what it can't send."""

import socket

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

import esp
from esp import frame
from testbed import wait_until
from topologies import Bench, probe


def test_taps_have_the_ports_macs_and_addresses(bench):
    namespace = bench.gateway.namespace
    for tap, mac, addresses in (("lan", bench.lan_mac, (Bench.LAN, Bench.LAN6)),
                                ("wan", bench.wan_mac, (Bench.WAN, Bench.WAN6))):
        shown = namespace.ip("address", "show", "dev", tap)
        assert f"link/ether {mac}" in shown
        assert all(address in shown for address in addresses)
    assert "inet 169.254.244.2/30" in namespace.ip("address", "show", "dev", "tunnel01")
    assert "mtu 1438" in namespace.ip("link", "show", "dev", "tunnel01")


def test_arp_is_answered_once_and_by_the_kernel(bench):
    for wire, mac, address, asker in ((bench.inside, bench.lan_mac, Bench.LAN, Bench.HOST),
                                      (bench.outside, bench.wan_mac, Bench.WAN, "203.0.113.99")):
        wire.send(Ether(dst="ff:ff:ff:ff:ff:ff", src=wire.mac)
                  / ARP(hwsrc=wire.mac, psrc=asker, pdst=address))

        def answer(data):
            arp = Ether(data).getlayer(ARP)
            return arp if arp is not None and arp.op == 2 and arp.psrc == address else None
        answers = wire.collect(answer, 0.4)
        assert [arp.hwsrc for arp in answers] == [mac]


def test_neighbour_solicitation_is_answered_once(bench):
    solicited = "ff02::1:ff00:1"
    bench.inside.send(
        Ether(dst="33:33:ff:00:00:01", src=bench.inside.mac)
        / IPv6(src=Bench.HOST6, dst=solicited, hlim=255) / ICMPv6ND_NS(tgt=Bench.LAN6)
        / ICMPv6NDOptSrcLLAddr(lladdr=bench.inside.mac))
    answers = bench.inside.collect(
        lambda data: Ether(data).getlayer(ICMPv6ND_NA) if data[12:14] == b"\x86\xdd" else None, 0.4)
    assert [answer.tgt for answer in answers] == [Bench.LAN6]


def test_the_kernel_answers_pings_from_both_sides(bench):
    for send, wire, ours, theirs in (
            (bench.send_inside, bench.inside, Bench.LAN, Bench.HOST),
            (bench.send_outside, bench.outside, Bench.WAN, Bench.FAR["tunnel01"])):
        send(IP(src=theirs, dst=ours) / ICMP(id=7, seq=1) / Raw(b"ping"))

        def answer(data):
            packet = esp.is_ip(data)
            return packet if packet is not None and ICMP in packet else None
        answers = wire.collect(answer, 0.4)
        assert [(packet.src, packet[ICMP].type) for packet in answers] == [(ours, 0)]


def test_tcp_to_the_gateway_reaches_its_kernel(bench):
    with bench.gateway.namespace.entered():
        server = socket.create_server((Bench.WAN, 179))
    bench.send_outside(IP(src=Bench.FAR["tunnel01"], dst=Bench.WAN)
                       / TCP(sport=1000, dport=179, flags="S"))
    packet = bench.outside.receive(esp.is_ip, what="SYN and ACK")
    assert packet[TCP].flags == "SA"
    server.close()


def test_host_traffic_into_a_tunnel_by_its_tun(bench):
    sa = bench.sa_out()
    with bench.gateway.namespace.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.sendto(b"from the box", (Bench.BEHIND["tunnel01"], 9))
    sender.close()
    inner = sa.decrypt(bench.outside.receive(esp.is_esp, what="ESP"))
    assert (inner.src, bytes(inner[UDP].payload)) == ("169.254.244.2", b"from the box")


def test_ping_from_the_far_end_over_the_tunnel(bench):
    into, out = bench.sa_in(), bench.sa_out()
    bench.send_outside(into.encrypt(IP(src="169.254.244.1", dst="169.254.244.2") / ICMP(id=3)))
    inner = out.decrypt(bench.outside.receive(esp.is_esp, what="ESP"))
    assert (inner.src, inner.dst, inner[ICMP].type) == ("169.254.244.2", "169.254.244.1", 0)


def test_host_cleartext_for_a_tunnel_is_stopped(bench):
    """The host's own frames on the outside TAP: nothing for a tunnel's prefix leaves in clear."""
    tap = bench.network.wire(bench.gateway.namespace, "wan")
    gateway_mac, far = bench.wan_mac, bench.outside.mac
    secrets = [
        frame(far, gateway_mac, probe(Bench.WAN, Bench.BEHIND["tunnel01"])),
        frame(far, gateway_mac, probe(Bench.WAN, Bench.BEHIND["tunnel03"])),  # it has no SA
        frame(far, gateway_mac, probe(Bench.WAN6, Bench.BEHIND6)),
        frame(far, gateway_mac, probe(Bench.WAN, "169.254.244.1")),           # the tunnel's inside
        frame("ff:ff:ff:ff:ff:ff", gateway_mac, probe(Bench.WAN, Bench.BEHIND["tunnel01"])),
    ]
    with bench.gateway.dropping(host_cleartext=len(secrets)):
        tap.send(*secrets)
    with bench.gateway.dropping(vlan=1):
        tap.send(Ether(dst=far, src=gateway_mac) / Dot1Q(vlan=1)
                 / probe(Bench.WAN, Bench.BEHIND["tunnel01"]))
    with bench.gateway.dropping(ethertype=1):
        tap.send(Ether(dst=far, src=gateway_mac, type=0x8847) / Raw(bytes(60)))  # MPLS
    bench.nothing_outside()
    with bench.gateway.dropping():  # IKE goes out
        tap.send(frame(far, gateway_mac, IP(src=Bench.WAN, dst=Bench.FAR["tunnel01"])
                       / UDP(sport=500, dport=500) / Raw(b"ike")))
        bench.outside.receive(esp.is_ip, what="IKE of the host")
    tap.close()


def test_host_route_out_of_the_outside_tap_does_not_leak(bench):
    """Somebody points the tunnel's prefix at the outside TAP in the kernel."""
    namespace = bench.gateway.namespace
    namespace.ip("neigh", "replace", "203.0.113.50", "lladdr", bench.outside.mac, "dev", "wan")
    for prefix in ("192.168.192.0/26", "192.168.192.0/27", "192.168.192.10/32"):
        namespace.ip("route", "replace", prefix, "via", "203.0.113.50", "dev", "wan", "metric", "1")
        wait_until(lambda: "dev wan" in namespace.ip("route", "get", Bench.BEHIND["tunnel01"]),
                   "the kernel prefers the outside TAP")
        with namespace.entered():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with bench.gateway.dropping(host_cleartext=3):
            for _ in range(3):
                sender.sendto(b"secret", (Bench.BEHIND["tunnel01"], 9))
        # Traffic from inside goes by the tunnel as before.
        sa = bench.sa_out()
        sent = probe(Bench.HOST, Bench.BEHIND["tunnel01"])
        assert bytes(sa.decrypt(bench.esp_of(sent))[UDP]) == bytes(sent[UDP])
        sender.close()
        namespace.ip("route", "delete", prefix, "via", "203.0.113.50", "dev", "wan", "metric", "1")
    bench.nothing_outside()


def test_punts_are_rate_limited_and_arp_comes_first(network):
    bench = Bench(network)
    bench.gateway.config["gateway"]["host_rate"] = 200
    bench.start()
    flood = [frame(bench.lan_mac, bench.inside.mac,
                   IP(src=Bench.HOST, dst=Bench.LAN) / UDP(dport=9) / Raw(b"flood"))] * 20
    who_has = (Ether(dst="ff:ff:ff:ff:ff:ff", src=bench.inside.mac)
               / ARP(hwsrc=bench.inside.mac, psrc=Bench.HOST, pdst=Bench.LAN))
    answers = 0
    for _ in range(100):  # about 2000 a second
        bench.inside.send(*flood, who_has)
        answers += len(bench.inside.collect(
            lambda data: data[12:14] == b"\x08\x06" and data[21] == 2, 0.01))
    answers += len(bench.inside.collect(
        lambda data: data[12:14] == b"\x08\x06" and data[21] == 2, 0.2))
    assert answers > 50
    drops = bench.gateway.drops()
    assert drops.keys() == {"host_rate"} and drops["host_rate"] > 500
    source = wait_until(lambda: next((source for source in bench.gateway.call("stats")["sources"]
                                      if source["source"] == "port" and source["port"] == "lan"
                                      and source["held"] == 0), None), "nothing is held")
    assert source["received"] == source["to_host"] + source["dropped"]
