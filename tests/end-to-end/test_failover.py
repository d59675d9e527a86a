# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Routes follow the health of their tunnels: two gateways, probes at rate high with the default
timeout, and between them a bridge that can cut the path of tunnel01 alone."""

import time

import pytest
from probing import Crossing, Flow, enlarge_rings

from testbed import PATIENCE, wait_until
from topologies import Pair

# Failing over is by the defaults. Coming back would take five minutes; the rest is as it is.
HEALTH = {"rate": "high", "unhealthy_time": 1, "degraded_window": 10}
RATE = 500  # packets a second


class CutPair(Pair):
    """Both gateways' outside ports are on a bridge."""

    def __init__(self, network):
        self.middle = network.namespace("middle")
        link = network.link

        def through_the_middle(left, left_device, right, right_device, mtu=1500):
            if left_device != "veth-wan":
                link(left, left_device, right, right_device, mtu)
                return
            for namespace, device in ((left, "to-a"), (right, "to-b")):
                link(namespace, "veth-wan", self.middle, device, mtu)
        network.link = through_the_middle
        super().__init__(network)
        network.link = link
        self.middle.ip("link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
        for device in ("to-a", "to-b"):
            self.middle.ip("link", "set", device, "master", "bridge")
        self.middle.ip("link", "set", "bridge", "up")
        self.middle.run("nft", "add table bridge cut; "
                        "add chain bridge cut forward { type filter hook forward priority 0; }")

    def _config(self, *arguments):
        config = super()._config(*arguments)
        for tunnel in config["tunnels"]:
            tunnel["health"] = HEALTH
        return config

    def cut(self, *rule):
        """The path of tunnel01, both ways, or as the rule says."""
        rule = rule or ("drop",)
        there = self.TUNNELS["tunnel01"][1]
        for end in ("saddr", "daddr"):
            self.middle.run("nft", "add", "rule", "bridge", "cut", "forward", "ip", end, there,
                            *rule)

    def mend(self):
        self.middle.run("nft", "flush", "chain", "bridge", "cut", "forward")

    def states(self, tunnel):
        return [gateway.tunnel(tunnel)["health"]["state"] for gateway in (self.a, self.b)]

    def until(self, state, tunnel="tunnel01", seconds=15):
        wait_until(lambda: self.states(tunnel) == [state, state],
                   f"{tunnel} is {state} at both ends", seconds)


@pytest.fixture(scope="module")
def cut_pair(module_network):
    pair = CutPair(module_network)
    for gateway in (pair.a, pair.b):
        enlarge_rings(gateway)
    pair.start()
    for tunnel in Pair.TUNNELS:
        pair.until("healthy", tunnel)
    return pair


def out_packets(pair):
    return [pair.a.tunnel(tunnel)["out_packets"] for tunnel in pair.TUNNELS]


def test_traffic_leaves_a_tunnel_that_is_cut_and_comes_back(cut_pair):
    pair = cut_pair
    flow = Flow(pair.site_a, pair.SITE_A, pair.site_b, pair.SITE_B)
    log_a = pair.a.connect()
    log_a.call("events.subscribe", events=["tunnel.health"])
    crossing = Crossing(pair.network, [flow], RATE)
    time.sleep(0.5)
    before = out_packets(pair)
    assert before[0] > 0 and before[1] == 0, before
    cut = time.monotonic()
    pair.cut()
    done = time.monotonic()
    wait_until(lambda: out_packets(pair)[1] > 0, "traffic flows by tunnel02", 10, 0.005)
    switched = time.monotonic()
    pair.until("down")
    time.sleep(0.5)
    crossing.stop()
    # From the cut to the first packet on the other tunnel, each way of reading the clock included:
    # what went into the cut tunnel is lost, so many packets at RATE a second.
    lost = flow.lost / RATE
    print(f"switched {switched - cut:.3f} s after the cut, {flow.lost} packets lost: {lost:.3f} s")
    assert flow.lost_at_end == 0, flow
    assert switched - cut < 1.2 * PATIENCE + 1, (cut, done, switched)
    assert lost < 1.2 * PATIENCE, flow
    with Crossing(pair.network, [flow], RATE) as crossing:
        pair.mend()
        pair.until("healthy")
        returned = out_packets(pair)[0]
        wait_until(lambda: out_packets(pair)[0] > returned, "traffic is back on tunnel01", 5)
        time.sleep(0.3)
    assert flow.lost == 0, flow
    story = []
    while not story or story[-1][1] != "healthy":
        event = log_a.event("tunnel.health", 2)
        assert event["tunnel"] == "tunnel01", event
        story.append((event["from"], event["to"]))
    log_a.close()
    assert ("healthy", "degraded") in story or ("healthy", "down") in story, story
    assert story[-2:] == [("down", "degraded"), ("degraded", "healthy")], story


def test_one_packet_in_a_hundred_lost_is_made_good_by_retries(cut_pair):
    """Lost attempts are retried, so that no probe fails."""
    pair = cut_pair

    def counters():
        health = pair.a.tunnel("tunnel01")["health"]
        # At most one attempt is under way.
        return health["attempts"] - health["answered"] - health["failed"], health["failed"]
    lost, failed = counters()
    pair.cut("numgen", "inc", "mod", "100", "<", "1", "drop")
    wait_until(lambda: counters()[0] >= lost + 3, "attempts are lost", 40)
    pair.mend()
    assert counters()[1] == failed and pair.a.tunnel("tunnel01")["health"]["state"] == "healthy"


def test_all_tunnels_down_and_the_best_is_used(cut_pair):
    """No route is removed: with both tunnels down, traffic takes the first, which passes again."""
    pair = cut_pair
    pair.until("healthy", "tunnel01", 20)
    for there in (ends[1] for ends in pair.TUNNELS.values()):
        for end in ("saddr", "daddr"):
            pair.middle.run("nft", "add", "rule", "bridge", "cut", "forward", "ip", end, there,
                            "ip", "length", "<", "115", "drop")  # probes, not larger packets
    for tunnel in pair.TUNNELS:
        pair.until("down", tunnel)
    before = out_packets(pair)
    pair.site_a.ping(pair.SITE_B, 5, 0.02, 200)
    after = out_packets(pair)
    assert after[0] == before[0] + 5 and after[1] == before[1], (before, after)
    pair.mend()
    for tunnel in pair.TUNNELS:
        pair.until("healthy", tunnel, 20)


def test_probes_survive_a_loaded_gateway(cut_pair):
    """Traffic as fast as it goes, and more for the host than its limit allows."""
    pair = cut_pair
    before = [gateway.tunnel("tunnel01")["health"] for gateway in (pair.a, pair.b)]
    flood = pair.network.popen(pair.site_a, "ping", "-q", "-f", "-w", 3, "10.1.0.1", stdout=-3)
    pair.iperf("-u", "-b", "500M", "-l", "1000", seconds=3)
    flood.wait(10)
    for gateway, then in zip((pair.a, pair.b), before):
        now = gateway.tunnel("tunnel01")["health"]
        assert now["answered"] - then["answered"] >= 15, (then, now)
        assert now["state"] != "down" and now["failed"] - then["failed"] <= 3, (then, now)
