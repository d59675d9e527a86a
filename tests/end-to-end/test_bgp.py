# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""BGP over both tunnels, as with AWS's dynamic routing: BIRD runs on the gateway and on the far
side, and what it puts into the kernel is what the workers go by. Its configuration on the gateway
is the one in docs/aws-transit-gateway.md."""

import collections
import contextlib
import pathlib
import shutil
import socket
import tempfile

import pytest

from testbed import run, wait_until
from topologies import Pair

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLOWS = 200
BEHIND_B, BEHIND_A = "192.168.192.0/26", "10.1.0.0/24"


def documented():
    """The configuration in docs/aws-transit-gateway.md."""
    text = (ROOT / "docs/aws-transit-gateway.md").read_text()
    block = text.split("    # /etc/bird/bird.conf\n")[1].split("\nThen")[0]
    assert "merge paths on" in block and "\n\n" not in block.strip()
    return block


def far_side():
    """AWS's part: it calls."""
    sessions = "".join(f"""
        protocol bgp {tunnel} {{
            local {here} as 64512;
            neighbor {there} as 65000;
            hold time 30;
            connect delay time 1; connect retry time 1; error wait time 1, 2;
            ipv4 {{ import all; export where source = RTS_DEVICE; }};
        }}""" for tunnel, here, there in (("tunnel01", "169.254.244.1", "169.254.244.2"),
                                          ("tunnel02", "169.254.244.5", "169.254.244.6")))
    return f"""
        router id 192.168.192.1;
        protocol device {{ }}
        protocol direct {{ ipv4; interface "lan"; }}
        protocol kernel {{
            merge paths on;
            ipv4 {{ import none; export where source = RTS_BGP; }};
        }}{sessions}"""


class Bird:
    """Debian's BIRD in a namespace."""

    def __init__(self, network, namespace, config):
        self.namespace = namespace
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="espgw-bird-"))
        path = self.directory / "bird.conf"
        path.write_text(f'log "{self.directory}/log" all;\n{config}\n')
        network.keep(self)
        self.process = network.popen(namespace, "bird", "-f", "-c", path, "-s", self._socket(),
                                     "-P", self.directory / "pid")

    def _socket(self):
        return self.directory / "control"

    def control(self, *words):
        return run("birdc", "-s", self._socket(), *words).stdout

    def logs(self):
        log = self.directory / "log"
        return [(f"BIRD of {self.namespace.label}", log.read_text() if log.exists() else "")]

    def close(self):
        shutil.rmtree(self.directory, ignore_errors=True)


class BgpPair:
    def __init__(self, network):
        self.pair = Pair(network)
        for gateway in (self.pair.a, self.pair.b):
            del gateway.config["routes"]  # BGP's business
            gateway.start()
        for tunnel in Pair.TUNNELS:
            self.pair.add_sas(tunnel)
        self.bird_a = Bird(network, self.pair.a.namespace, documented())
        self.bird_b = Bird(network, self.pair.b.namespace, far_side())
        for gateway, prefix in ((self.pair.a, BEHIND_B), (self.pair.b, BEHIND_A)):
            wait_until(lambda gateway=gateway, prefix=prefix:
                       ways(gateway, prefix) == set(Pair.TUNNELS), f"{gateway.label} learns twice",
                       30)
        self.pair.site_a.wait_for(Pair.SITE_B, 10)


def ways(gateway, prefix):
    """The tunnels that share a prefix's flows, all by routes of the kernel."""
    return {route["tunnel"] for route in gateway.routes(prefix=prefix, origin="kernel", best=True)}


@pytest.fixture(scope="module")
def bgp(module_network):
    return BgpPair(module_network)


@contextlib.contextmanager
def receiver(pair):
    with pair.site_b.entered():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((Pair.SITE_B, 7000))
    server.setblocking(False)
    yield server
    server.close()


def send_flows(pair):
    """A packet of each flow, from a's site to b's. All arrive; returns how many went by each
    tunnel, which BGP's own few packets are part of."""
    def sent():
        return {name: pair.a.tunnel(name)["out_packets"] for name in Pair.TUNNELS}
    before, arrived = sent(), set()

    def all_arrived():
        with contextlib.suppress(BlockingIOError):
            while True:
                arrived.add(server.recvfrom(100)[1][1])
        return len(arrived) == FLOWS
    with receiver(pair) as server:
        for port in range(20000, 20000 + FLOWS):
            with pair.site_a.entered():
                client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            client.bind((Pair.SITE_A, port))
            client.sendto(b"flow", (Pair.SITE_B, 7000))
            client.close()
        wait_until(all_arrived, "a packet of every flow arrives")
    return collections.Counter(sent()) - collections.Counter(before)


def test_flows_are_shared_by_both_tunnels(bgp):
    routes = bgp.pair.a.routes(prefix=BEHIND_B)
    assert [(route["tunnel"], route["weight"], route["best"]) for route in routes] \
        == [("tunnel01", 1, True), ("tunnel02", 1, True)]
    assert len({route["priority"] for route in routes}) == 1
    counts = send_flows(bgp.pair)
    # Half of 200, and three deviations.
    assert all(counts[name] >= 100 - 22 for name in Pair.TUNNELS), counts
    assert sum(counts.values()) < FLOWS + 30, counts


def test_a_withdrawn_route_moves_its_flows_and_they_come_back(bgp):
    """The far side takes back what it said over one tunnel, while pings go on."""
    pair, tunnel = bgp.pair, "tunnel02"
    with pair.a.dropping(), pair.b.dropping():
        pings = pair.network.popen(pair.site_a, "ping", "-q", "-i", "0.01", "-w", 60, Pair.SITE_B,
                                   stdout=-1)
        bgp.bird_b.control("disable", tunnel)
        wait_until(lambda: ways(pair.a, BEHIND_B) == ways(pair.b, BEHIND_A) == {"tunnel01"},
                   "tunnel02 is withdrawn")
        counts = send_flows(pair)
        assert counts["tunnel01"] >= FLOWS and counts[tunnel] < 30, counts
        bgp.bird_b.control("enable", tunnel)
        wait_until(lambda: ways(pair.a, BEHIND_B) == ways(pair.b, BEHIND_A) == set(Pair.TUNNELS),
                   "tunnel02 is back", 20)
        counts = send_flows(pair)
        assert all(counts[name] >= 100 - 22 for name in Pair.TUNNELS), counts
        pings.send_signal(2)
        report = pings.communicate(timeout=10)[0].decode()
    sent, answered = (int(word.split()[0]) for word in
                      report.split("---\n")[1].split("\n")[0].split(",")[:2])
    assert sent > 50 and answered >= sent - 1, report  # one may have been on its way at the end
