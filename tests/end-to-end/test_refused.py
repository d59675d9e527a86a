# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Every packet that must be refused, and the name under which it is."""

import os
import random
import struct

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

import esp
from esp import trailer
from testbed import wait_until
from topologies import Bench, probe

INNER = (Bench.BEHIND["tunnel01"], Bench.HOST)


def udp_4500(payload, **header):
    return IP(src=Bench.FAR["tunnel01"], dst=Bench.WAN, **header) / UDP(
        sport=4500, dport=4500) / Raw(payload)


# ---- ESP ----

@pytest.mark.parametrize("nat_t", (False, True), ids=("plain", "udp"))
def test_replay(bench, nat_t):
    sa = bench.sa_in(nat_t=nat_t)
    packets = [sa.encrypt(probe(*INNER)) for _ in range(5)]
    bench.send_outside(*packets)
    assert len(bench.inside.collect(esp.is_ip, 2, count=5)) == 5
    with bench.gateway.dropping(replay=10):
        bench.send_outside(*packets, *reversed(packets))
    bench.nothing_inside()


def test_too_old(bench):
    sa = bench.sa_in()  # window: 1024
    for sequence in (5000, 5000 - 1023):
        sent = probe(*INNER)
        bench.send_outside(sa.encrypt(sent, sequence))
        bench.arrives_inside(sent)
    with bench.gateway.dropping(too_old=2):
        bench.send_outside(sa.encrypt(probe(*INNER), 5000 - 1024), sa.encrypt(probe(*INNER), 1))
    bench.nothing_inside()


def test_every_bit_from_the_spi_to_the_icv(bench):
    """One damaged bit each, at every byte: none is accepted, the window does not move."""
    sa = bench.sa_in()
    packet = bytes(sa.encrypt(probe(*INNER, size=60)))
    header = 20
    spi, rest = range(header, header + 4), range(header + 4, len(packet))

    def damaged(place):
        flipped = bytearray(packet)
        flipped[place] ^= 1 << place % 8
        return IP(bytes(flipped))
    with bench.gateway.dropping(unknown_spi=len(spi), icv=len(rest)):
        bench.send_outside(*(damaged(place) for place in (*spi, *rest)))
    bench.nothing_inside()
    with bench.gateway.dropping():
        bench.send_outside(IP(packet))
        bench.inside.receive(esp.is_ip)


def test_another_key(bench):
    sa = bench.sa_in()
    sa.key = os.urandom(32)
    with bench.gateway.dropping(icv=3):
        bench.send_outside(*(sa.encrypt(probe(*INNER)) for _ in range(3)))
    assert bench.gateway.tunnel("tunnel01")["drops"]["icv"] >= 3


def test_wrong_spis(bench):
    sa = bench.sa_in()
    control = bench.gateway.control
    control.call("events.subscribe", events=["spi.unknown"])
    with bench.gateway.dropping(unknown_spi=4):
        for spi in (sa.spi ^ 1, 0x7fffffff, 1, 255):
            sa.spi = spi
            bench.send_outside(sa.encrypt(probe(*INNER)))
    event = control.event("spi.unknown")
    assert event["source"] == Bench.FAR["tunnel01"] and event["spi"].startswith("0x")
    bench.nothing_inside()


@pytest.mark.parametrize("nat_t", (False, True), ids=("plain", "udp"))
def test_runts(bench, nat_t):
    sa = bench.sa_in(nat_t=nat_t)
    whole = sa.seal(b"")  # 8 header, 8 IV, 16 ICV; the trailer is missing
    sizes = [size for size in range(len(whole) + 1) if not nat_t or size > 1]
    assert len(whole) == 32
    with bench.gateway.dropping(runt=len(sizes)):
        bench.send_outside(*(sa.wrap(Raw(whole[:size])) for size in sizes))


def test_keepalive_and_ike_are_told_apart(bench):
    bench.sa_in(nat_t=True)
    with bench.gateway.dropping(keepalive=1):
        bench.send_outside(udp_4500(b"\xff"))
    before = bench.gateway.source("port", "wan")["to_host"]
    with bench.gateway.dropping():
        bench.send_outside(udp_4500(b"\0\0\0\0" + b"ike"))
        bench.send_outside(IP(src=Bench.FAR["tunnel01"], dst=Bench.WAN) / UDP(
            sport=500, dport=500) / Raw(b"ike"))
    assert bench.gateway.source("port", "wan")["to_host"] == before + 2


def test_inner_source_that_is_not_behind_a_tunnel(bench):
    sa = bench.sa_in()
    sources = ("8.8.8.8", Bench.HOST, Bench.LAN, Bench.WAN, Bench.UNREACHABLE)
    with bench.gateway.dropping(inner_source=len(sources)):
        bench.send_outside(*(sa.encrypt(probe(source, Bench.HOST)) for source in sources))
    bench.nothing_inside()
    drops = bench.gateway.tunnel("tunnel01")["drops"]
    assert drops["inner_source"] >= len(sources)


