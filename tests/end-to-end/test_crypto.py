# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""workers.crypto: with each choice, packets that others encipher and decipher."""

import pytest
from scapy.layers.inet import UDP
from scapy.layers.ipsec import ESP

import esp
from testbed import can_burst
from topologies import Bench, probe

# In bursts: neighbours of one length, of different ones, long ones between short ones, and fewer
# than go together.
SIZES = [64] * 9 + [28, 64, 100, 1400, 570, 64, 571, 572, 573, 1000, 28, 1400, 640] * 5


def start(network, crypto):
    bench = Bench(network)
    bench.gateway.config["workers"]["crypto"] = crypto
    if crypto != "burst" or can_burst():
        return bench.start()
    with pytest.raises(AssertionError, match='workers.crypto = "burst": this CPU lacks'):
        bench.start()
    return None


def busy_loops(bench):
    return bench.gateway.call("stats")["workers"][0]["busy_loops"]


@pytest.mark.parametrize("crypto", ["auto", "ipsec-mb", "burst"])
def test_each_choice(network, crypto):
    bench = start(network, crypto)
    if bench is None:
        return
    bursts = crypto != "ipsec-mb" and can_burst()
    assert bench.gateway.call("stats")["crypto"] == ("burst" if bursts else "ipsec-mb")
    out, into = bench.sa_out(), bench.sa_in()

    sent = [probe(Bench.HOST, Bench.BEHIND["tunnel01"], size) for size in SIZES]
    loops = busy_loops(bench)
    bench.send_at_once(inside=bench.inside_frames(sent))
    outer = bench.outside.collect(esp.is_esp, 2, count=len(sent))
    assert [packet[ESP].seq for packet in outer] == list(range(1, len(sent) + 1))
    assert [bytes(out.decrypt(packet)[UDP]) for packet in outer] \
        == [bytes(packet[UDP]) for packet in sent]

    sent = [probe(Bench.BEHIND["tunnel01"], Bench.HOST, size) for size in SIZES]
    bench.send_at_once(outside=bench.outside_frames([into.encrypt(packet) for packet in sent]))
    got = bench.inside.collect(esp.is_ip, 2, count=len(sent))
    assert [bytes(packet[UDP]) for packet in got] == [bytes(packet[UDP]) for packet in sent]
    assert not bench.gateway.drops()
    assert busy_loops(bench) - loops < len(SIZES) / 2, "they were no bursts"
