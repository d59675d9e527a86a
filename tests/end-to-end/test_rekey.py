# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Rekeying loses nothing: charon on either side replaces keys while numbered probes cross both
tunnels, both ways. ESPGW_SOAK=1 does fifty rekeys of both tunnels in each of these tests; without it
only where the cause is time."""

import json
import os
import re
import threading
import time

import pytest

import esp
import ike
import probing
from testbed import wait_until
from topologies import Pair

SOAK = "ESPGW_SOAK" in os.environ
RATE = 25_000  # probes a second of each of four flows: 50,000 each way, 100,000 in all
# Limits by time as whole seconds, and no limit but those that a test sets.
NEVER = {"rekey_time": "1h", "life_time": "2h", "rand_time": "0s"}
EVERY_SECOND = {"rekey_time": "1s", "life_time": "30s", "rand_time": "0s"}


def limited(charon, name, limits):
    """Gives the connection's child SA these limits."""
    connection, secret = charon.connections[name]
    child = {**connection["children"]["net"], **limits}
    charon.connections[name] = ({**connection, "children": {"net": child}}, secret)


def rekeys(charon, name):
    """How often the connection's child SA was replaced, as seen here."""
    return len(re.findall(rf"<{name}\|\d+> outbound CHILD_SA .* established", charon.text()))


class Soak:
    """Two espgw with a charon each, and four flows between their sites."""

    def __init__(self, network, limits_a, limits_b, **tunnel_options):
        """Limits of the child SAs at either end: connection to swanctl settings. The options are
        those of each tunnel in espgw.conf."""
        self.network, self.ike = network, ike.IkePair(network)
        self.pair = self.ike.pair
        self.flows = probing.second_addresses(self.pair)
        for gateway in (self.pair.a, self.pair.b):
            probing.enlarge_rings(gateway)
            for tunnel in gateway.config["tunnels"]:
                tunnel.update(tunnel_options)
        self.ends = (self.ike.a, self.ike.b)
        for end, limits in zip(self.ends, (limits_a, limits_b)):
            for name in Pair.TUNNELS:
                limited(end.charon, name, limits.get(name, NEVER))
        self.ike.start()
        for flow in self.flows:  # neighbours on the way
            flow.source_namespace.wait_for(flow.destination)

    def rekeys(self):
        """Of each tunnel, as either end counts them."""
        return {name: [rekeys(end.charon, name) for end in self.ends] for name in Pair.TUNNELS}

    def run(self, action, rate=RATE):
        """Probes cross while action() runs; asserts that espgw lost nothing."""
        probing.cross(self.network, [self.pair.a, self.pair.b], self.flows, rate, action)

    def joined(self, name):
        """Whether the tunnel has one SA each way, at both ends the same."""
        a, b = ({way: [sa["spi"] for sa in end.sas(name, way)] for way in ("in", "out")}
                for end in self.ends)
        return len(a["in"]) == len(b["in"]) == 1 and (a["in"], a["out"]) == (b["out"], b["in"])

    def wait_rekeyed(self, name, times, seconds):
        before = self.rekeys()[name]
        wait_until(lambda: min(self.rekeys()[name]) - min(before) >= times,
                   f"{name} is rekeyed {times} times", seconds, 0.2)

    def wait_rekeyed_both(self, times, seconds):
        before = self.rekeys()
        wait_until(lambda: all(min(now) - min(before[name]) >= times
                               for name, now in self.rekeys().items()),
                   f"both tunnels are rekeyed {times} times", seconds, 0.2)


def libipsec_overflows(endpoint):
    """Packets that the far side's charon was too late for: at its socket for ESP in UDP, and at its
    TUN."""
    with endpoint.namespace.entered():
        names, values = (line.split() for line in open("/proc/thread-self/net/snmp")
                         if line.startswith("Udp:"))
    links = endpoint.namespace.ip("-s", "-j", "link", "show", "dev", "ipsec0")
    return int(values[names.index("RcvbufErrors")]) \
        + json.loads(links)[0]["stats64"]["tx"]["dropped"]


def test_fifty_rekeys_of_both_tunnels_by_time(network):
    """One end rekeys tunnel01, the other one tunnel02."""
    soak = Soak(network, {"tunnel01": EVERY_SECOND}, {"tunnel02": EVERY_SECOND})
    soak.run(lambda: soak.wait_rekeyed_both(50, 180))


@pytest.mark.parametrize("by_bytes, by_packets", [
    ("tunnel01", "tunnel02"),
    pytest.param("tunnel02", "tunnel01", marks=pytest.mark.skipif(not SOAK, reason="a soak")),
])
def test_rekeys_by_bytes_and_by_packets(network, by_bytes, by_packets):
    # Inner packets have 92 bytes; each SA carries 25,000 a second.
    soak = Soak(network, {by_bytes: {**NEVER, "rekey_bytes": 600_000, "rand_bytes": 0,
                                     "life_bytes": 1_000_000_000}},
                {by_packets: {**NEVER, "rekey_packets": 6_000, "rand_packets": 0,
                              "life_packets": 1_000_000_000}})
    soak.run(lambda: soak.wait_rekeyed_both(50 if SOAK else 25, 160))


