# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Two workers, and one of them has the queue that everything comes by: the other one helps.

The gateway is stopped while its ring fills, so that it finds more than one worker keeps up with.
"""

import os
import struct

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw

import esp
from topologies import Bench

pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="needs two cores"
)

COUNT = 1500
OWN_COUNT = 150  # of the helper's own traffic: it has time left while the receiver has none
DEVICE = "net_af_packet{0},iface=veth-{1},framecnt=4096,qpairs=2"
MARK = b"number:"


class TwoWorkers(Bench):
    """Worker 0 has all queues of wan, worker 1 those of lan."""

    def config(self):
        config = super().config()
        for number, port in enumerate(config["ports"]):
            port["device"] = DEVICE.format(number, port["name"])
        config["workers"] = {
            "cores": [0, 1],
            "queues": [["wan:0", "wan:1"], ["lan:0", "lan:1"]],
        }
        return config

    def workers(self):
        return self.gateway.call("stats")["workers"]

    def helped(self):
        first, second = self.workers()
        assert first["helped_packets"] == second["shared_packets"] == 0
        assert second["helped_packets"] == first["shared_packets"]
        return second["helped_packets"]


@pytest.fixture(scope="module")
def two_workers(module_network):
    return TwoWorkers(module_network).start()


def inner(source, destination, number):
    """Of one length; the number is easily found."""
    return bytes(
        IP(src=source, dst=destination)
        / UDP(sport=2000, dport=3000, chksum=0)
        / Raw(MARK + struct.pack("!I", number))
    )


def packets(source, destination, count):
    template = inner(source, destination, 0)
    return [template[:-4] + struct.pack("!I", number) for number in range(count)]


def esp_frames(bench, sa):
    """Everything that the far end sends: one SA, in order."""
    plain = packets(Bench.BEHIND["tunnel01"], Bench.HOST, COUNT)
    sealed = [sa.seal(esp.trailer(packet, esp.IPV4)) for packet in plain]
    outer = bytes(sa.wrap(sealed[0]))[: -len(sealed[0])]
    head = bytes.fromhex((bench.wan_mac + bench.outside.mac).replace(":", "")) + b"\x08\x00"
    return [head + outer + packet for packet in sealed]


def clear_frames(bench):
    head = bytes.fromhex((bench.lan_mac + bench.inside.mac).replace(":", "")) + b"\x08\x00"
    plain = packets(Bench.HOST, Bench.BEHIND["tunnel01"], OWN_COUNT)
    return [head + packet for packet in plain]


def number_of(frame):
    at = frame.rfind(MARK)
    return (struct.unpack("!I", frame[at + len(MARK) :][:4])[0],) if at > 0 else None


def arrives_in_order(bench):
    got = bench.inside.collect(number_of, 5, count=COUNT)
    assert [number for (number,) in got] == list(range(COUNT))
    bench.inside.nothing(number_of, 0.05)


def balances(bench, port, count):
    source = bench.gateway.source("port", port)
    assert source["received"] == source["forwarded"] + source["dropped"] + source["to_host"]
    assert source["held"] == 0
    queues = bench.gateway.port(port)["queues"]
    assert sum(queue["rx_packets"] for queue in queues) == source["received"]
    assert sum(queue["rx_bytes"] for queue in queues) == source["received_bytes"]
    assert (source["forwarded"], source["dropped"]) == (count, 0)


def send_until_helped(bench, **more):
    """Rounds of frames, until the second worker has run some. How many rounds."""
    before = bench.helped()
    for rounds in range(1, 21):
        sa = bench.sa_in(add={"replay_window": 1024})
        bench.send_at_once(outside=esp_frames(bench, sa), **more)
        arrives_in_order(bench)
        if bench.helped() > before:
            return rounds
    raise AssertionError("the second worker never helped")


def test_an_idle_worker_helps_and_order_is_kept(two_workers):
    bench = two_workers
    start = bench.gateway.source("port", "wan")["forwarded"]
    rounds = sum(send_until_helped(bench) for _ in range(3))
    balances(bench, "wan", start + rounds * COUNT)
    assert not bench.gateway.drops()
    tunnel = bench.gateway.tunnel("tunnel01")
    assert tunnel["in_packets"] == rounds * COUNT


def test_a_helper_with_traffic_of_its_own(two_workers):
    """Both directions at once: worker 1 has its own queue to empty before it helps."""
    bench = two_workers
    bench.sa_out()
    bench.outside.flush()
    rounds = send_until_helped(bench, inside=clear_frames(bench))
    count = rounds * OWN_COUNT
    sent = bench.outside.collect(esp.is_esp, 1, count=count)
    numbers = [packet[esp.ESP].seq for packet in sent]
    assert numbers == list(range(1, count + 1))
    assert bench.gateway.source("port", "lan")["forwarded"] == count
    assert not bench.gateway.drops()


def test_narrow_windows_forbid_it(two_workers):
    """A packet that is overtaken by others in the list would be too old for such a window."""
    bench = two_workers
    bench.reset()
    narrow = bench.sa_in("tunnel02", add={"replay_window": 512})
    before = bench.helped()
    for _ in range(3):
        bench.send_at_once(outside=esp_frames(bench, bench.sa_in()))
        arrives_in_order(bench)
    assert bench.helped() == before
    bench.gateway.call("sa.delete", direction="in", spi=f"0x{narrow.spi:08x}")
    send_until_helped(bench)


def test_it_can_be_switched_off(two_workers):
    bench = two_workers
    bench.gateway.stop()
    bench.gateway.config["workers"]["share"] = "off"
    bench.start()
    for _ in range(3):
        bench.send_at_once(outside=esp_frames(bench, bench.sa_in()))
        arrives_in_order(bench)
    assert bench.helped() == 0
    balances(bench, "wan", 3 * COUNT)
