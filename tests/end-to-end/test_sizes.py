# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Packets that are too large, and ICMP errors: against scapy."""

import time

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_Router_Alert, \
    IPOption_Timestamp, defragment, fragment
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, ICMPv6PacketTooBig, \
    ICMPv6TimeExceeded, IPv6, IPv6ExtHdrDestOpt
from scapy.packet import Raw

import esp
from testbed import wait_until
from topologies import Bench, probe

RATE = 200   # ICMP errors a second
BURST = 64   # at once


class Sizes(Bench):
    """tunnel01 takes more than the inside port, tunnel02 less; tunnel03 clears DF, and has an MSS
    of its own; tunnel06 leaves it alone."""

    MTU2 = 1300
    BEHIND6_2 = "2001:db8:193::10"

    def config(self):
        config = super().config()
        config["gateway"] = {"icmp_rate": RATE}
        lan, wan = config["ports"]
        wan["mtu"] = 1600
        # net_af_packet takes no more than 1500, and hands over fragments as whole packets.
        for i, (port, device) in enumerate(((lan, "veth-lan"), (wan, "veth-wan"))):
            port["device"] = f"net_pcap{i},rx_iface_in={device},tx_iface={device}"
        one, two, three, six = config["tunnels"]
        two["mtu"] = three["mtu"] = self.MTU2
        three["clear_df"], three["mss"] = True, 1000
        six["mss"] = "off"
        config["routes"].append({"prefix": "2001:db8:193::/64", "tunnel": "tunnel02"})
        return config


@pytest.fixture(scope="module")
def module_bench(module_network):
    made = Sizes(module_network)
    made.gateway.namespace.ip("link", "set", "veth-wan", "mtu", "1600")
    made.outside.namespace.ip("link", "set", "eth0", "mtu", "1600")
    made.start()
    made.lan_mac, made.wan_mac = (made.gateway.port(name)["mac"] for name in ("lan", "wan"))
    return made


def icmp_inside(bench, kind, what):
    def match(frame):
        packet = esp.is_ip(frame)
        return packet if packet is not None and kind in packet else None
    return bench.inside.receive(match, what=what)


def check_error(message, source, destination, about, most):
    """What all ICMP errors have in common; `about` is the packet as it was sent."""
    assert (message.src, message.dst) == (source, destination)
    again = message.__class__(bytes(message))
    if isinstance(message, IP):
        del again.chksum, again[ICMP].chksum
    else:
        del again.payload.cksum
    assert bytes(again) == bytes(message), "a checksum is wrong"
    head = 28 if isinstance(message, IP) else 48
    assert len(message) == min(most, head + len(about))
    quoted, sent = bytearray(bytes(message)[head:]), bytearray(bytes(about)[:len(message) - head])
    hops = slice(8, 12) if isinstance(message, IP) else slice(7, 8)  # and IPv4's checksum
    quoted[hops] = sent[hops]
    assert quoted == sent


def df(source, destination, size, **more):
    return probe(source, destination, size=size, flags="DF", **more)


# ---- Too big ----

def test_too_big_with_df_is_told(bench):
    sa = bench.sa_out("tunnel02")
    sent = df(Bench.HOST, Bench.BEHIND["tunnel02"], Sizes.MTU2 + 1)
    with bench.gateway.dropping(too_big=1):
        bench.send_inside(sent)
    message = icmp_inside(bench, ICMP, "fragmentation needed")
    assert (message[ICMP].type, message[ICMP].code, message[ICMP].nexthopmtu) == (3, 4, Sizes.MTU2)
    check_error(message, Bench.LAN, Bench.HOST, sent, 576)
    assert bench.gateway.tunnel("tunnel02")["drops"] == {"too_big": 1}
    bench.nothing_outside(0.05)
    sent = df(Bench.HOST, Bench.BEHIND["tunnel02"], Sizes.MTU2)
    assert bytes(sa.decrypt(bench.esp_of(sent))[UDP]) == bytes(sent[UDP])
    sent = probe(Bench.HOST6, Sizes.BEHIND6_2, size=Sizes.MTU2 + 1)
    with bench.gateway.dropping(too_big=1):
        bench.send_inside(sent)
    message = icmp_inside(bench, ICMPv6PacketTooBig, "packet too big")
    assert message[ICMPv6PacketTooBig].mtu == Sizes.MTU2
    check_error(message, Bench.LAN6, Bench.HOST6, sent, 1280)


