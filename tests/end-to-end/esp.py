# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""The other end of a tunnel, made of other people's code: scapy's ESP, cryptography's AES-GCM."""

import os
import random
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.layers.l2 import Ether

IPV4, IPV6, DUMMY = 4, 41, 59
UDP_ESP = 4500


class Sa:
    """One direction of a tunnel. `source` and `destination` are the outer addresses."""

    def __init__(self, source, destination, esn=False, nat_t=False, spi=None):
        self.source, self.destination = source, destination
        self.esn, self.nat_t = esn, nat_t
        self.spi = spi or random.randint(0x100, 0xffffffff)
        self.key, self.salt = os.urandom(32), os.urandom(4)
        self.sequence = 0

    def parameters(self):
        """For sa.add."""
        return {
            "spi": f"0x{self.spi:08x}", "key": self.key.hex(), "salt": self.salt.hex(),
            "source": self.source, "destination": self.destination, "esn": self.esn,
            "udp_encapsulation": {"source_port": UDP_ESP, "destination_port": UDP_ESP}
            if self.nat_t else None,
        }

    def outer(self):
        return (IPv6 if ":" in self.source else IP)(src=self.source, dst=self.destination)

    def _scapy(self, high=0):
        return SecurityAssociation(
            ESP, spi=self.spi, crypt_algo="AES-GCM", crypt_key=self.key + self.salt,
            auth_algo="NULL", auth_key=None, tunnel_header=self.outer(),
            nat_t_header=UDP(sport=UDP_ESP, dport=UDP_ESP) if self.nat_t else None,
            esn_en=self.esn, esn=high)

    def next_sequence(self):
        self.sequence += 1
        return self.sequence

    def encrypt(self, inner, sequence=None):
        """The inner packet in ESP as scapy makes it, with the outer IP header."""
        sequence = sequence or self.next_sequence()
        packet = self._scapy(sequence >> 32).encrypt(inner, seq_num=sequence & 0xffffffff)
        if self.nat_t:
            packet[UDP].len = 8 + len(bytes(packet[ESP]))
            del packet[UDP].chksum
            # scapy had counted UDP wrongly
            if isinstance(packet, IP):
                del packet.len, packet.chksum
        return packet.__class__(bytes(packet))

    def decrypt(self, packet, high=0):
        """The inner packet, by scapy; raises when the ICV is wrong. `packet`: from the IP header."""
        packet = packet.__class__(bytes(packet))  # scapy changes it
        return self._scapy(high).decrypt(packet)

    def seal(self, plaintext, sequence=None):
        """ESP, from the SPI on, around exactly this plaintext: the trailer is the caller's."""
        sequence = sequence or self.next_sequence()
        header = struct.pack("!II", self.spi, sequence & 0xffffffff)
        aad = struct.pack("!IQ", self.spi, sequence) if self.esn else header
        iv = os.urandom(8)
        return header + iv + AESGCM(self.key).encrypt(self.salt + iv, plaintext, aad)

    def wrap(self, esp):
        """ESP from the SPI on, with the outer headers that this SA has."""
        if self.nat_t:
            return self.outer() / UDP(sport=UDP_ESP, dport=UDP_ESP, chksum=0) / esp
        outer = self.outer()
        if isinstance(outer, IPv6):
            outer.nh = 50
        else:
            outer.proto = 50
        return outer / esp


def trailer(inner, next_header, padding=None, pad_length=None):
    """The inner packet's bytes with ESP's padding, pad length and next header (RFC 4303 2.4)."""
    inner = bytes(inner)
    if padding is None:
        padding = bytes(range(1, (-len(inner) - 2) % 4 + 1))
    if pad_length is None:
        pad_length = len(padding)
    return inner + padding + bytes((pad_length, next_header))


def is_esp(frame):
    """The IP packet of a frame that is ESP, plain or in UDP 4500; else None."""
    kind = frame[12:14]
    if kind == b"\x08\x00":
        packet = IP(frame[14:])
        protocol = packet.proto
    elif kind == b"\x86\xdd":
        packet = IPv6(frame[14:])
        protocol = packet.nh
    else:
        return None
    if protocol == 50:
        return packet
    if protocol == 17 and UDP in packet and packet[UDP].dport == UDP_ESP and ESP in packet:
        return packet
    return None


def is_ip(frame):
    """The IP packet of a frame, or None. Not multicast: kernels have business of their own."""
    kind = frame[12:14]
    if frame[0] & 1:
        return None
    if kind == b"\x08\x00":
        return IP(frame[14:])
    return IPv6(frame[14:]) if kind == b"\x86\xdd" else None


def frame(destination_mac, source_mac, packet):
    kind = 0x86dd if isinstance(packet, IPv6) else 0x0800
    return bytes(Ether(dst=destination_mac, src=source_mac, type=kind)) + bytes(packet)
