# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Health checks against a far side that the test plays: it drops, delays and forges. Windows are
short, and timeouts long, for a machine that does much else meanwhile."""

import threading
import time

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.packet import Raw

import esp
from testbed import wait_until
from topologies import Bench

QUICK = {"rate": 50, "timeout": 300, "degraded_window": 10, "down_window": 500,
         "recovery_probes": 10, "unhealthy_time": 1}
KINDS = {  # tunnel: type, direction
    "tunnel01": ("request", "bidirectional"),
    "tunnel02": ("reply", "bidirectional"),
    "tunnel03": ("request", "unidirectional"),
    "tunnel04": ("request", "bidirectional"),  # IPv6 inside
    "tunnel06": ("reply", "unidirectional"),   # IPv6 outside
}



class HealthBench(Bench):
    FAR = {**Bench.FAR, "tunnel04": "203.0.113.14"}

    def config(self):
        config = super().config()
        for tunnel in config["tunnels"]:
            kind, direction = KINDS[tunnel["name"]]
            tunnel["health"] = {**QUICK, "type": kind, "direction": direction}
            if tunnel["name"] == "tunnel04":
                tunnel["interface_address"] = "fd00::2/126"
        return config


class FarSide(threading.Thread):
    """Answers the probes that arrive at the outside wire."""

    def __init__(self, bench):
        super().__init__(daemon=True)
        self.bench = bench
        self.lock = threading.Lock()
        self.outbound = {name: bench.sa_out(name) for name in bench.FAR}
        self.inbound = {name: bench.sa_in(name) for name in bench.FAR}
        self.by_spi = {sa.spi: name for name, sa in self.outbound.items()}
        self.ended = False
        self.lost = {name: lambda probe: False for name in bench.FAR}
        self.delay = dict.fromkeys(bench.FAR, 0.0)
        self.first = {}       # the first probe of each tunnel
        self.last = {}        # and the last
        self.others = []      # what else came out of the tunnels
        self.queue = []       # (when, tunnel, packet)

    def run(self):
        while not self.ended:
            for frame in self.bench.outside.frames(0.01):
                packet = esp.is_esp(frame)
                if packet is not None:
                    self.take(packet)
                self.send_due()
            self.send_due()

    def take(self, packet):
        tunnel = self.by_spi.get(packet[esp.ESP].spi)
        if tunnel is None:
            return
        inner = self.outbound[tunnel].decrypt(packet)
        probe = inner.__class__(bytes(inner))
        if len(bytes(probe)) not in (52, 72) or bytes(probe)[-4:] != bytes(4):
            self.others.append((tunnel, probe))
            return
        self.first.setdefault(tunnel, probe)
        self.last[tunnel] = probe
        if not self.lost[tunnel](probe):
            self.queue.append((time.monotonic() + self.delay[tunnel], tunnel, probe))

    def send_due(self):
        now = time.monotonic()
        due = [entry for entry in self.queue if entry[0] <= now]
        self.queue = [entry for entry in self.queue if entry[0] > now]
        for _, tunnel, probe in due:
            answer = probe if KINDS[tunnel][0] == "reply" else answer_to(probe)
            if KINDS[tunnel][1] == "unidirectional":
                self.bench.send_outside(answer)
            else:
                self.send(tunnel, answer)

    def send(self, tunnel, packet):
        with self.lock:
            self.bench.send_outside(self.inbound[tunnel].encrypt(packet))

    def end(self):
        self.ended = True
        self.join()


def answer_to(probe):
    if isinstance(probe, IPv6):
        echo = probe[ICMPv6EchoRequest]
        return IPv6(src=probe.dst, dst=probe.src) / ICMPv6EchoReply(
            id=echo.id, seq=echo.seq, data=echo.data)
    return IP(src=probe.dst, dst=probe.src) / ICMP(
        type=0, id=probe[ICMP].id, seq=probe[ICMP].seq) / Raw(probe[Raw].load)


@pytest.fixture(scope="module")
def far(module_network):
    bench = HealthBench(module_network).start()
    side = FarSide(bench)
    side.start()
    yield side
    side.end()
    assert bench.gateway.alive, "espgw ended during the tests"


def health(far, tunnel):
    return far.bench.gateway.tunnel(tunnel)["health"]


def all_are(far, state, seconds=15):
    def right():
        seen = {name: health(far, name)["state"] for name in KINDS}
        return all(value == state for value in seen.values())
    wait_until(right, f"all tunnels are {state}: "
               f"{ {name: health(far, name)['state'] for name in KINDS} }", seconds)


@pytest.fixture
def healthy(far):
    """The far side answers, and all tunnels are healthy."""
    far.lost = dict.fromkeys(KINDS, lambda probe: False)
    far.delay = dict.fromkeys(KINDS, 0.0)
    all_are(far, "healthy")
    far.others.clear()
    return far


def test_all_kinds_of_probes_are_answered(healthy):
    ends = {  # source and destination of what is sent
        "tunnel01": ("169.254.244.2", "169.254.244.1", ICMP, 8),
        "tunnel02": ("169.254.244.5", "169.254.244.6", ICMP, 0),
        "tunnel03": (Bench.WAN, Bench.FAR["tunnel03"], ICMP, 8),
        "tunnel04": ("fd00::2", "fd00::1", ICMPv6EchoRequest, 128),
        "tunnel06": (Bench.FAR["tunnel06"], Bench.WAN6, ICMPv6EchoReply, 129),
    }
    for tunnel, (source, destination, layer, kind) in ends.items():
        probe = healthy.first[tunnel]
        assert (probe.src, probe.dst) == (source, destination), probe.show(dump=True)
        assert probe[layer].type == kind
        remade = probe.__class__(bytes(probe))
        delattr(remade[layer], "chksum" if layer is ICMP else "cksum")
        assert bytes(remade.__class__(bytes(remade))) == bytes(probe), "a wrong checksum"
    for tunnel in KINDS:
        seen = health(healthy, tunnel)
        assert seen["answered"] >= 1 and seen["attempts"] >= seen["answered"], seen
        assert 0 < seen["rtt_us"] < 300_000 and 0 < seen["rtt_smoothed_us"] < 300_000, seen


def test_probes_are_no_traffic_and_each_packet_is_accounted_for(healthy):
    gateway = healthy.bench.gateway
    for name in KINDS:
        tunnel = gateway.tunnel(name)
        assert tunnel["in_packets"] == tunnel["in_bytes"] == 0, tunnel
        assert tunnel["out_packets"] == tunnel["out_bytes"] == 0, tunnel
        assert tunnel["probes_sent"] >= tunnel["health"]["answered"] > 0, tunnel

    def balanced():
        sources = gateway.call("stats")["sources"]
        return all(source["held"] == 0 for source in sources) and sources
    sources = wait_until(balanced, "nothing is held")
    own = next(source for source in sources if source["source"] == "gateway")
    assert own["received"] == own["forwarded"] + own["dropped"] and own["forwarded"] > 0, own


def test_down_when_all_is_lost_and_back_by_degraded(healthy):
    control = healthy.bench.gateway.connect()
    control.call("events.subscribe", events=["tunnel.health"])
    healthy.lost = dict.fromkeys(KINDS, lambda probe: True)
    all_are(healthy, "down")
    healthy.lost = dict.fromkeys(KINDS, lambda probe: False)
    all_are(healthy, "healthy")
    events = []
    while sum(event["to"] == "healthy" for event in events) < len(KINDS):
        events.append(control.event("tunnel.health", 2))
    for name in KINDS:
        story = [(event["from"], event["to"], event["cause"]) for event in events
                 if event["tunnel"] == name]
        assert story[-2:] == [("down", "degraded", "answers"),
                              ("degraded", "healthy", "recovered")], story
        assert story[-3][1:] == ("down", "no_answer"), story
        assert story[0][0] == "healthy", story
        assert health(healthy, name)["changes"] >= 4
    control.close()
    log = healthy.bench.gateway.log.read_text()
    assert "espgw: tunnel tunnel01: health down, was " in log


def test_one_tunnel_alone_goes_down_by_delay(healthy):
    healthy.delay["tunnel01"] = 0.4  # over the timeout
    wait_until(lambda: health(healthy, "tunnel01")["state"] == "down", "delay is down", 10)
    assert health(healthy, "tunnel02")["state"] != "down"
    healthy.delay["tunnel01"] = 0.0
    wait_until(lambda: health(healthy, "tunnel01")["state"] == "healthy", "it recovers", 15)


def test_lost_attempts_are_retried_and_lost_probes_degrade(healthy):
    failed = health(healthy, "tunnel01")["failed"]
    seen = set()

    def first_attempt(probe):
        new = probe[ICMP].seq not in seen
        seen.add(probe[ICMP].seq)
        return new
    healthy.lost["tunnel01"] = first_attempt
    wait_until(lambda: len(seen) > 20, "probes are retried", 10)
    now = health(healthy, "tunnel01")
    assert now["failed"] == failed and now["state"] == "healthy", now
    healthy.lost["tunnel01"] = lambda probe: probe[ICMP].seq % 8 == 0  # all attempts
    wait_until(lambda: health(healthy, "tunnel01")["state"] == "degraded", "it degrades", 10)
    time.sleep(1)
    now = health(healthy, "tunnel01")
    assert now["state"] == "degraded" and 0.02 < now["loss"] < 0.5, now


def test_forged_answers_count_for_nothing(healthy):
    """What is true of one tunnel's probe is not taken by another way, nor with another cookie."""
    forge = {"on": True}

    def forged(probe):
        if not forge["on"]:
            return False
        answer = answer_to(probe)
        wrong = answer.copy()
        wrong[Raw].load = wrong[Raw].load[:8] + bytes(8) + wrong[Raw].load[16:]
        del wrong[ICMP].chksum, wrong[IP].chksum
        healthy.send("tunnel01", wrong)       # another cookie
        healthy.send("tunnel03", answer)      # by another tunnel
        in_clear = answer.copy()
        in_clear[IP].dst = Bench.WAN
        del in_clear[IP].chksum
        healthy.bench.send_outside(in_clear)  # in clear
        return True
    healthy.lost["tunnel01"] = forged
    wait_until(lambda: health(healthy, "tunnel01")["state"] == "down", "forgeries don't help", 10)
    forge["on"] = False