def test_what_fits_no_more_is_told_by_each_sa_itself(bench):
    """The offered MTU is exact: UDP costs 8 bytes, and an SA without it offers them."""
    for nat_t, mtu in ((False, 1546), (True, 1538)):
        sa = bench.sa_out("tunnel01", nat_t=nat_t)
        assert bench.gateway.tunnel("tunnel01")["mtu"] == mtu
        bench.gateway.call("sa.delete", direction="out", spi=sa.spi)
    bench.sa_out("tunnel06")
    assert bench.gateway.tunnel("tunnel06")["mtu"] == 1526


def test_a_tunnel_tells_its_far_side(bench):
    """By the tunnel that the packet came by, from the tunnel's own address."""
    into, back = bench.sa_in("tunnel01"), bench.sa_out("tunnel01")
    sent = df(Bench.BEHIND["tunnel01"], Bench.BEHIND["tunnel02"], Sizes.MTU2 + 1)
    bench.sa_out("tunnel02")
    with bench.gateway.dropping(too_big=1):
        bench.send_outside(into.encrypt(sent))
    message = back.decrypt(bench.outside.receive(esp.is_esp, what="ESP"))
    assert (message[ICMP].type, message[ICMP].code, message[ICMP].nexthopmtu) == (3, 4, Sizes.MTU2)
    sent.ttl -= 1
    check_error(message, "169.254.244.2", Bench.BEHIND["tunnel01"], sent, 576)
    # Decapsulated, and too big for the inside port.
    sent = df(Bench.BEHIND["tunnel01"], Bench.HOST, 1501)
    with bench.gateway.dropping(too_big=1):
        bench.send_outside(into.encrypt(sent))
    message = back.decrypt(bench.outside.receive(esp.is_esp, what="ESP"))
    assert (message[ICMP].type, message[ICMP].code, message[ICMP].nexthopmtu) == (3, 4, 1500)
    check_error(message, "169.254.244.2", Bench.BEHIND["tunnel01"], sent, 576)
    # IPv6 in a tunnel that has an IPv4 address only: an inside port lends one.
    sent = probe(Bench.BEHIND6, Bench.HOST6, size=1501)
    with bench.gateway.dropping(too_big=1):
        bench.send_outside(into.encrypt(sent))
    message = back.decrypt(bench.outside.receive(esp.is_esp, what="ESP"))
    assert message[ICMPv6PacketTooBig].mtu == 1500
    check_error(message, Bench.LAN6, Bench.BEHIND6, sent, 1280)


# ---- Time exceeded, no route ----

def test_time_exceeded_both_ways(bench):
    into, back = bench.sa_in(), bench.sa_out()
    for ttl in (1, 0):
        sent = probe(Bench.HOST, Bench.BEHIND["tunnel01"], ttl=ttl)
        with bench.gateway.dropping(ttl_expired=1):
            bench.send_inside(sent)
        message = icmp_inside(bench, ICMP, "time exceeded")
        assert (message[ICMP].type, message[ICMP].code) == (11, 0)
        check_error(message, Bench.LAN, Bench.HOST, sent, 576)
    sent = probe(Bench.HOST6, Bench.BEHIND6, hlim=1)
    with bench.gateway.dropping(ttl_expired=1):
        bench.send_inside(sent)
    message = icmp_inside(bench, ICMPv6TimeExceeded, "time exceeded")
    assert message[ICMPv6TimeExceeded].code == 0
    check_error(message, Bench.LAN6, Bench.HOST6, sent, 1280)
    sent = probe(Bench.BEHIND["tunnel01"], Bench.HOST, ttl=1)
    with bench.gateway.dropping(ttl_expired=1):
        bench.send_outside(into.encrypt(sent))
    message = back.decrypt(bench.outside.receive(esp.is_esp, what="ESP"))
    assert (message[ICMP].type, message[ICMP].code) == (11, 0)
    check_error(message, "169.254.244.2", Bench.BEHIND["tunnel01"], sent, 576)


