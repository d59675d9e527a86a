# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""What becomes of outer and inner headers, held against scapy (RFC 4301 5.1.2, 6040, 2983, 6864)."""

import itertools

import pytest
from scapy.layers.inet import (
    IP, UDP, IPOption_NOP, IPOption_Router_Alert, IPOption_RR, IPOption_Timestamp)
from scapy.layers.inet6 import (
    IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN,
    RouterAlert)
from scapy.layers.ipsec import ESP
from scapy.packet import Raw

from topologies import Bench, probe

BEHIND6 = {"tunnel01": Bench.BEHIND6, "tunnel02": "2001:db8:193::10",
           "tunnel03": "2001:db8:194::10", "tunnel06": "2001:db8:196::10"}
# What the tunnels differ in. tunnel06 is IPv6 outside.
SETTINGS = {
    "tunnel01": {"df": "copy"},
    "tunnel02": {"df": "clear", "dscp": 46, "ttl": 9},
    "tunnel03": {},
    "tunnel06": {"dscp": 10},
}
FAMILIES = [pytest.param(inner, id=f"ipv{inner}-inside") for inner in (4, 6)]


class HeaderBench(Bench):
    def config(self):
        config = super().config()
        for tunnel in config["tunnels"]:
            tunnel.update(SETTINGS[tunnel["name"]])
            if tunnel["name"] != "tunnel01":
                config["routes"].append({"prefix": BEHIND6[tunnel["name"]] + "/128",
                                         "tunnel": tunnel["name"]})
        return config


@pytest.fixture(scope="module")
def module_bench(module_network):
    return HeaderBench(module_network).start()


def ends(tunnel, family):
    """Host inside and host behind the tunnel."""
    return (Bench.HOST, Bench.BEHIND[tunnel]) if family == 4 else (Bench.HOST6, BEHIND6[tunnel])


def with_class(packet, value):
    """The same packet with another traffic class."""
    packet = packet.copy()
    if isinstance(packet, IP):
        packet.tos = value
        del packet.chksum
    else:
        packet.tc = value
    return packet.__class__(bytes(packet))


def class_of(packet):
    return packet.tos if isinstance(packet, IP) else packet.tc


def forwarded(packet, traffic_class=None):
    """What a router makes of the packet: one hop less, and nothing else."""
    packet = packet.copy()
    if isinstance(packet, IP):
        packet.ttl -= 1
        del packet.chksum
    else:
        packet.hlim -= 1
    if traffic_class is not None:
        packet = with_class(packet, traffic_class)
    return bytes(packet)


def arrives(bench, expected):
    """Waits for exactly this packet at the inside wire."""
    bench.inside.receive(lambda frame: frame[14:14 + len(expected)] == expected,
                         what=f"the packet {expected.hex()}")


# ---- Traffic class ----

@pytest.mark.parametrize("inner", FAMILIES)
@pytest.mark.parametrize("tunnel", SETTINGS)
def test_outer_traffic_class_and_hop_limit(bench, tunnel, inner):
    """DSCP copied or set (RFC 2983), ECN copied (RFC 6040 4.1), TTL not the inner one's."""
    sa = bench.sa_out(tunnel)
    dscp = SETTINGS[tunnel].get("dscp")
    for inner_dscp, ecn in itertools.product((0, 26, 63), range(4)):
        sent = with_class(probe(*ends(tunnel, inner)), inner_dscp << 2 | ecn)
        outer = bench.esp_of(sent)
        assert class_of(outer) == (inner_dscp if dscp is None else dscp) << 2 | ecn
        if isinstance(outer, IP):
            assert outer.ttl == SETTINGS[tunnel].get("ttl", 64)
            without = outer.copy()
            del without.chksum
            assert IP(bytes(without)).chksum == outer.chksum
        else:
            assert (outer.hlim, outer.fl) == (64, 0)
        assert bytes(sa.decrypt(outer)) == forwarded(sent)


# RFC 6040 section 4.2, figure 4; None: the packet is dropped. Columns: outer Not-ECT, ECT(1),
# ECT(0), CE, by their values.
NOT_ECT, ECT1, ECT0, CE = range(4)
EGRESS = {
    NOT_ECT: (NOT_ECT, NOT_ECT, NOT_ECT, None),
    ECT1: (ECT1, ECT1, ECT1, CE),
    ECT0: (ECT0, ECT1, ECT0, CE),
    CE: (CE, CE, CE, CE),
}


