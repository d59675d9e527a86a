# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""The traffic selectors of an SA hold for each packet, both ways (RFC 4301 5.1, 5.2 and 7)."""

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.packet import Raw

from topologies import Bench, probe

HOST, BEHIND = Bench.HOST, Bench.BEHIND["tunnel01"]
# UDP to port 3000 behind the tunnel, any ping, and all of one host over IPv6.
SELECTORS = [
    {"local": "10.1.0.0/24", "remote": "192.168.192.0/28", "protocol": 17,
     "remote_ports": {"first": 3000, "last": 3001}},
    {"local": "0.0.0.0/0", "remote": "0.0.0.0/0", "protocol": 1,
     "local_ports": {"first": 8 << 8, "last": 8 << 8}},
    {"local": "::/0", "remote": f"{Bench.BEHIND6}/128"},
]


def udp(source, destination, sport=2000, dport=3000, **header):
    return IP(bytes(IP(src=source, dst=destination, **header) / UDP(sport=sport, dport=dport) /
                    Raw(b"selected" * 4)))


def outbound():
    """Packets from the local side, and whether the selectors have them."""
    yield udp(HOST, BEHIND), True
    yield udp(HOST, BEHIND, dport=3001), True
    yield udp(HOST, BEHIND, dport=3002), False
    yield udp(HOST, BEHIND, sport=3000, dport=2000), False
    yield udp(HOST, "192.168.192.16"), False
    yield IP(src=HOST, dst=BEHIND) / TCP(sport=2000, dport=3000), False
    yield IP(src=HOST, dst=BEHIND) / ICMP(type=8) / Raw(b"ping"), True
    yield IP(src=HOST, dst=BEHIND) / ICMP(type=13), False
    yield IPv6(src=Bench.HOST6, dst=Bench.BEHIND6) / ICMPv6EchoRequest(), True
    yield IPv6(src=Bench.HOST6, dst="2001:db8:192::11") / ICMPv6EchoRequest(), False


def test_what_leaves(bench):
    sa = bench.sa_out(add={"selectors": SELECTORS})
    allowed = 0
    for packet, within in outbound():
        if not within:
            with bench.gateway.dropping(selector=1):
                bench.send_inside(packet)
            continue
        allowed += 1
        assert sa.decrypt(bench.esp_of(packet)).dst == packet.dst
    listed = bench.gateway.call("sa.show", direction="out", spi=sa.spi)["sa"]
    assert listed["selectors"] == SELECTORS
    # What is left out uses no sequence number.
    assert (listed["sequence"], listed["packets"]) == (allowed, allowed)
    assert bench.gateway.tunnel("tunnel01")["drops"]["selector"] == \
        sum(not within for _, within in outbound())


def backwards(packet):
    """As the far side answers."""
    packet = packet.copy()
    packet.src, packet.dst = packet.dst, packet.src
    if UDP in packet:
        packet[UDP].sport, packet[UDP].dport = packet[UDP].dport, packet[UDP].sport
        del packet[UDP].chksum
    if isinstance(packet, IP):
        del packet.chksum
    return packet.__class__(bytes(packet))


def arrives(bench, packet):
    """At the inside wire, one hop older."""
    expected = bytes(packet)[12:20] if isinstance(packet, IP) else bytes(packet)[8:40]
    offset = 14 + (12 if isinstance(packet, IP) else 8)
    bench.inside.receive(lambda frame: frame[offset:offset + len(expected)] == expected,
                         what=packet.summary())


def test_what_arrives(bench):
    sa = bench.sa_in(add={"selectors": SELECTORS})
    cases = [(backwards(packet), within) for packet, within in outbound()]
    # Of fragments only the first shows its ports (section 7).
    cases += [(backwards(udp(HOST, BEHIND, flags="MF", id=7)), True),
              (IP(src=BEHIND, dst=HOST, id=7, frag=5, proto=17) / Raw(b"the end"), False)]
    for packet, within in cases:
        if within:
            bench.send_outside(sa.encrypt(packet))
            arrives(bench, packet)
        else:
            with bench.gateway.dropping(selector=1):
                bench.send_outside(sa.encrypt(packet))
    listed = bench.gateway.call("sa.show", direction="in", spi=sa.spi)["sa"]
    assert listed["packets"] == sum(within for _, within in cases)
    assert listed["sequence"] == len(cases)  # all were authentic


@pytest.mark.parametrize("selectors", (
    [], [{"local": "0.0.0.0/0", "remote": "0.0.0.0/0"}, {"local": "::/0", "remote": "::/0"}],
    [{"local": "10.1.0.0/24", "remote": "192.168.192.0/26", "protocol": 17}]),
    ids=("none", "any", "all-ports"))
def test_fragments_pass_where_no_port_is_asked_for(bench, selectors):
    sa = bench.sa_in(add={"selectors": selectors})
    for packet in (backwards(udp(HOST, BEHIND, flags="MF", id=7)),
                   IP(src=BEHIND, dst=HOST, id=7, frag=5, proto=17) / Raw(b"the end")):
        bench.send_outside(sa.encrypt(packet))
        arrives(bench, packet)


def test_ipv4_selectors_keep_ipv6_out(bench):
    """0.0.0.0/0 is all of IPv4, and nothing else."""
    every = [{"local": "0.0.0.0/0", "remote": "0.0.0.0/0"}]
    out = bench.sa_out(add={"selectors": every})
    into = bench.sa_in(add={"selectors": every})
    out.decrypt(bench.esp_of(probe(HOST, BEHIND)))
    sent = probe(BEHIND, HOST)
    bench.send_outside(into.encrypt(sent))
    bench.arrives_inside(sent)
    with bench.gateway.dropping(selector=1):
        bench.send_inside(probe(Bench.HOST6, Bench.BEHIND6))
    with bench.gateway.dropping(selector=1):
        bench.send_outside(into.encrypt(probe(Bench.BEHIND6, Bench.HOST6)))
