#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Writes strongswan-libipsec.txt: ESP packets between strongSwan's libipsec and espgw, captured on
the wire between them, and their keys, which strongSwan negotiated for this purpose only.

Run it as root, after a build, as ./strongswan-libipsec.py > strongswan-libipsec.txt. Each run has
other keys. It checks each packet itself, by the cryptography package."""

import pathlib
import socket
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from scapy.layers.inet import IP, UDP

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "end-to-end"))

import ike  # noqa: E402
import testbed  # noqa: E402

HEAD = """\
# SPDX-License-Identifier: BSD-3-Clause
# Captured by strongswan-libipsec.py between strongSwan's libipsec and espgw. by: who encapsulated;
# the other took it. outer: from the outer IPv4 header on; offset: of the SPI in it.
"""
SIZES = (0, 1, 2, 3, 40, 700)  # each padding, and some more


def traffic(world):
    """UDP from the site, answered as it is, and pings of an inside address."""
    with world.vpc.entered():
        far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with world.site.entered():
        near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    far.bind((world.VPC, 7))
    for each in (far, near):
        each.settimeout(5)
    for size in SIZES:
        near.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x28 if size == 40 else 0)
        near.sendto(b"espgw and libipsec "[:size].ljust(size, b"."), (world.VPC, 7))
        data, back = far.recvfrom(2000)
        far.sendto(data, back)
        assert near.recv(2000) == data and len(data) == size
    world.gateway.namespace.ping(world.tunnels[0].aws_inside, count=2)
    far.close()
    near.close()


def record(by, frame, sa):
    outer = IP(frame[14:])
    packet = bytes(outer[UDP].payload)
    spi, sequence = packet[:4].hex(), packet[4:8].hex()
    assert int(spi, 16) == int(sa["spi"], 16)
    # Raises when the ICV is wrong.
    plain = AESGCM(bytes.fromhex(sa["key"])).decrypt(
        bytes.fromhex(sa["salt"]) + packet[8:16], packet[16:], packet[:8])
    assert plain[-1] == 4
    inner = plain[:-2 - plain[-2]]
    assert inner[0] == 0x45 and len(inner) == int.from_bytes(inner[2:4], "big")
    return {"by": by, "key": sa["key"], "salt": sa["salt"], "spi": spi,
            "sequence": sequence.lstrip("0"), "offset": 28, "outer": bytes(outer).hex(),
            "inner": inner.hex()}


def main():
    network = testbed.Network()
    try:
        world = ike.AwsNetwork(network, endpoints=1)
        gateway = world.gateway
        relay = network.keep(ike.Relay(gateway.espgw.directory / "relay.sock",
                                       gateway.espgw.config["gateway"]["control_socket"]))
        gateway.charon.settings["plugins"]["kernel-espgw"]["socket"] = relay.path
        world.start()
        world.use(1)
        wires = {"libipsec": network.wire(world.internet, "to-aws1"),
                 "espgw": network.wire(world.internet, "to-gateway")}
        traffic(world)
        print(HEAD)
        for by, direction in (("libipsec", "in"), ("espgw", "out")):
            sa = relay.added(direction)[-1]
            frames = [frame for frame in wires[by].frames(0.2) if ike.is_esp(frame)]
            assert len(frames) == len(SIZES) + 2, len(frames)
            for frame in frames:
                for key, value in record(by, frame, sa).items():
                    print(f"{key} = {value}")
                print()
    finally:
        network.close()


if __name__ == "__main__":
    main()
