# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""A peer behind a NAT whose mapping changes while traffic flows."""

import select
import socket
import threading

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

from ike import AwsEndpoint, AwsNetwork, Pinger, echo, is_esp
from testbed import wait_until


class Nat:
    """Relays UDP 500 and 4500 between the peer, to which it is the gateway, and the gateway, to
    which it is the peer: from an address and ports that can be changed."""

    PORTS = (500, 4500)

    def __init__(self, namespace, inside, gateway):
        self.namespace, self.gateway = namespace, gateway
        self.inside, self.peer, self.outside = {}, {}, {}
        self.lock = threading.Lock()
        for port in self.PORTS:
            self.inside[port] = self._socket(inside, port)
        self.wake = socket.socketpair()
        self.running = True
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _socket(self, address, port):
        with self.namespace.entered():
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, port))
        return made

    def map(self, address, first_port):
        """The mapping from now on: what comes to the old one is lost."""
        new = {port: self._socket(address, first_port + i) for i, port in enumerate(self.PORTS)}
        with self.lock:
            old, self.outside = self.outside, new
        self.wake[0].send(b"x")
        for each in old.values():
            each.close()

    def start(self):
        self.thread.start()
        return self

    def _run(self):
        while self.running:
            with self.lock:
                outside = dict(self.outside)
            sockets = [*self.inside.values(), *outside.values(), self.wake[1]]
            try:
                ready = select.select(sockets, [], [], 1)[0]
            except (OSError, ValueError):  # one was closed by map()
                continue
            for port in self.PORTS:
                if self.inside[port] in ready:
                    data, self.peer[port] = self.inside[port].recvfrom(65536)
                    self._send(outside[port], data, (self.gateway, port))
                if outside[port] in ready and port in self.peer:
                    self._send(self.inside[port], self._receive(outside[port]), self.peer[port])
            if self.wake[1] in ready:
                self.wake[1].recv(100)

    @staticmethod
    def _receive(one):
        try:
            return one.recv(65536)
        except OSError:
            return b""

    @staticmethod
    def _send(one, data, to):
        try:
            if data:
                one.sendto(data, to)
        except OSError:
            pass

    def logs(self):
        return []

    def close(self):
        self.running = False
        self.wake[0].send(b"x")
        self.thread.join()
        for one in (*self.inside.values(), *self.outside.values(), *self.wake):
            one.close()


class NatNetwork(AwsNetwork):
    """One tunnel, whose far end is behind a NAT: the peer's own address is 10.9.0.2, and the
    gateway's is to it 10.9.0.1."""

    MAPPED, MOVED = "203.0.113.11", "203.0.113.21"

    def __init__(self, network):
        super().__init__(network, endpoints=1,
                         gateway={"remote_id": "peer", "local_id": "gateway"},
                         aws={"remote_id": "gateway", "local_id": "peer", "dpd_delay": "60s",
                              "local_addrs": "10.9.0.2", "remote_addrs": "10.9.0.1"})

    def _endpoint(self, tunnel):
        self.router = self.network.namespace("nat")
        self.network.link(self.router, "wan", self.internet, "to-nat")
        self.internet.ip("link", "set", "to-nat", "master", "bridge")
        for address in (self.MAPPED, self.MOVED):
            self.router.ip("address", "add", f"{address}/24", "dev", "wan")
        endpoint = AwsEndpoint(self.network, "peer", "10.9.0.2", tunnel.aws_inside, self.BEHIND)
        self.network.link(endpoint.namespace, "eth0", self.router, "lan")
        endpoint.namespace.ip("address", "add", "10.9.0.2/24", "dev", "eth0")
        self.router.ip("address", "add", "10.9.0.1/24", "dev", "lan")
        self.nat = self.network.keep(Nat(self.router, "10.9.0.1", self.GATEWAY))
        self.nat.map(self.MAPPED, 20000)
        self.nat.start()
        self.network.link(endpoint.namespace, "inside", self.vpc, "to-peer")
        self.vpc.ip("link", "set", "to-peer", "master", "bridge")
        endpoint.namespace.ip("address", "add", "192.168.192.1/26", "dev", "inside")
        return endpoint

    def ends(self):
        """Where the gateway takes the peer to be: (address, port) of the SAs in and out."""
        into, out = (self.gateway.sas("tunnel01", direction)[-1] for direction in ("in", "out"))
        return ((into["source"], into["udp_encapsulation"]["source_port"]),
                (out["destination"], out["udp_encapsulation"]["destination_port"]))


@pytest.fixture
def world(network):
    made = NatNetwork(network).start()
    made.use(1)
    return made


def test_the_sas_follow_the_mapping(world):
    """Another port, then another address; traffic goes on, both ways, by the same SAs."""
    control = world.gateway.espgw.control
    control.call("events.subscribe", events=["sa.peer_moved"])
    before = world.ends()
    assert before == ((world.MAPPED, 20001),) * 2
    child = world.gateway.charon.child("tunnel01")
    with Pinger(world.vpc, world.SITE, 0.02) as pinger:
        pinger.wait_answers(10)
        for address, port in ((world.MAPPED, 30000), (world.MOVED, 40000)):
            world.nat.map(address, port)
            moved = control.event("sa.peer_moved")
            assert (moved["new_source"], moved["new_udp_source_port"]) == (address, port + 1)
            assert moved["direction"] == "in" and moved["tunnel"] == "tunnel01"
            wait_until(lambda: world.ends() == ((address, port + 1),) * 2, "the SAs follow", 5)
            pinger.wait_answers(20)
    assert not pinger.duplicates
    after = world.gateway.charon.child("tunnel01")
    assert after["spi-in"] == child["spi-in"] and after["spi-out"] == child["spi-out"]
    # IKE goes by the new way too.
    world.gateway.charon.rekey("tunnel01")
    world.gateway.charon.wait_rekeyed("tunnel01", child)
    echo(world.vpc, world.SITE)


def test_forged_packets_move_nothing(network, world):
    """ESP with the right SPI from elsewhere but a wrong ICV, and a replay from elsewhere: neither
    is believed."""
    control = world.gateway.espgw.control
    control.call("events.subscribe", events=["sa.peer_moved"])
    outside = network.wire(world.internet, "to-nat")
    gate = network.wire(world.internet, "to-gateway")
    before = world.ends()
    echo(world.site, world.VPC)
    captured = [frame for frame in outside.frames(0) if is_esp(frame)]
    assert len(captured) == 10

    def elsewhere(frame, spoil):
        packet = IP(frame[14:])
        body = bytearray(bytes(packet[UDP].payload))
        if spoil:
            body[7] = (body[7] + 100) % 256  # a sequence number not seen yet
        return frame[:14] + bytes(IP(src="203.0.113.66", dst=packet.dst)
                                  / UDP(sport=6666, dport=4500, chksum=0) / Raw(bytes(body)))
    with world.gateway.espgw.dropping(icv=5, replay=5):
        gate.send(*(elsewhere(frame, True) for frame in captured[:5]),
                  *(elsewhere(frame, False) for frame in captured[5:]))
    assert world.ends() == before
    with pytest.raises(AssertionError):
        control.event("sa.peer_moved", 0.5)
    echo(world.site, world.VPC)
    assert world.ends() == before