def test_the_far_sides_requests_are_answered(healthy):
    bench = healthy.bench
    before = bench.gateway.tunnel("tunnel01")
    for size in (0, 1, 56, 1300):
        data = bytes(range(256)) * 6
        healthy.send("tunnel01", IP(src="169.254.244.1", dst="169.254.244.2", tos=0x20, ttl=3) /
                     ICMP(type=8, id=77, seq=size) / Raw(data[:size]))
    healthy.send("tunnel04", IPv6(src="fd00::1", dst="fd00::2") /
                 ICMPv6EchoRequest(id=77, seq=9, data=b"six" * 11))

    def answers():
        return [inner for _, inner in healthy.others if
                ICMP in inner and inner[ICMP].type == 0 and inner[ICMP].id == 77]
    wait_until(lambda: len(answers()) == 4, "four answers", 5)
    for inner in answers():
        assert (inner.src, inner.dst, inner.tos) == ("169.254.244.2", "169.254.244.1", 0x20)
        assert inner.ttl == 64
        size = inner[ICMP].seq
        assert bytes(inner[ICMP].payload) == (bytes(range(256)) * 6)[:size]
        remade = inner.copy()
        del remade[IP].chksum, remade[ICMP].chksum
        assert bytes(remade) == bytes(inner), "a wrong checksum"
    wait_until(lambda: any(ICMPv6EchoReply in inner for _, inner in healthy.others),
               "an answer by ICMPv6", 5)
    six = next(inner for _, inner in healthy.others if ICMPv6EchoReply in inner)
    assert six[ICMPv6EchoReply].data == b"six" * 11 and six.dst == "fd00::1"
    after = bench.gateway.tunnel("tunnel01")
    assert after["echoes_answered"] - before["echoes_answered"] == 4
    assert after["in_packets"] == before["in_packets"]
    assert after["out_packets"] == before["out_packets"]