def test_no_route_is_told_inside_and_never_outside(bench):
    into, back = bench.sa_in(), bench.sa_out()
    sent = probe(Bench.HOST, "198.18.0.1")
    with bench.gateway.dropping(no_route=1):
        bench.send_inside(sent)
    message = icmp_inside(bench, ICMP, "unreachable")
    assert (message[ICMP].type, message[ICMP].code) == (3, 0)
    check_error(message, Bench.LAN, Bench.HOST, sent, 576)
    sent = probe(Bench.HOST6, "2001:db8:ffff::1")
    with bench.gateway.dropping(no_route=1):
        bench.send_inside(sent)
    message = icmp_inside(bench, ICMPv6DestUnreach, "unreachable")
    assert message[ICMPv6DestUnreach].code == 0
    check_error(message, Bench.LAN6, Bench.HOST6, sent, 1280)
    sent = probe(Bench.BEHIND["tunnel01"], "198.18.0.1")
    with bench.gateway.dropping(no_route=1):
        bench.send_outside(into.encrypt(sent))
    message = back.decrypt(bench.outside.receive(esp.is_esp, what="ESP"))
    check_error(message, "169.254.244.2", Bench.BEHIND["tunnel01"], sent, 576)
    with bench.gateway.dropping(no_route=1):  # who asks in clear from outside hears nothing
        bench.send_outside(probe("203.0.113.99", "198.18.0.1"))
    bench.nothing_outside(0.05)


def test_about_these_nothing_is_told(bench):
    into = bench.sa_in()
    bench.sa_out()
    nowhere, nowhere6 = "198.18.0.1", "2001:db8:ffff::1"
    head, head6 = IP(src=Bench.HOST, dst=nowhere), IPv6(src=Bench.HOST6, dst=nowhere6)
    quiet = [
        *(head / ICMP(type=kind) / Raw(b"x" * 28) for kind in (3, 4, 5, 11, 12)),
        head / Raw(b""),  # ICMP by its protocol number, and nothing behind it
        *(head6 / kind / Raw(b"x" * 48) for kind in (ICMPv6DestUnreach(), ICMPv6PacketTooBig(),
                                                     ICMPv6TimeExceeded())),
        *fragment(head / UDP() / Raw(b"x" * 1000), 400)[1:],
        probe("0.0.0.0", nowhere), probe("0.0.0.7", nowhere), probe("240.0.0.1", nowhere),
        probe("::", nowhere6),
        probe(Bench.LAN, nowhere), probe("169.254.244.2", nowhere),  # "our own"
        probe("203.0.113.99", nowhere), probe("172.31.0.9", nowhere),  # would leave in clear
        probe("198.18.0.2", nowhere),  # no way back
    ]
    quiet[5].proto = 1
    # 0.0.0.0, 0.0.0.7 and :: are sources that nobody passes on.
    with bench.gateway.dropping(no_route=len(quiet) - 3, source_scope=3):
        bench.send_inside(*quiet)
    bench.inside.nothing(esp.is_ip, 0.1)
    for what in (ICMP(type=8), ICMP(type=13)):  # questions are packets like others
        with bench.gateway.dropping(no_route=1):
            bench.send_inside(head / what)
        assert icmp_inside(bench, ICMP, "unreachable")[ICMP].type == 3
    with bench.gateway.dropping(no_route=1):
        bench.send_inside(head6 / ICMPv6EchoRequest())
    icmp_inside(bench, ICMPv6DestUnreach, "unreachable")
    bench.inside.nothing(esp.is_ip, 0.05)
    with bench.gateway.dropping(no_sa=1):  # the next SA may be here soon
        bench.send_inside(probe(Bench.HOST, Bench.BEHIND["tunnel06"]))
    with bench.gateway.dropping(inner_source=1):  # forged
        bench.send_outside(into.encrypt(probe("198.18.0.3", nowhere)))
    bench.inside.nothing(esp.is_ip, 0.05)
    bench.nothing_outside(0.05)


def test_errors_are_limited_and_all_is_accounted_for(bench):
    before, count = bench.gateway.source("gateway"), 400
    began = time.monotonic()
    with bench.gateway.dropping(no_route=count):
        bench.send_inside(*(probe(Bench.HOST, "198.18.0.1") for _ in range(count)))
    after = bench.gateway.source("gateway")
    most = BURST + RATE * (time.monotonic() - began) + 2
    got = bench.inside.collect(lambda frame: ICMP in (esp.is_ip(frame) or ()), 0.3)
    assert BURST / 2 <= len(got) <= most < count
    assert after["received"] - before["received"] == len(got)
    assert after["forwarded"] - before["forwarded"] == len(got)


# ---- Fragments ----

def whole(fragments):
    """What scapy puts together of them."""
    found = defragment(fragments)
    assert len(found) == 1, found
    return found[0]


def split_of(sa, bench, count):
    """The inner packets of the next `count` ESP packets."""
    outers = bench.outside.collect(esp.is_esp, 3, count=count)
    assert len(outers) == count and all(len(outer) <= 1600 for outer in outers)
    inners = [sa.decrypt(outer) for outer in outers]
    assert all(bytes(inner) == bytes(IP(bytes(inner))) for inner in inners)
    for inner in inners:
        sum_of = inner.copy()
        del sum_of.chksum
        assert IP(bytes(sum_of)).chksum == inner.chksum
    return inners


