# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""ESP on the wire against scapy's and tshark's."""

import itertools
import subprocess

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import wrpcap

from esp import IPV4, trailer
from topologies import Bench, probe

WAYS = [pytest.param(ipv6, esn, nat_t, id=f"ipv{6 if ipv6 else 4}{'-esn' if esn else ''}"
                                          f"{'-udp' if nat_t else ''}")
        for ipv6, esn, nat_t in itertools.product((False, True), repeat=3)]


def ends(ipv6):
    return (Bench.HOST6, Bench.BEHIND6) if ipv6 else (Bench.HOST, Bench.BEHIND["tunnel01"])


@pytest.mark.parametrize("ipv6, esn, nat_t", WAYS)
def test_scapy_decrypts_what_the_gateway_encrypts(bench, ipv6, esn, nat_t):
    sa = bench.sa_out(esn=esn, nat_t=nat_t)
    for number in range(1, 6):
        sent = probe(*ends(ipv6))
        outer = bench.esp_of(sent)
        assert (outer.src, outer.dst, outer[ESP].spi) == (sa.source, sa.destination, sa.spi)
        assert outer[ESP].seq == number
        assert (UDP in outer) == nat_t
        inner = sa.decrypt(outer)
        hops = "hlim" if ipv6 else "ttl"
        assert getattr(inner, hops) == getattr(sent, hops) - 1
        assert bytes(inner[UDP]) == bytes(sent[UDP])


@pytest.mark.parametrize("ipv6, esn, nat_t", WAYS)
def test_gateway_decrypts_what_scapy_encrypts(bench, ipv6, esn, nat_t):
    sa = bench.sa_in(esn=esn, nat_t=nat_t)
    host, behind = ends(ipv6)
    for _ in range(5):
        sent = probe(behind, host)
        bench.send_outside(sa.encrypt(sent))
        got = bench.arrives_inside(sent)
        hops = "hlim" if ipv6 else "ttl"
        assert getattr(got, hops) == getattr(sent, hops) - 1
        assert (got.src, got.dst) == (sent.src, sent.dst)


def test_every_padding_and_size_both_ways(bench):
    out, into = bench.sa_out(), bench.sa_in()
    for size in (*range(46, 56), 576, 1024, *range(Bench.MTU - 4, Bench.MTU + 1)):
        sent = probe(*ends(False), size=size)
        outer = bench.esp_of(sent)
        assert len(outer) <= 1500 and bytes(out.decrypt(outer)[UDP]) == bytes(sent[UDP])
        sent = probe(*reversed(ends(False)), size=size)
        bench.send_outside(into.encrypt(sent))
        assert bytes(bench.arrives_inside(sent)[UDP]) == bytes(sent[UDP])


def test_esp_arrives_with_or_without_udp_on_one_sa(bench):
    plain = bench.sa_in(nat_t=False)
    for nat_t in (False, True, False):
        plain.nat_t = nat_t
        sent = probe(*reversed(ends(False)))
        bench.send_outside(plain.encrypt(sent))
        bench.arrives_inside(sent)


def test_ipv6_outside(bench):
    out, into = bench.sa_out("tunnel06"), bench.sa_in("tunnel06")
    sent = probe(Bench.HOST, Bench.BEHIND["tunnel06"])
    outer = bench.esp_of(sent)
    assert isinstance(outer, IPv6) and outer.dst == Bench.FAR["tunnel06"]
    assert bytes(out.decrypt(outer)[UDP]) == bytes(sent[UDP])
    sent = probe(Bench.BEHIND["tunnel06"], Bench.HOST)
    bench.send_outside(into.encrypt(sent))
    bench.arrives_inside(sent)


def test_answer_by_the_other_tunnel_is_accepted(bench):
    """AWS answers by whichever tunnel it likes."""
    sa = bench.sa_in("tunnel02")
    sent = probe(Bench.BEHIND["tunnel01"], Bench.HOST)
    bench.send_outside(sa.encrypt(sent))
    bench.arrives_inside(sent)


def test_from_tunnel_to_tunnel(bench):
    """A spoke talks to another spoke: decapsulated, then encapsulated, never in clear."""
    into, out = bench.sa_in("tunnel01"), bench.sa_out("tunnel02")
    sent = probe(Bench.BEHIND["tunnel01"], Bench.BEHIND["tunnel02"])
    bench.send_outside(into.encrypt(sent))
    outer = bench.outside.receive(lambda frame: IP(frame[14:]) if frame[12:14] == b"\x08\x00"
                                  else None, what="ESP for tunnel02")
    assert outer.proto == 50 and bytes(out.decrypt(outer)[UDP]) == bytes(sent[UDP])


def test_esn_window_follows_the_high_half(bench):
    """2^32 is crossed: the receiver infers the high half that is never sent."""
    sa = bench.sa_in(esn=True)
    for sequence in (2 ** 31, 2 ** 32 - 2, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 32 - 3):
        sent = probe(*reversed(ends(False)))
        # Not by scapy, which takes a low half of 0 for none.
        packet = sa.wrap(Raw(sa.seal(trailer(sent, IPV4), sequence)))
        bench.send_outside(packet)
        bench.arrives_inside(sent)
    with bench.gateway.dropping(replay=1):
        bench.send_outside(packet)
    with bench.gateway.dropping(icv=1):  # with the high half before: another packet altogether
        bench.send_outside(sa.wrap(Raw(sa.seal(trailer(sent, IPV4), 100))))


def test_tshark_verifies_the_icv(bench, tmp_path):
    sa = bench.sa_out()
    packets = [Ether() / bench.esp_of(probe(*ends(False), size=size)) for size in range(60, 70)]
    capture = tmp_path / "esp.pcap"
    wrpcap(str(capture), packets)
    key = "0x" + (sa.key + sa.salt).hex()
    shown = subprocess.run(
        ["tshark", "-r", capture, "-V", "-o", "esp.enable_encryption_decode:TRUE",
         "-o", "esp.enable_authentication_check:TRUE",
         "-o", f'uat:esp_sa:"IPv4","*","*","0x{sa.spi:08x}","AES-GCM with 16 octet ICV [RFC4106]",'
               f'"{key}","NULL",""'],
        capture_output=True, text=True, timeout=60)
    assert shown.stdout.count("[correct]") >= len(packets), shown.stdout + shown.stderr
    assert "incorrect" not in shown.stdout
    assert shown.stdout.count(f"Destination Address: {Bench.BEHIND['tunnel01']}") == len(packets)


def test_sequence_numbers_and_ivs_never_repeat(bench):
    sa = bench.sa_out()
    for _ in range(300):
        bench.send_inside(probe(*ends(False)))
    found = bench.outside.collect(lambda frame: IP(frame[14:]) if frame[23:24] == b"\x32"
                                  else None, 3, count=300)
    assert [packet[ESP].seq for packet in found] == list(range(1, 301))
    assert len({bytes(packet[ESP])[8:16] for packet in found}) == 300
    listed = bench.gateway.call("sa.show", direction="out", spi=sa.spi)["sa"]
    assert (listed["sequence"], listed["packets"]) == (300, 300)
    assert "key" not in listed and "salt" not in listed