def test_bad_padding(bench):
    sa = bench.sa_in()
    inner = bytes(probe(*INNER, size=62))
    plaintexts = [
        trailer(inner, esp.IPV4, padding=b"\1\2\3\3"),
        trailer(inner, esp.IPV4, padding=b"\0\0\0\0"),
        trailer(inner, esp.IPV4, padding=b"", pad_length=255),  # longer than the packet
        trailer(inner, esp.IPV4, padding=b"", pad_length=len(inner) + 1),
    ]
    with bench.gateway.dropping(bad_padding=len(plaintexts)):
        bench.send_outside(*(sa.wrap(Raw(sa.seal(text))) for text in plaintexts))
    bench.nothing_inside()


def test_long_padding_and_traffic_flow_confidentiality_are_accepted(bench):
    sa = bench.sa_in()
    for plaintext in (lambda inner: trailer(inner, esp.IPV4, padding=bytes(range(1, 255))),
                      lambda inner: trailer(bytes(inner) + os.urandom(100), esp.IPV4)):
        sent = probe(*INNER, size=62)
        bench.send_outside(sa.wrap(Raw(sa.seal(plaintext(sent)))))
        assert len(bench.arrives_inside(sent)) == 62


def test_dummies_and_other_next_headers(bench):
    sa = bench.sa_in()
    with bench.gateway.dropping(dummy=2):
        bench.send_outside(*(sa.wrap(Raw(sa.seal(trailer(os.urandom(30), esp.DUMMY))))
                             for _ in range(2)))
    with bench.gateway.dropping(bad_next_header=2):
        bench.send_outside(*(sa.wrap(Raw(sa.seal(trailer(probe(*INNER), number))))
                             for number in (0, 17)))
    # The window advanced all the same (RFC 4303 2.6).
    with bench.gateway.dropping(replay=1):
        bench.send_outside(sa.encrypt(probe(*INNER), 1))


def test_bad_inner_headers(bench):
    sa = bench.sa_in()
    good = bytes(probe(*INNER))
    inners = [
        (b"\x55" + good[1:], esp.IPV4),                              # version 5
        (b"\x44" + good[1:], esp.IPV4),                              # IHL under 5
        (good[:2] + struct.pack("!H", len(good) + 1) + good[4:], esp.IPV4),  # longer than it is
        (good[:2] + struct.pack("!H", 0) + good[4:], esp.IPV4),
        (good[:10], esp.IPV4),
        (good, esp.IPV6),                                            # not what the trailer says
        (bytes(probe(Bench.BEHIND6, Bench.HOST6)), esp.IPV4),
    ]
    with bench.gateway.dropping(bad_inner=len(inners)):
        bench.send_outside(*(sa.wrap(Raw(sa.seal(trailer(*inner)))) for inner in inners))
    bench.nothing_inside()


def test_congestion_marks(bench):
    """RFC 6040: a mark on the way reaches those who can carry it, and loses the others."""
    sa = bench.sa_in()

    def marked(inner_class, outer_class):
        sent = probe(*INNER, tos=inner_class)
        packet = sa.encrypt(sent)
        packet.tos = outer_class
        del packet.chksum
        bench.send_outside(packet)
        return sent
    with bench.gateway.dropping():
        assert bench.arrives_inside(marked(2, 3)).tos == 3
        assert bench.arrives_inside(marked(2, 1)).tos == 1
        assert bench.arrives_inside(marked(0, 0)).tos == 0
    with bench.gateway.dropping(ecn=1):
        marked(0, 3)
    bench.nothing_inside()


# ---- Cleartext ----

def test_no_route(bench):
    with bench.gateway.dropping(no_route=2):
        bench.send_inside(probe(Bench.HOST, "8.8.8.8"), probe(Bench.HOST6, "2001:db8:ffff::1"))
    bench.nothing_outside()


def test_ipv6_sources_that_no_router_passes_on(bench):
    bench.sa_out()
    with bench.gateway.dropping(source_scope=3):
        bench.send_inside(*(probe(source, Bench.BEHIND6) for source in ("fe80::5", "febf::1", "::")))
    bench.nothing_outside()
    with bench.gateway.dropping():
        bench.send_inside(probe("fec0::5", Bench.BEHIND6))
        bench.outside.receive(esp.is_esp)


def test_ttl_expired(bench):
    bench.sa_out()
    with bench.gateway.dropping(ttl_expired=3):
        bench.send_inside(probe(Bench.HOST, INNER[0], ttl=1), probe(Bench.HOST, INNER[0], ttl=0),
                          probe(Bench.HOST6, Bench.BEHIND6, hlim=1))
    sa = bench.sa_in()
    with bench.gateway.dropping(ttl_expired=1):
        bench.send_outside(sa.encrypt(probe(*INNER, ttl=1)))
    bench.nothing_inside()
    bench.outside.receive(esp.is_esp, what="the ICMP message")
    bench.nothing_outside()