def test_both_ends_rekey_at_once(network):
    """tunnel01 by equal lifetimes at both ends, tunnel02 because both are told to."""
    soak = Soak(network, {"tunnel01": EVERY_SECOND}, {"tunnel01": EVERY_SECOND})

    def rekey_tunnel02():
        for _ in range(50 if SOAK else 6):
            before = [end.charon.child("tunnel02") for end in soak.ends]
            orders = [threading.Thread(target=end.charon.swanctl,
                                       args=("--rekey", "--child-id", child["uniqueid"]))
                      for end, child in zip(soak.ends, before)]
            for order in orders:
                order.start()
            for order in orders:
                order.join()
            for end, child in zip(soak.ends, before):
                end.charon.wait_rekeyed("tunnel02", child)
        soak.wait_rekeyed("tunnel01", 5, 20)
        wait_until(lambda: not SOAK or min(soak.rekeys()["tunnel01"]) >= 50,
                   "fifty rekeys of tunnel01", 120, 0.2)
    soak.run(rekey_tunnel02)
    wait_until(lambda: soak.joined("tunnel02"), "old and redundant SAs of tunnel02 are deleted", 10)
    collisions = [line for end in soak.ends
                  for line in re.findall(r".*detected CHILD_REKEY collision.*", end.charon.text())]
    assert collisions, "they never met: this test tried nothing"


def test_rekeys_against_libipsec(network):
    """strongSwan's own ESP at the far side (window 128), which is slower than espgw: 5,000 probes a
    second each way. Both sides rekey, at the same time."""
    world = ike.AwsNetwork(network)
    for tunnel, endpoint in zip(world.tunnels, world.aws):
        limited(world.gateway.charon, tunnel.name, EVERY_SECOND)
        limited(endpoint.charon, tunnel.name, EVERY_SECOND)
    probing.enlarge_rings(world.gateway.espgw)
    world.site.ip("address", "add", "10.1.0.130/24", "dev", "eth0")
    world.vpc.ip("address", "add", "192.168.192.40/26", "dev", "bridge")
    world.gateway.espgw.config["routes"].append(
        {"prefix": "192.168.192.32/27", "tunnel": "tunnel02", "priority": 50})
    world.start()
    world.use(1)
    world.vpc.ip("route", "add", "10.1.0.128/25", "via", "192.168.192.2")
    flows = [flow for a, b in ((world.SITE, world.VPC), ("10.1.0.130", "192.168.192.40"))
             for flow in (probing.Flow(world.site, a, world.vpc, b),
                          probing.Flow(world.vpc, b, world.site, a))]
    for flow in flows:
        wait_until(lambda: flow.source_namespace.run(
            "ping", "-q", "-c", 1, "-W", 0.3, "-I", flow.source, flow.destination,
            check=False).returncode == 0, f"a ping from {flow.source} is answered")
    gateway = world.gateway.charon

    def some_rekeys():
        before = {tunnel.name: rekeys(gateway, tunnel.name) for tunnel in world.tunnels}
        wait_until(lambda: all(rekeys(gateway, name) - count >= (50 if SOAK else 10)
                               for name, count in before.items()), "rekeys of each", 120, 0.2)
    probing.cross(network, [world.gateway.espgw], flows, 2_500, some_rekeys,
                  lambda: sum(map(libipsec_overflows, world.aws)))


def test_the_packet_limit_of_the_configuration_rolls_over(network):
    """The sequence number comes near its end: soft limit at 7/8, rekey, on it goes."""
    # After 5.25 s, and then 0.75 s are left for the rekey. Few packets a second, or on a busy
    # machine IKE's packets wait longer than that behind them.
    soak = Soak(network, {}, {}, packets_per_key=12_000)
    soak.run(lambda: soak.wait_rekeyed_both(2, 40), rate=2_000)
    for end in soak.ends:
        limits = [sa["lifetime"]["soft"]["packets"] for sa in end.sas("tunnel01", "out")]
        assert limits and set(limits) == {10_500}


def test_without_an_agent_the_last_number_stops_the_tunnel(network):
    """It stops, says so, and never wraps: each number is seen once outside."""
    pair = Pair(network)
    for gateway in (pair.a, pair.b):
        for tunnel in gateway.config["tunnels"]:
            tunnel["packets_per_key"] = 1024
    pair.start()
    control = pair.a.connect()
    control.call("events.subscribe", events=["sa.soft_expired", "sa.sequence_exhausted"])
    outside = network.wire(pair.b.namespace, "veth-wan")
    flow = probing.Flow(pair.site_a, pair.SITE_A, pair.site_b, pair.SITE_B)
    with probing.Crossing(network, [flow], 2_000) as crossing:
        soft = control.event("sa.soft_expired")
        end = control.event("sa.sequence_exhausted")
        time.sleep(0.5)  # it goes on sending, and nothing gets out
    assert (soft["direction"], soft["limit"], end["direction"]) == ("out", "packets", "out")
    sa = pair.a.call("sa.show", direction="out", spi=end["spi"])["sa"]
    assert (sa["state"], sa["sequence"]) == ("hard-expired", 1024)
    numbers = [int.from_bytes(bytes(packet.payload)[4:8], "big")
               for packet in map(esp.is_esp, outside.frames(0.2))
               if packet is not None and packet.src == Pair.TUNNELS["tunnel01"][0]]
    assert numbers[-1] == 1024 and len(numbers) == len(set(numbers)) <= 1024
    assert flow.received <= 1024 and flow.lost_at_end == flow.lost > 1000
    # "sequence_exhausted" until control has stopped the SA, which may be before the next packet.
    drops = pair.a.drops()
    assert drops.pop("sequence_exhausted", 0) + drops.pop("no_sa") == crossing.lost and not drops
    pair.add_sas("tunnel01")  # new keys, and it works again
    pair.site_a.wait_for(pair.SITE_B)
