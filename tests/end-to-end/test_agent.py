# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""An agent that is not strongSwan: scripts/rotate-keys. Also the probes that tests of rekeying
count with."""

import json
import os
import signal
import socket
import struct
import subprocess
import time

import pytest

import probing
from testbed import BUILD, ESPCTL, PATIENCE, ROOT, run, wait_until
from topologies import Pair

AGENT = ROOT / "scripts/rotate-keys"
RATE = 6_000  # probes a second of each of four flows
MAGIC = 0x657370677770726f  # probes.h


class Agent:
    """scripts/rotate-keys at both gateways of a Pair."""

    def __init__(self, pair, *options):
        self.log = pair.a.directory / f"agent-{len(pair.network.processes)}"
        sockets = [gateway.config["gateway"]["control_socket"] for gateway in (pair.a, pair.b)]
        with open(self.log, "w") as log:
            self.process = pair.network.popen(pair.a.namespace, AGENT, *options, *sockets,
                                              stdout=log, stderr=subprocess.STDOUT)

    def lines(self, word):
        return [line for line in self.log.read_text().splitlines() if word in line]

    def wait_rotations(self, times):
        """Until each of the four directions (both tunnels, both ways) has so many more keys."""
        before = len(self.lines("replaces"))
        wait_until(lambda: len(self.lines("replaces")) >= before + 4 * times, "rotations", 30)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(10 * PATIENCE) == 0, self.log.read_text()


@pytest.fixture
def joined(network):
    """A Pair whose gateways run, without SAs, and the flows both ways by both tunnels."""
    pair = Pair(network)
    pair.flows = probing.second_addresses(pair)
    for gateway in (pair.a, pair.b):
        probing.enlarge_rings(gateway)
        gateway.config["workers"]["priority"] = "low"
        gateway.start()
    return pair


def wait_for_flows(pair):
    for flow in pair.flows:
        wait_until(lambda: flow.source_namespace.run(
            "ping", "-q", "-c", 1, "-W", 0.3, "-I", flow.source, flow.destination,
            check=False).returncode == 0, f"a ping from {flow.source} is answered", 15)


def sas(gateway, **wanted):
    return [sa for sa in gateway.call("sa.list")["sas"]
            if all(sa[key] == value for key, value in wanted.items())]


def test_probes_tell_what_became_of_each_packet(network):
    namespace = network.namespace("probes")
    receiver = network.popen(namespace, probing.PROBES, "receive", "--port", 7000, "--idle", 0.3,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "listening" in receiver.stderr.readline()
    with namespace.entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(("127.0.0.1", 7000))
    for stream, number in [(5, 0), (5, 1), (5, 70), (5, 69), (5, 70), (6, 2), (5, 2), (6, 3)]:
        sender.send(struct.pack("=QQQQ", MAGIC, stream, number, 0) + bytes(100))
    sender.send(b"something else")
    sender.close()
    report = json.loads(receiver.communicate(timeout=10 * PATIENCE)[0])
    assert (report["received"], report["foreign"], report["lost_at_socket"]) == (9, 1, 0)
    first, second = report["streams"]
    ranges = [(lost["first"], lost["last"]) for lost in first["missing_ranges"]]
    assert (first["stream"], first["received"], first["missing"]) == (5, 5, 66)
    assert (first["duplicated"], first["reordered"], first["highest"]) == (1, 2, 70)
    assert ranges == [(3, 68)]
    assert (second["stream"], second["received"], second["missing"]) == (6, 2, 2)
    assert (second["duplicated"], second["reordered"], second["highest"]) == (0, 0, 3)


def test_probes_are_sent_at_their_rate(network):
    namespace = network.namespace("probes")
    flow = probing.Flow(namespace, "127.0.0.1", namespace, "127.0.0.2")
    with probing.Crossing(network, [flow], 10_000) as crossing:
        time.sleep(1)
    assert crossing.lost == 0 and flow.seen["duplicated"] == 0, crossing
    assert 9_000 < crossing.rate < 11_000, crossing


def test_ten_rotations_lose_nothing(joined):
    agent = Agent(joined, "--every", 1, "--grace", 0.5)
    wait_for_flows(joined)
    probing.cross(joined.network, [joined.a, joined.b], joined.flows, RATE,
                  lambda: agent.wait_rotations(10))
    agent.end()
    for gateway in (joined.a, joined.b):
        assert all(sa["state"] == "active" for sa in sas(gateway, direction="out", current=True))
        assert len(sas(gateway, direction="out")) == 2


def test_soft_limit_by_packets_replaces_the_key_at_once(joined):
    agent = Agent(joined, "--every", 1000, "--packets", 5_000, "--grace", 0.5)
    wait_for_flows(joined)
    probing.cross(joined.network, [joined.a, joined.b], joined.flows, RATE,
                  lambda: agent.wait_rotations(3))
    agent.end()


def test_a_gateway_is_killed_and_started(joined):
    agent = Agent(joined, "--every", 1000)
    wait_for_flows(joined)
    joined.b.kill()
    wait_until(lambda: agent.lines("trying again"), "the agent misses the gateway")
    joined.b.start()
    wait_until(lambda: agent.lines("was restarted"), "the agent knows of the restart")
    joined.site_a.wait_for(Pair.SITE_B, 3)
    wait_for_flows(joined)
    # The SAs of before are gone at the end that lived, too: replaced, and after the grace deleted.
    wait_until(lambda: len(sas(joined.a)) == len(sas(joined.b)) == 4, "four SAs at either end")
    agent.end()


def test_an_agent_that_comes_back_changes_nothing_that_works(joined):
    first = Agent(joined, "--every", 1000)
    wait_for_flows(joined)
    before = {sa["spi"] for sa in sas(joined.a)}
    first.process.kill()
    first.process.wait()
    agent = Agent(joined, "--every", 1000)
    wait_until(lambda: len(agent.lines("connected")) == 2, "it is connected")
    joined.a.call("sa.flush", tunnel="tunnel02")  # and sees to what is missing
    wait_for_flows(joined)
    agent.end()
    after = {sa["spi"] for sa in sas(joined.a, tunnel="tunnel01")}
    assert len(after) == 2 and after < before


def limits(gateway):
    return {(sa["lifetime"]["soft"].get("seconds"), sa["lifetime"]["soft"]["packets"],
             sa["lifetime"]["hard"].get("seconds")) for sa in sas(gateway, direction="out")}


def test_keys_without_its_limits_are_replaced(joined):
    once = Agent(joined, "--once", "--grace", 0.1)
    assert once.process.wait(10 * PATIENCE) == 0
    wait_for_flows(joined)
    by_gateway = (1 << 32) - 1 - ((1 << 32) - 1) // 8
    assert limits(joined.a) == limits(joined.b) == {(None, by_gateway, None)}
    fewer = ("--packets", 5_000_000)
    for options, packets, replaced in (((), by_gateway, 4), (fewer, 5_000_000, 4),
                                       (fewer, 5_000_000, 0)):
        agent = Agent(joined, "--every", 1000, "--grace", 0.1, *options)
        wait_until(lambda: len(agent.lines("connected")) == 2, "it is connected")
        wait_until(lambda: limits(joined.a) == limits(joined.b) == {(1000, packets, 10000)},
                   "its limits")
        # What it replaced is deleted after the grace.
        wait_until(lambda: len(sas(joined.a)) == len(sas(joined.b)) == 4, "four SAs at either end")
        agent.end()
        assert len(agent.lines("replaces")) == replaced


def test_once_replaces_every_key_and_ends(joined):
    agent = Agent(joined, "--once", "--grace", 0.1)
    assert agent.process.wait(10 * PATIENCE) == 0
    wait_for_flows(joined)
    before = {sa["spi"] for sa in sas(joined.a)}
    sockets = [gateway.config["gateway"]["control_socket"] for gateway in (joined.a, joined.b)]
    run(AGENT, "--once", "--grace", 0.1, *sockets)
    after = {sa["spi"] for sa in sas(joined.a)}
    assert len(before) == len(after) == 4 and not before & after
    joined.b.stop()
    refused = run(AGENT, "--once", *sockets, check=False)
    assert refused.returncode == 1 and sockets[1] in refused.stderr


def test_the_c_example_of_the_document_works(joined, tmp_path):
    document = (ROOT / "docs/writing-an-agent.md").read_text()
    (tmp_path / "example.c").write_text(document.split("```c\n")[1].split("```")[0])
    (tmp_path / "espgw").mkdir()
    (tmp_path / "espgw/client.h").symlink_to(ROOT / "lib/client/client.h")
    run("cc", "-Wall", "-Wextra", "-Werror", "-I", tmp_path, "-o", tmp_path / "example",
        tmp_path / "example.c", BUILD / "lib/client/libespgw-client.a", "-ljansson")
    sockets = [gateway.config["gateway"]["control_socket"] for gateway in (joined.a, joined.b)]
    absent = tmp_path / "absent.sock"
    failed = run(tmp_path / "example", sockets[0], absent, "tunnel01", check=False)
    assert failed.returncode == 1 and str(absent) in failed.stderr
    assert "Usage" in run(tmp_path / "example", check=False).stderr
    run(tmp_path / "example", *sockets, "tunnel01")
    joined.site_a.wait_for(Pair.SITE_B)
    assert joined.a.tunnel("tunnel01")["state"] == joined.b.tunnel("tunnel01")["state"] == "up"


def test_what_cannot_be_mended_ends_it(joined, tmp_path):
    sockets = [gateway.config["gateway"]["control_socket"] for gateway in (joined.a, joined.b)]
    refused = run(AGENT, "--tunnel", "tunnel09", *sockets, check=False)
    assert refused.returncode == 1 and "no such tunnel" in refused.stderr
    assert "tunnel09; it has tunnel01, tunnel02" in refused.stderr and sockets[0] in refused.stderr
    assert run(AGENT, "--every", 0, *sockets, check=False).returncode == 2
    assert "at least 1" in run(AGENT, "--every", 0, *sockets, check=False).stderr
    assert "--once goes without" in run(AGENT, "--once", "--every", 5, *sockets, check=False).stderr
    twice = run(AGENT, sockets[0], sockets[0], check=False)
    assert twice.returncode == 2 and f"{sockets[0]} is named twice" in twice.stderr
    link = tmp_path / "link.sock"
    os.link(sockets[0], link)  # the same gateway by another name
    same = run(AGENT, "--once", sockets[0], link, check=False)
    assert same.returncode == 1 and "the same gateway" in same.stderr and str(link) in same.stderr
    assert os.access(AGENT, os.X_OK) and "usage" in run(AGENT, "--help").stdout
    assert run(ESPCTL, "--socket", sockets[0], "sa", "list").returncode == 0
