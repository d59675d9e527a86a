#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Writes esp_scapy.txt: ESP packets made by scapy, which knows nothing of espgw.

Run it as ./make_esp_scapy.py > esp_scapy.txt. Its output is always the same."""

import hashlib
import itertools
import struct

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.packet import Raw, raw

HEAD = """\
# SPDX-License-Identifier: BSD-3-Clause
# Made by make_esp_scapy.py with scapy: the outer IP packet, and the inner one in it. sequence: 64
# bits when esn = 1.
"""


def pseudo_random(label, length):
    """Bytes that look random but are the same in every run."""
    return hashlib.shake_128(label.encode()).digest(length)


def inner_packet(version, kind, size):
    payload = Raw(pseudo_random(f"payload {version} {kind} {size}", size))
    if version == 4:
        ip = IP(src="192.168.192.5", dst="10.20.30.40", id=size, ttl=63, tos=0x28, flags="DF")
    else:
        ip = IPv6(src="2001:db8:1::5", dst="2001:db8:2::40", hlim=63, tc=0x28, fl=0x12345)
    if kind == "udp":
        return ip / UDP(sport=5001, dport=5002) / payload
    if kind == "tcp":
        return ip / TCP(sport=443, dport=40000, seq=1, ack=2, flags="A") / payload
    return IP(src=ip.src, dst=ip.dst) / ICMP(id=7, seq=size) / payload


def outer_headers(version, udp):
    if version == 4:
        tunnel = IP(src="72.21.209.193", dst="198.51.100.1", ttl=64, tos=0x28)
    else:
        tunnel = IPv6(src="2001:db8:ffff::1", dst="2001:db8:ffff::2", hlim=64, tc=0x28)
    return tunnel, UDP(sport=4500, dport=4500) if udp else None


def mend_udp_length(packet):
    """scapy leaves the length of the encapsulating UDP header at 8, and its checksum at 0."""
    if UDP in packet and ESP in packet:
        del packet[UDP].chksum
        packet[UDP].len = 8 + len(raw(packet[ESP]))
    return packet


def record(outer, udp, inner, kind, size, sequence):
    name = f"outer IPv{outer}{' UDP' if udp else ''}, inner IPv{inner} {kind} {size}, {sequence:#x}"
    material = pseudo_random("key " + name, 36)
    spi = struct.unpack("!I", pseudo_random("spi " + name, 4))[0] | 0x01000000
    tunnel, nat_t = outer_headers(outer, udp)
    esn = sequence >> 32
    association = SecurityAssociation(
        ESP, spi=spi, crypt_algo="AES-GCM", crypt_key=material, auth_algo="NULL", auth_key=None,
        tunnel_header=tunnel, nat_t_header=nat_t, esn_en=esn != 0, esn=esn)
    plain = inner_packet(inner, kind, size)
    plain = plain.__class__(raw(plain))
    iv = pseudo_random("iv " + name, 8)
    packet = association.encrypt(plain, seq_num=sequence & 0xffffffff, iv=iv)
    return {
        "name": name,
        "key": material[:32].hex(),
        "salt": material[32:].hex(),
        "spi": f"{spi:08x}",
        "sequence": f"{sequence:x}",
        "esn": int(esn != 0),
        "offset": (20 if outer == 4 else 40) + (8 if udp else 0),
        "outer": raw(mend_udp_length(packet)).hex(),
        "inner": raw(plain).hex(),
    }


def main():
    print(HEAD)
    cases = [(4, "udp"), (4, "tcp"), (4, "icmp"), (6, "udp"), (6, "tcp")]
    sizes = (0, 1, 2, 3, 100)
    sequences = (1, 0x7fffffff, 0xffffffff, 0x100000001, 0x2fffffffe, 0xabcdef0012345678)
    number = itertools.count()
    for outer, udp, (inner, kind), size in itertools.product(
            (4, 6), (False, True), cases, sizes):
        sequence = sequences[next(number) % len(sequences)]
        for key, value in record(outer, udp, inner, kind, size, sequence).items():
            print(f"{key} = {value}")
        print()


if __name__ == "__main__":
    main()