@pytest.mark.parametrize("inner", FAMILIES)
@pytest.mark.parametrize("tunnel", ("tunnel02", "tunnel06"))
def test_ecn_of_what_arrives(bench, tunnel, inner):
    """Each combination of inner and outer field; the inner DSCP stays (RFC 2983 3.1, pipe)."""
    sa = bench.sa_in(tunnel)
    for inner_ecn, outer_ecn in itertools.product(range(4), repeat=2):
        sent = with_class(probe(*reversed(ends(tunnel, inner))), 26 << 2 | inner_ecn)
        packet = with_class(sa.encrypt(sent), 46 << 2 | outer_ecn)
        result = EGRESS[inner_ecn][outer_ecn]
        if result is None:
            with bench.gateway.dropping(ecn=1):
                bench.send_outside(packet)
            continue
        bench.send_outside(packet)
        arrives(bench, forwarded(sent, 26 << 2 | result))


# ---- DF and identification ----

@pytest.mark.parametrize("nat_t", (False, True), ids=("esp", "udp"))
@pytest.mark.parametrize("tunnel, policy", (
    ("tunnel01", "copy"), ("tunnel02", "clear"), ("tunnel03", "set")))
def test_df_and_identification(bench, tunnel, policy, nat_t):
    """RFC 4301 8.1. A packet that may be fragmented has an identification of its own (RFC 6864)."""
    sa = bench.sa_out(tunnel, nat_t=nat_t)
    seen = set()
    for family, inner_df in ((4, False), (4, True), (6, True), (4, False), (4, True)):
        options = {"flags": "DF" if inner_df else 0, "id": 7} if family == 4 else {}
        sent = probe(*ends(tunnel, family), **options)
        outer = bench.esp_of(sent)
        df = {"copy": inner_df, "clear": False, "set": True}[policy]
        assert outer.flags == ("DF" if df else 0) and outer.frag == 0
        assert (outer.id == 0) == df and outer.id not in seen
        if not df:
            seen.add(outer.id)
        assert bytes(sa.decrypt(outer)) == forwarded(sent)


# ---- Inner packets pass as they are ----

def udp(size=60):
    return UDP(sport=2000, dport=3000) / Raw(bytes(range(size)))


def inner_packets(source, destination):
    """IPv4 with options, IPv6 with each extension header."""
    if ":" not in source:
        head = {"src": source, "dst": destination, "tos": 0x28}
        options = [IPOption_Router_Alert()], [IPOption_RR(), IPOption_NOP()], \
            [IPOption_Timestamp()], [IPOption_NOP()] * 40
        yield from (IP(**head, options=option, id=number, flags=number % 2 * 2) / udp()
                    for number, option in enumerate(options))
        yield IP(**head, proto=253)
        return
    head = IPv6(src=source, dst=destination, tc=0x28, fl=0x12345)
    hop = IPv6ExtHdrHopByHop(options=[RouterAlert(), PadN(optdata=b"\0\0")])
    last = IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 12)])
    yield head / hop / udp()
    yield head / last / udp()
    yield head / IPv6ExtHdrRouting(addresses=["2001:db8::1"], segleft=0) / udp()
    yield head / hop / last / IPv6ExtHdrRouting(addresses=["2001:db8::1"], segleft=0) / udp()
    yield head / IPv6ExtHdrFragment(id=77, m=1) / udp(64)
    yield head / IPv6ExtHdrFragment(id=77, offset=9, nh=17) / Raw(b"the end")
    yield IPv6(src=source, dst=destination, nh=59)


@pytest.mark.parametrize("nat_t", (False, True), ids=("esp", "udp"))
@pytest.mark.parametrize("inner", FAMILIES)
@pytest.mark.parametrize("tunnel", ("tunnel01", "tunnel06"))
def test_inner_packets_pass_unharmed(bench, tunnel, inner, nat_t):
    """All four combinations of families, plain and in UDP, both ways: one hop less, no bit else."""
    out, into = bench.sa_out(tunnel, nat_t=nat_t), bench.sa_in(tunnel, nat_t=nat_t)
    for sent in inner_packets(*ends(tunnel, inner)):
        sent = sent.__class__(bytes(sent))
        outer = bench.esp_of(sent)
        assert (UDP in outer) == nat_t and outer[ESP].spi == out.spi
        assert bytes(out.decrypt(outer)) == forwarded(sent)
    backwards = list(inner_packets(*reversed(ends(tunnel, inner))))
    if inner == 4:
        # This way only: the kernel below net_af_packet would put together what comes inside.
        head = {"src": backwards[0].src, "dst": backwards[0].dst, "id": 77}
        backwards += [IP(**head, flags="MF") / udp(64),
                      IP(**head, frag=9, proto=17) / Raw(b"the end")]
    for sent in backwards:
        sent = sent.__class__(bytes(sent))
        bench.send_outside(into.encrypt(sent))
        arrives(bench, forwarded(sent))