def test_without_df_packets_are_split_before_encryption(bench):
    sa = bench.sa_out("tunnel02")
    before = bench.gateway.source("port", "lan")
    behind, total = Bench.BEHIND["tunnel02"], 0
    for size, count in ((Sizes.MTU2, 1), (Sizes.MTU2 + 1, 2), (1500, 2)):
        sent = probe(Bench.HOST, behind, size=size, id=4711, flags=0)
        bench.send_inside(sent)
        inners = split_of(sa, bench, count)
        assert all(len(inner) <= Sizes.MTU2 and inner.id == 4711 and inner.ttl == sent.ttl - 1
                   for inner in inners)
        assert bytes(whole(inners)[UDP]) == bytes(sent[UDP])
        total += count
    # Fragments that are too large themselves, in the middle and at the end.
    sent = probe(Bench.HOST, behind, size=2900, id=4712, flags=0)
    parts = fragment(sent, 1480)
    assert [len(part) for part in parts] == [1500, 1420]
    bench.send_inside(*parts)
    inners = split_of(sa, bench, 4)
    assert bytes(whole(inners)[UDP]) == bytes(sent[UDP])
    after = bench.gateway.source("port", "lan")
    assert after["split"] - before["split"] == total - 3 + 2
    assert after["forwarded"] - before["forwarded"] == total + 4
    assert after["held"] == 0 == after["dropped"] - before["dropped"]


def test_options_follow_rfc_791(bench):
    """Router alert is copied to all fragments, a timestamp stays in the first."""
    sa = bench.sa_out("tunnel02")
    options = [IPOption_Router_Alert(), IPOption_NOP(), IPOption_Timestamp(flg=0, timestamp=1)]
    head = IP(src=Bench.HOST, dst=Bench.BEHIND["tunnel02"], id=7, options=options)
    sent = IP(bytes(head / UDP(sport=1, dport=2) / Raw(b"y" * 1400)))
    bench.send_inside(sent)
    first, later = split_of(sa, bench, 2)
    assert bytes(first)[20:first.ihl * 4] == bytes(sent)[20:sent.ihl * 4]
    assert later.ihl == 6 and [type(option) for option in later.options] == [IPOption_Router_Alert]
    assert bytes(first[UDP]) + bytes(later.payload) == bytes(sent[UDP])
    # Options that run over the header: nothing can be said of what comes after.
    broken = IP(src=Bench.HOST, dst=Bench.BEHIND["tunnel02"]) / Raw(b"z" * 1400)
    data = bytearray(bytes(broken))
    data[0], data[2:4] = 0x46, (len(data) + 4).to_bytes(2, "big")
    data[20:20] = b"\x94\x09\0\0"
    data[10:12] = b"\0\0"
    packet = IP(bytes(data))
    del packet.chksum
    with bench.gateway.dropping(too_big=1):
        bench.send_inside(IP(bytes(packet)))


def test_clear_df_splits_what_has_df_and_never_ipv6(bench):
    sa = bench.sa_out("tunnel03")
    for number in (0, 99):
        sent = df(Bench.HOST, Bench.BEHIND["tunnel03"], 1500, id=number)
        bench.send_inside(sent)
        inners = split_of(sa, bench, 2)
        assert not any(inner.flags.DF for inner in inners)
        # No identification, as an unsplit packet may have none: it gets one (RFC 6864).
        assert inners[0].id == inners[1].id and (inners[0].id == number) == (number != 0)
        assert bytes(whole(inners)[UDP]) == bytes(sent[UDP])
    small = df(Bench.HOST, Bench.BEHIND["tunnel03"], 500)
    assert sa.decrypt(bench.esp_of(small)).flags.DF  # what fits stays as it is
    bench.sa_out("tunnel02")
    with bench.gateway.dropping(too_big=1):
        bench.send_inside(probe(Bench.HOST6, Sizes.BEHIND6_2, size=1500))
    icmp_inside(bench, ICMPv6PacketTooBig, "packet too big")


