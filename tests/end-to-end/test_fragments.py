# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""ESP that arrives in IP fragments, and inner packets that are fragments themselves. The ports are
TAP devices: the fanout of net_af_packet would put fragments together before we see them."""

import itertools
import random
import socket

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Raw

import esp
from testbed import wait_until
from topologies import Bench, probe

TIMEOUT = 0.4
TUNNELS = ("tunnel01", "tunnel06")
_ids = itertools.count(100)


class TapBench(Bench):
    """Two workers: the packet's addresses and identification say which one puts it together. The
    other one has nothing but a second outside port."""

    LAN_MAC, WAN_MAC, FAR_MAC = "02:00:00:00:01:00", "02:00:00:00:01:01", "02:00:00:00:01:02"

    def config(self):
        config = super().config()
        config["workers"] = {"cores": [0, 1], "queues": [
            ["lan:0", "lan:1", "wan:0", "wan:1"], ["wan2:0", "wan2:1"]]}
        config["gateway"] = {"reassembly_timeout_ms": int(TIMEOUT * 1000)}
        lan, wan = config["ports"]
        lan.update(device="net_tap0,iface=tap-lan", mac=self.LAN_MAC)
        wan.update(device="net_tap1,iface=tap-wan", mac=self.WAN_MAC)
        config["ports"].append({"name": "wan2", "side": "outside", "mac": self.WAN_MAC,
                                "device": "net_tap2,iface=tap-wan2",
                                "addresses": ["203.0.112.1/24"]})
        for neighbour in config["neighbours"]:
            neighbour["mac"] = self.FAR_MAC
        return config

    def start(self):
        super().start()
        self.lan_mac, self.wan_mac = self.LAN_MAC, self.WAN_MAC
        self.inside = self.network.wire(self.gateway.namespace, "tap-lan")
        self.outside = self.network.wire(self.gateway.namespace, "tap-wan")
        self.outside2 = self.network.wire(self.gateway.namespace, "tap-wan2")
        return self


@pytest.fixture(scope="module")
def module_bench(module_network):
    return TapBench(module_network).start()


def pieces(packet, size=400, number=None):
    """The IP packet in fragments of so many bytes of its payload."""
    number = next(_ids) if number is None else number
    payload, found = bytes(packet.payload), []
    for offset in range(0, len(payload), size):
        piece, more = Raw(payload[offset:offset + size]), offset + size < len(payload)
        if isinstance(packet, IPv6):
            found.append(IPv6(src=packet.src, dst=packet.dst, tc=packet.tc, nh=44)
                         / IPv6ExtHdrFragment(nh=packet.nh, offset=offset // 8, m=more, id=number)
                         / piece)
        else:
            found.append(IP(src=packet.src, dst=packet.dst, tos=packet.tos, proto=packet.proto,
                            id=number, frag=offset // 8, flags="MF" if more else 0) / piece)
    return found


def inner(tunnel, size=1200):
    return probe(Bench.BEHIND[tunnel], Bench.HOST, size=size)


def fragmented(sa, tunnel, size=1200, piece=400):
    """An inner packet, and its ESP in fragments."""
    sent = inner(tunnel, size)
    return sent, pieces(sa.encrypt(sent), piece)


def joined(bench):
    return bench.gateway.source("port", "wan")["joined"]


def balanced(bench):
    """Every packet is accounted for, and none is held."""
    for source in bench.gateway.call("stats")["sources"]:
        if source["held"] or source["received"] != (source["forwarded"] + source["to_host"]
                                                    + source["dropped"] + source["joined"]):
            return False
    return True


@pytest.mark.parametrize("nat_t", (False, True), ids=("plain", "udp"))
@pytest.mark.parametrize("tunnel", TUNNELS)
def test_every_order_arrives_whole(bench, tunnel, nat_t):
    """UDP says in its first fragment only whether it is ESP or IKE."""
    sa = bench.sa_in(tunnel, nat_t=nat_t)
    before = joined(bench)
    with bench.gateway.dropping():
        for count, order in enumerate(itertools.permutations(range(4)), 1):
            sent, fragments = fragmented(sa, tunnel)
            assert len(fragments) == 4
            bench.send_outside(*(fragments[i] for i in order))
            assert bytes(bench.arrives_inside(sent).payload) == bytes(sent.payload)
        wait_until(lambda: balanced(bench), "all is accounted for")
    assert joined(bench) == before + 3 * count


def test_fragments_of_one_packet_at_two_workers(bench):
    """As where a NIC puts the first fragment on another queue than the rest. (A link-local address
    is the only one that two ports can have.)"""
    sa = bench.sa_in("tunnel06")
    before = joined(bench)
    with bench.gateway.dropping():
        for number in range(20):
            sent = inner("tunnel06")
            packet = sa.encrypt(sent)
            packet.dst = "fe80::99"
            first, *rest = pieces(packet)
            frames = [esp.frame(bench.wan_mac, bench.FAR_MAC, piece) for piece in rest]
            bench.outside2.send(*frames[:number % 3])
            bench.send_outside(first)
            bench.outside2.send(*frames[number % 3:])
            bench.arrives_inside(sent)
        wait_until(lambda: balanced(bench), "all is accounted for")
    workers = [entry["tx_packets"] for entry in bench.gateway.port("lan")["queues"]]
    assert min(workers) > 0, workers
    assert joined(bench) + bench.gateway.source("port", "wan2")["joined"] == before + 60


def test_packets_in_fragments_among_each_other(bench):
    """Thirty at once, by both workers, their fragments in any order."""
    sa = bench.sa_in()
    made = [fragmented(sa, "tunnel01", size, 800) for size in range(900, 1500, 20)]
    fragments = [piece for _, some in made for piece in some]
    random.Random(3).shuffle(fragments)
    with bench.gateway.dropping():
        bench.send_outside(*fragments)
        wanted = {bytes(sent[UDP].payload) for sent, _ in made}
        got = bench.inside.collect(esp.is_ip, 3, count=len(made))
        assert {bytes(packet[UDP].payload) for packet in got} == wanted
    wait_until(lambda: balanced(bench), "all is accounted for")


def test_lost_duplicate_and_overlapping_fragments(bench):
    sa = bench.sa_in()
    sent, fragments = fragmented(sa, "tunnel01")
    with bench.gateway.dropping(fragment_duplicate=2):
        bench.send_outside(*fragments[:2], *fragments[:2], *fragments[2:])
        bench.arrives_inside(sent)
    _, fragments = fragmented(sa, "tunnel01")
    with bench.gateway.dropping(fragment_overlap=5):
        overlapping = fragments[1].copy()
        overlapping.frag -= 1
        del overlapping.chksum
        bench.send_outside(*fragments[:2], overlapping, *fragments[2:])
    _, fragments = fragmented(sa, "tunnel01")
    with bench.gateway.dropping(fragment_timeout=3):
        bench.send_outside(*fragments[1:])
        # Without any traffic it gets old.
        wait_until(lambda: balanced(bench), "nothing is held", 10 * TIMEOUT)
    bench.nothing_inside()


def test_hostile_fragments(bench):
    sa = bench.sa_in()
    big = sa.wrap(Raw(sa.seal(esp.trailer(bytes(inner("tunnel01", 4000)), esp.IPV4))))
    with bench.gateway.dropping(fragment_too_big=4):
        bench.send_outside(*pieces(big, 1200))
    with bench.gateway.dropping(fragment_too_many=50):
        bench.send_outside(*pieces(sa.encrypt(inner("tunnel01", 400)), 8)[:50])
    outer = IP(src=Bench.FAR["tunnel01"], dst=Bench.WAN, proto=50)
    behind = outer.copy()
    behind.frag = 8189
    odd = outer.copy()
    odd.flags = "MF"
    with bench.gateway.dropping(fragment_bad=3):
        bench.send_outside(behind / Raw(bytes(100)), odd / Raw(bytes(100)),
                           IP(src=outer.src, dst=outer.dst, proto=17, flags="MF")
                           / UDP(sport=4500, dport=4500, len=100))
    extended = IPv6(src=Bench.FAR["tunnel06"], dst=Bench.WAN6) / IPv6ExtHdrFragment(
        nh=60, m=1, id=1) / IPv6ExtHdrDestOpt(nh=50) / Raw(bytes(56))
    with bench.gateway.dropping(esp_fragment=1):
        bench.send_outside(extended)
    # What is whole and too large for the cipher to make sense of is refused by its own name.
    with bench.gateway.dropping(icv=1):
        packet = sa.encrypt(inner("tunnel01"))
        forged = pieces(packet)
        forged[2].load = bytes(len(forged[2].load))
        bench.send_outside(*forged)
    bench.nothing_inside()


def test_a_flood_of_first_fragments_does_not_stop_others(bench):
    """More than both tables hold: the oldest go, and who is quick arrives."""
    sa = bench.sa_in()
    flood = pieces(sa.wrap(Raw(bytes(64))), 32)[0]
    frames = []
    for number in range(1500):
        flood.id = number
        flood.src = "203.0.113.77"
        del flood.chksum
        frames.append(esp.frame(bench.wan_mac, bench.outside.mac, flood))
    before = bench.gateway.drops().get("fragment_table_full", 0)
    bench.outside.send(*frames)
    sent, fragments = fragmented(sa, "tunnel01")
    bench.send_outside(*fragments)
    bench.arrives_inside(sent)
    wait_until(lambda: balanced(bench), "nothing is held", 10 * TIMEOUT)
    assert bench.gateway.drops()["fragment_table_full"] > before


def test_ike_in_fragments_goes_to_the_host(bench):
    """Larger than any buffer, in any order: the kernel gets the fragments as they came."""
    namespace = bench.gateway.namespace
    before = bench.gateway.source("port", "wan")["to_host"]
    message = IP(src=Bench.FAR["tunnel01"], dst=Bench.WAN) / UDP(sport=4500, dport=4500) / Raw(
        b"\0\0\0\0" + bytes(range(256)) * 20)
    other = IP(src=Bench.FAR["tunnel01"], dst=Bench.WAN) / UDP(sport=500, dport=500) / Raw(
        bytes(3000))
    with namespace.entered():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, bench.gateway.dropping():
        server.bind((Bench.WAN, 4500))
        server.settimeout(5)
        count = 0
        for order in ((0, 1, 2, 3), (3, 1, 0, 2)):
            fragments = pieces(IP(bytes(message)), 1400)
            bench.send_outside(*(fragments[i] for i in order))
            assert server.recv(10000) == bytes(message[UDP].payload)
            count += 4
        bench.send_outside(*reversed(pieces(IP(bytes(other)), 1400)))
        count += 3
        wait_until(lambda: bench.gateway.source("port", "wan")["to_host"] == before + count,
                   "all fragments are the host's")


def test_inner_fragments_pass_both_ways(bench):
    sa, out = bench.sa_in(), bench.sa_out()
    large = probe(Bench.BEHIND["tunnel01"], Bench.HOST, size=2000)
    with bench.gateway.dropping():
        for piece in pieces(large, 800):
            bench.send_outside(sa.encrypt(IP(bytes(piece))))
            arrived = bench.inside.receive(esp.is_ip)
            assert (arrived.frag, arrived.flags, bytes(arrived.payload)) == (
                piece.frag, piece.flags, bytes(piece.payload))
        large = probe(Bench.HOST, Bench.BEHIND["tunnel01"], size=2000)
        for piece in pieces(large, 800):
            sent = bench.esp_of(IP(bytes(piece)))
            got = out.decrypt(sent)
            assert (got.frag, got.flags, bytes(got.payload)) == (
                piece.frag, piece.flags, bytes(piece.payload))
        six = probe(Bench.BEHIND6, Bench.HOST6, size=1800)
        for piece in pieces(six, 800):
            bench.send_outside(sa.encrypt(IPv6(bytes(piece))))
            arrived = bench.inside.receive(esp.is_ip)
            assert bytes(arrived.payload) == bytes(piece.payload)


def test_what_is_held_at_the_end_is_accounted_for(bench):
    sa = bench.sa_in()
    _, fragments = fragmented(sa, "tunnel01")
    bench.send_outside(*fragments[:2])
    wait_until(lambda: bench.gateway.source("port", "wan")["held"] == 2, "two are held", TIMEOUT)
    bench.gateway.stop()
    assert "unaccounted 0 packets" in bench.gateway.tail(2)
    bench.start()