def test_too_big(bench):
    bench.sa_out()
    with bench.gateway.dropping(too_big=2):
        bench.send_inside(probe(Bench.HOST, INNER[0], size=Bench.MTU + 1, flags="DF"),
                          probe(Bench.HOST, INNER[0], size=1500, flags="DF"))
    bench.nothing_outside()
    bench.esp_of(probe(Bench.HOST, INNER[0], size=Bench.MTU, flags="DF"))
    bench.sa_out(nat_t=True)  # takes 8 bytes for UDP
    with bench.gateway.dropping(too_big=1):
        bench.send_inside(probe(Bench.HOST, INNER[0], size=Bench.MTU - 7, flags="DF"))
    bench.esp_of(probe(Bench.HOST, INNER[0], size=Bench.MTU - 8, flags="DF"))


def test_no_sa(bench):
    control = bench.gateway.control
    control.call("events.subscribe", events=["tunnel.no_sa"])
    with bench.gateway.dropping(no_sa=1):
        bench.send_inside(probe(Bench.HOST, Bench.BEHIND["tunnel03"]))
    assert control.event("tunnel.no_sa")["tunnel"] == "tunnel03"
    assert bench.gateway.tunnel("tunnel03")["drops"]["no_sa"] >= 1
    bench.nothing_outside()


def test_cleartext_never_leaves_an_outside_port(bench):
    """Neither from inside by a port route, nor out of a tunnel."""
    sa = bench.sa_in()
    with bench.gateway.dropping(cleartext_to_outside=2):
        bench.send_inside(probe(Bench.HOST, Bench.UNREACHABLE))
        bench.send_outside(sa.encrypt(probe(INNER[0], Bench.UNREACHABLE)))
    with bench.gateway.dropping(cleartext_to_outside=1):  # a neighbour outside
        bench.send_inside(probe(Bench.HOST, "203.0.113.99"))
    bench.nothing_outside()


def test_cleartext_from_outside(bench):
    bench.sa_in()
    with bench.gateway.dropping(cleartext_from_outside=3):
        bench.send_outside(probe(*INNER), probe(INNER[0], Bench.BEHIND["tunnel02"]),
                           probe(Bench.BEHIND6, Bench.HOST6))
    with bench.gateway.dropping(no_route=1):
        bench.send_outside(probe(INNER[0], "8.8.8.8"))
    bench.nothing_inside()
    bench.nothing_outside()


def test_esp_to_an_inside_port_is_not_decapsulated(bench):
    sa = bench.sa_in()
    sent = probe(*INNER)
    packet = sa.encrypt(sent)
    packet.dst = Bench.LAN
    del packet.chksum
    bench.send_inside(packet)
    bench.nothing_inside()


# ---- Frames ----

def test_frames_that_are_none_of_ours(bench):
    good = bytes(probe(Bench.HOST, INNER[0]))
    head = bytes(Ether(dst=bench.lan_mac, src=bench.inside.mac, type=0x0800))
    broken = bytearray(good)
    broken[10] ^= 0xff
    with bench.gateway.dropping(other_mac=1):
        bench.inside.send(bytes(Ether(dst="02:00:00:00:00:99", src=bench.inside.mac,
                                      type=0x0800)) + good)
    with bench.gateway.dropping(ethertype=1):
        bench.inside.send(bytes(Ether(dst=bench.lan_mac, src=bench.inside.mac, type=0x88b5)) + good)
    with bench.gateway.dropping(vlan=1):
        bench.inside.send(bytes(Ether(dst=bench.lan_mac, src=bench.inside.mac)
                                / Dot1Q(vlan=5) / IP(good)))
    with bench.gateway.dropping(bad_checksum=1):
        bench.inside.send(head + bytes(broken))
    with bench.gateway.dropping(bad_header=4):
        bench.inside.send(head + good[:18], head + good[:-1], head + b"\x35" + good[1:],
                          head + b"\x44" + good[1:])
    with bench.gateway.dropping(bad_frame=1):  # UDP is longer than its IP packet
        bench.send_outside(IP(src=Bench.FAR["tunnel01"], dst=Bench.WAN)
                           / UDP(sport=4500, dport=4500, len=200) / Raw(bytes(50)))
    bench.nothing_outside()


def test_a_thousand_random_packets_break_nothing(bench):
    """Garbage behind every header that is looked at; the gateway goes on afterwards."""
    sa, out = bench.sa_in(), bench.sa_out()
    rng = random.Random(1)
    for _ in range(250):
        junk = rng.randbytes(rng.randrange(0, 120))
        bench.outside.send(bytes(Ether(dst=bench.wan_mac, src=bench.outside.mac,
                                       type=rng.choice((0x800, 0x86dd)))) + junk)
        bench.send_outside(sa.wrap(Raw(struct.pack("!I", sa.spi) + junk)),
                           sa.wrap(Raw(sa.seal(junk + bytes((rng.randrange(8), 4))))),
                           udp_4500(junk or b"\0"))
    sent = probe(*INNER)
    bench.inside.flush()
    bench.send_outside(sa.encrypt(sent))
    bench.arrives_inside(sent)
    bench.outside.flush()
    assert bench.esp_of(probe(Bench.HOST, INNER[0]))[ESP].spi == out.spi
    wait_until(lambda: all(source["held"] == 0
                           for source in bench.gateway.call("stats")["sources"]), "nothing is held")


