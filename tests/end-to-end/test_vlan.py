# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Ports that are members of a VLAN: one tag (802.1Q) or two (802.1ad), against scapy."""

import struct

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

from topologies import Bench, probe

INNER = (Bench.HOST, Bench.BEHIND["tunnel01"])
PACKET_AUXDATA, SOL_PACKET = 8, 263
LAN, WAN_SERVICE, WAN = 100, 300, 200


def whole_frames(wire, seconds=2):
    """Frames as they were on the wire: the kernel takes the outer tag off, and tells it beside."""
    for ready in wire.sockets_ready(seconds):
        data, told, _, _ = ready.recvmsg(65536, 256)
        for level, kind, content in told:
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                status, _, _, _, _, tag, type_ = struct.unpack("IIIHHHH", content[:20])
                if status & 0x10:  # TP_STATUS_VLAN_VALID
                    type_ = type_ if status & 0x40 else 0x8100
                    data = data[:12] + struct.pack("!HH", type_, tag) + data[12:]
        yield data


class VlanBench(Bench):
    def __init__(self, network):
        super().__init__(network)
        for wire in (self.inside, self.outside):
            wire.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        # Kernels let one tag pass beyond the MTU of a device, and none of raw sockets.
        self.outside.namespace.ip("link", "set", "eth0", "mtu", 1508)
        self.gateway.namespace.ip("link", "set", "veth-wan", "mtu", 1508)

    def config(self):
        config = super().config()
        config["ports"][0]["vlan"] = LAN
        config["ports"][1].update(service_vlan=WAN_SERVICE, vlan=WAN)
        return config

    def lan(self, packet, *tags):
        self.inside.send(tagged(self.lan_mac, self.inside.mac, tags, packet))

    def wan(self, packet, *tags):
        self.outside.send(tagged(self.wan_mac, self.outside.mac, tags, packet))


def tagged(destination, source, tags, packet):
    frame = Ether(dst=destination, src=source)
    for tag in tags:
        frame = frame / tag
    return bytes(frame / packet)


@pytest.fixture(scope="module")
def module_bench(module_network):
    return VlanBench(module_network).start()


def test_frames_leave_with_the_tags_of_their_port(bench):
    sa, sent = bench.sa_out(), probe(*INNER)
    bench.lan(sent, Dot1Q(vlan=LAN, prio=5))
    frame = next(frame for frame in whole_frames(bench.outside) if b"\x08\x00\x45" in frame)
    assert frame[:12] == bytes.fromhex((bench.outside.mac + bench.wan_mac).replace(":", ""))
    assert frame[12:20] == struct.pack("!HHHH", 0x88a8, WAN_SERVICE, 0x8100, WAN)
    assert frame[20:22] == b"\x08\x00"
    assert bytes(sa.decrypt(IP(frame[22:]))[Raw]) == bytes(sent[Raw])
    back = bench.sa_in()
    answer = probe(*reversed(INNER))
    bench.wan(back.encrypt(answer), Dot1AD(vlan=WAN_SERVICE, prio=3), Dot1Q(vlan=WAN, prio=7))
    frame = next(frame for frame in whole_frames(bench.inside) if bytes(answer[Raw]) in frame)
    assert frame[12:18] == struct.pack("!HHH", 0x8100, LAN, 0x0800)


def test_frames_of_other_vlans_are_dropped(bench):
    bench.sa_out()
    sa, sent, answer = bench.sa_in(), probe(*INNER), probe(*reversed(INNER))
    with bench.gateway.dropping(vlan=3):
        bench.lan(sent)
        bench.lan(sent, Dot1Q(vlan=LAN + 1))
        bench.lan(sent, Dot1AD(vlan=LAN), Dot1Q(vlan=LAN))
    with bench.gateway.dropping(vlan=4):
        bench.wan(sa.encrypt(answer))
        bench.wan(sa.encrypt(answer), Dot1Q(vlan=WAN))
        bench.wan(sa.encrypt(answer), Dot1AD(vlan=WAN_SERVICE), Dot1Q(vlan=WAN + 1))
        bench.wan(sa.encrypt(answer), Dot1AD(vlan=WAN_SERVICE + 1), Dot1Q(vlan=WAN))
    bench.nothing_inside()
    bench.nothing_outside()


def test_the_host_sees_no_tags(bench):
    """ARP and ping of the port's own address: the kernel answers by the TAP."""
    arp = ARP(op=1, hwsrc=bench.inside.mac, psrc=Bench.HOST, pdst=Bench.LAN)
    bench.inside.send(tagged("ff:ff:ff:ff:ff:ff", bench.inside.mac, [Dot1Q(vlan=LAN)], arp))
    told = next(frame for frame in whole_frames(bench.inside) if frame[16:18] == b"\x08\x06")
    assert told[12:16] == struct.pack("!HH", 0x8100, LAN) and ARP(told[18:]).psrc == Bench.LAN
    ping = IP(src=Bench.HOST, dst=Bench.LAN) / ICMP(id=7) / Raw(bytes(1472))
    bench.lan(ping, Dot1Q(vlan=LAN))
    answer = next(frame for frame in whole_frames(bench.inside) if frame[16:19] == b"\x08\x00\x45")
    assert len(answer) == 1518 and IP(answer[18:])[ICMP].type == 0


def test_packets_of_the_largest_size(bench):
    """The port's MTU is of the IP packet; the tags come on top of it."""
    sa, sent = bench.sa_out(), probe(*INNER, size=Bench.MTU)
    bench.lan(sent, Dot1Q(vlan=LAN))
    frame = next(frame for frame in whole_frames(bench.outside) if frame[20:23] == b"\x08\x00\x45")
    assert bytes(sa.decrypt(IP(frame[22:]))[Raw]) == bytes(sent[Raw])
    back, answer = bench.sa_in(), probe(*reversed(INNER), size=Bench.MTU + 8)
    bench.wan(back.encrypt(answer), Dot1AD(vlan=WAN_SERVICE), Dot1Q(vlan=WAN))
    assert any(bytes(answer[Raw]) in frame for frame in whole_frames(bench.inside))


def test_ports_are_listed_with_their_vlans(bench):
    ports = bench.gateway.call("port.list")["ports"]
    assert [(port["service_vlan"], port["vlan"]) for port in ports] == [
        (None, LAN), (WAN_SERVICE, WAN)]
    assert f"{WAN_SERVICE}.{WAN}" in bench.gateway.espctl("port", "list").stdout
