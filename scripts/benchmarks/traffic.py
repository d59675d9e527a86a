# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""The packets that a generator sends to a gateway, as pcap files that it replays from memory.

Sizes are those of the inner IP packet. A file has as many packets as IMIX divides evenly, so few
that the generator has them in its L2 cache."""

import dataclasses
import ipaddress
import os
import random
import struct

from .common import BenchError

IMIX = (64,) * 7 + (570,) * 4 + (1400,)
PACKETS = 42 * len(IMIX)
SIZE_MIN, SIZE_MAX = 46, 1446  # of Ethernet, and of a tunnel over Ethernet's 1500 bytes

ETHERNET_SIZE = 14
WIRE_OVERHEAD = 24   # preamble, start, checksum, gap: not in a frame as DPDK counts it
IP_SIZE, UDP_SIZE = 20, 8
ESP_HEADER, ESP_IV, ESP_TRAILER, ESP_ICV = 8, 8, 2, 16
PROTOCOL_IPIP, PROTOCOL_UDP, PROTOCOL_ESP = 4, 17, 50


@dataclasses.dataclass
class Network:
    """Addresses on both sides of the gateway that is measured:

        host ── [inside  gateway  outside] ══ far end ── remote prefix"""

    inside: str = "198.18.0.1"
    inside_mac: str = "02:00:00:00:00:01"
    host: str = "198.18.0.2"
    host_mac: str = "02:00:00:00:00:11"
    outside: str = "198.18.1.1"
    outside_mac: str = "02:00:00:00:00:02"
    far: str = "198.18.1.2"
    far_mac: str = "02:00:00:00:00:12"
    remote: str = "198.19.0.0/16"


@dataclasses.dataclass
class Key:
    """What an SA's two ends share."""

    spi: int
    key: bytes   # 32 bytes of AES-256 and 4 of salt


def new_keys():
    """For the SAs outwards and inwards."""
    return tuple(Key(spi, os.urandom(36)) for spi in (0x1001, 0x1002))


def esp_size(size):
    """Of the outer IP packet that carries an inner one of this size."""
    padded = (size + ESP_TRAILER + 3) // 4 * 4
    return IP_SIZE + ESP_HEADER + ESP_IV + padded + ESP_ICV


def sizes_of(size):
    """The inner sizes of all packets of a file, in their order."""
    if size != "imix":
        return [int(size)] * PACKETS
    sizes = list(IMIX) * (PACKETS // len(IMIX))
    random.Random(1).shuffle(sizes)
    return sizes


def _checksum(header):
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def _ip(source, destination, protocol, payload):
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, IP_SIZE + len(payload), 0, 0x4000, 64, protocol,
                         0, ipaddress.IPv4Address(source).packed,
                         ipaddress.IPv4Address(destination).packed)
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + payload


def _inner(number, size, source, destination):
    udp = struct.pack("!HHHH", 1024 + number, 2000, size - IP_SIZE, 0)
    return _ip(source, destination, PROTOCOL_UDP, udp + bytes(size - IP_SIZE - UDP_SIZE))


def _ethernet(destination, source, packet):
    return (bytes.fromhex(destination.replace(":", "")) + bytes.fromhex(source.replace(":", ""))
            + b"\x08\x00" + packet)


def _remote_address(network, number):
    """Spread over the remote prefix."""
    prefix = ipaddress.IPv4Network(network.remote)
    return prefix[(1 + number * 127) % prefix.num_addresses]


def cleartext(network, size):
    """Frames from the host to addresses behind the tunnel."""
    return [_ethernet(network.inside_mac, network.host_mac,
                      _inner(number, one, network.host, _remote_address(network, number)))
            for number, one in enumerate(sizes_of(size))]


def esp(network, size, sa):
    """The far end's ESP frames to the host, sequence numbers from 1."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise BenchError("Python's cryptography is missing, which makes the ESP packets: "
                         "apt-get install python3-cryptography") from error
    cipher, salt = AESGCM(sa.key[:32]), sa.key[32:]
    frames = []
    for number, one in enumerate(sizes_of(size)):
        inner = _inner(number, one, _remote_address(network, number), network.host)
        padding = -(len(inner) + ESP_TRAILER) % 4
        plain = inner + bytes(range(1, padding + 1)) + bytes([padding, PROTOCOL_IPIP])
        header = struct.pack("!II", sa.spi, number + 1)
        iv = struct.pack("!Q", number + 1)
        payload = header + iv + cipher.encrypt(salt + iv, plain, header)
        frames.append(_ethernet(network.outside_mac, network.far_mac,
                                _ip(network.far, network.outside, PROTOCOL_ESP, payload)))
    return frames


def write_pcap(path, frames):
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
        for frame in frames:
            file.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)