def test_towards_an_inside_port_packets_are_split_too(bench):
    into = bench.sa_in()
    before = bench.gateway.source("port", "wan")
    sent = probe(Bench.BEHIND["tunnel01"], Bench.HOST, size=1540, id=815, flags=0)
    bench.send_outside(into.encrypt(sent))
    parts = bench.inside.collect(esp.is_ip, 2, count=2)
    assert [len(part) for part in parts] == [1500, 60]
    assert bytes(whole(parts)[UDP]) == bytes(sent[UDP])
    after = bench.gateway.source("port", "wan")
    assert after["split"] - before["split"] == 1 and after["held"] == 0


# ---- MSS ----

def syn(source, destination, mss, flags="S", before=(), **more):
    kind = IPv6 if ":" in source else IP
    options = [*before] + ([("MSS", mss)] if mss is not None else []) + [("SAckOK", b"")]
    return kind(bytes(kind(src=source, dst=destination, **more)
                      / TCP(sport=1, dport=2, flags=flags, options=options)))


def mss_of(packet):
    return dict(option for option in packet[TCP].options if option[0] == "MSS").get("MSS")


def checksum_is_right(packet):
    again = packet.copy()
    del again[TCP].chksum
    return packet.__class__(bytes(again))[TCP].chksum == packet[TCP].chksum


@pytest.mark.parametrize("tunnel, mtu", [("tunnel02", Sizes.MTU2), ("tunnel03", None),
                                         ("tunnel06", None)])
def test_mss_is_lowered_both_ways(bench, tunnel, mtu):
    out, into = bench.sa_out(tunnel), bench.sa_in(tunnel)
    limit = {"tunnel02": Sizes.MTU2 - 40, "tunnel03": 1000, "tunnel06": 65535}[tunnel]
    behind = Bench.BEHIND[tunnel]
    nop, odd = ("NOP", None), ("WScale", 7)  # an option of 3 bytes: the MSS stands at an odd place
    for mss, flags, before in ((1460, "S", []), (1460, "SA", [odd]), (1460, "S", [nop, nop]),
                               (limit, "S", [odd]), (536, "S", []), (None, "S", [])):
        expected = None if mss is None else min(mss, limit)
        sent = syn(Bench.HOST, behind, mss, flags, before)
        inner = out.decrypt(bench.esp_of(sent))
        assert mss_of(inner) == expected and checksum_is_right(inner)
        sent = syn(behind, Bench.HOST, mss, flags, before)
        bench.send_outside(into.encrypt(sent))
        got = bench.inside.receive(lambda frame: esp.is_ip(frame), what="the SYN")
        assert mss_of(got) == expected and checksum_is_right(got)
    # No SYN: what looks like the option is data of the handshake's end.
    inner = out.decrypt(bench.esp_of(syn(Bench.HOST, behind, 1460, "A")))
    assert mss_of(inner) == 1460


def test_mss_of_ipv6_behind_extension_headers_and_of_fragments(bench):
    out, into = bench.sa_out("tunnel02"), bench.sa_in("tunnel02")
    limit = Sizes.MTU2 - 60
    sent = syn(Bench.HOST6, Sizes.BEHIND6_2, 1440)
    inner = out.decrypt(bench.esp_of(sent))
    assert mss_of(inner) == limit and checksum_is_right(inner)
    bench.send_outside(into.encrypt(syn(Sizes.BEHIND6_2, Bench.HOST6, 1440)))
    got = bench.inside.receive(lambda frame: esp.is_ip(frame), what="the SYN")
    assert mss_of(got) == limit and checksum_is_right(got)
    sent = IPv6(src=Bench.HOST6, dst=Sizes.BEHIND6_2) / IPv6ExtHdrDestOpt() \
        / TCP(flags="S", options=[("MSS", 1440)])
    inner = out.decrypt(bench.esp_of(IPv6(bytes(sent))))
    assert mss_of(inner) == limit and checksum_is_right(inner)
    first = syn(Bench.HOST, Bench.BEHIND["tunnel02"], 1460)
    first.flags = "MF"
    del first.chksum
    assert mss_of(out.decrypt(bench.esp_of(IP(bytes(first))))) == Sizes.MTU2 - 40
    later = syn(Bench.HOST, Bench.BEHIND["tunnel02"], 1460)
    later.frag = 10
    del later.chksum
    later = IP(bytes(later))
    assert bytes(out.decrypt(bench.esp_of(later)).payload) == bytes(later.payload)


def test_the_sums_balance(bench):
    """Last: of everything above, per source."""
    def balanced():
        return all(source["held"] == 0 and source["received"] + source["split"]
                   == source["forwarded"] + source["to_host"] + source["dropped"]
                   for source in bench.gateway.call("stats")["sources"])
    wait_until(balanced, "what was received and made is what left or was dropped")