def test_the_far_sides_reply_probes_come_back(healthy):
    probe = IP(src="169.254.244.2", dst="169.254.244.1", ttl=64) / ICMP(
        type=0, id=4711, seq=5) / Raw(b"reply-type probe")
    probe = IP(bytes(probe))
    healthy.send("tunnel01", probe)

    def returned():
        return [inner for name, inner in healthy.others if name == "tunnel01" and
                ICMP in inner and inner[ICMP].id == 4711]
    inner = wait_until(returned, "it comes back", 5)[0]
    assert bytes(inner[ICMP]) == bytes(probe[ICMP])
    assert (inner.src, inner.dst, inner.ttl) == (probe.src, probe.dst, 63)


def test_nothing_else_comes_from_our_own_address(healthy):
    """The exception to the source check is for echo replies on their way back alone."""
    gateway = healthy.bench.gateway
    before = gateway.drops().get("inner_source", 0)
    own, far = "169.254.244.2", "169.254.244.1"
    healthy.send("tunnel01", IP(src=own, dst=far) / UDP(sport=1, dport=2) / Raw(b"x" * 40))
    healthy.send("tunnel01", IP(src=own, dst=far) / ICMP(type=8, id=1) / Raw(b"request"))
    healthy.send("tunnel01", IP(src=own, dst=Bench.HOST) / ICMP(type=0, id=1) / Raw(b"inside"))
    healthy.send("tunnel02", IP(src=own, dst=far) / ICMP(type=0, id=1) / Raw(b"other tunnel"))
    healthy.send("tunnel01", IP(src="169.254.244.6", dst=far) / ICMP(type=0, id=1) / Raw(b"its"))
    wait_until(lambda: gateway.drops().get("inner_source", 0) == before + 5,
               f"all are dropped: {gateway.drops()}", 5)
