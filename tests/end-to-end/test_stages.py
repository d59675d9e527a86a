# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Where the workers' cycles go: `espctl stats --stages` while packets pass."""

import json
import subprocess
import time

from testbed import ESPCTL, wait_until
from topologies import Bench, probe

PACKETS = 40


def measure(bench, seconds=1):
    """A running `espctl stats --stages`; when this returns, the workers count."""
    process = subprocess.Popen(
        [str(word) for word in (ESPCTL, "--socket", bench.gateway.config["gateway"]["control_socket"],
                                "--json", "stats", "--stages", "--seconds", seconds)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    bench.network.processes.append(process)
    wait_until(lambda: bench.gateway.call("stats.stages")["enabled"], "stages are counted")
    time.sleep(0.1)  # and espctl has looked for the first time
    return process


def counted(bench):
    return [worker["stages"] for worker in bench.gateway.call("stats.stages")["workers"]]


def assert_nothing_is_counted(bench):
    wait_until(lambda: not bench.gateway.call("stats.stages")["enabled"], "it is off again")
    time.sleep(0.05)  # the worker has seen it
    before = counted(bench)
    bench.esp_of(probe(Bench.HOST, Bench.BEHIND["tunnel01"]))
    assert counted(bench) == before


def test_stages_of_all_that_passes(bench):
    bench.sa_out()
    into = bench.sa_in()
    outwards = [probe(Bench.HOST, Bench.BEHIND["tunnel01"]) for _ in range(PACKETS)]
    inwards = [into.encrypt(probe(Bench.BEHIND["tunnel01"], Bench.HOST)) for _ in range(PACKETS)]
    process = measure(bench)
    bench.send_inside(*outwards, probe(Bench.HOST, Bench.LAN))  # the last is the host's
    bench.send_outside(*inwards, inwards[0])                    # the last is refused
    output = process.communicate(timeout=20)[0]
    assert process.returncode == 0
    result = json.loads(output)
    worker = result["workers"][0]
    stages = {stage["stage"]: stage for stage in worker["stages"]}
    packets = {name: stage["packets"] for name, stage in stages.items()}
    # The kernel below the ports may add frames of its own.
    assert packets["receive"] >= 2 * PACKETS + 2 and packets["classify"] == packets["receive"]
    assert packets["encapsulate"] == packets["encrypt"] == PACKETS
    assert packets["decapsulate"] == PACKETS + 1 and packets["decrypt"] == PACKETS
    assert packets["forward"] == packets["transmit"] == 2 * PACKETS
    assert packets["send"] >= 2 * PACKETS and packets["host"] >= 1 and packets["drop"] >= 1
    assert all(stage["cycles"] > 0 for stage in stages.values())
    assert all(stage["packets"] >= stage["bursts"] > 0
               for name, stage in stages.items() if name != "idle")
    # Each cycle is in one stage, so that together they are the time that has passed.
    assert abs(sum(stage["cycles"] for stage in stages.values()) / worker["cycles"] - 1) < 0.05
    assert abs(sum(stage["share"] for stage in stages.values()) - 1) < 1e-3
    assert abs(result["seconds"] - 1) < 0.2
    assert 0 < worker["busy"] < 1
    assert_nothing_is_counted(bench)


def test_whoever_ends_without_a_word_leaves_it_off(bench):
    bench.sa_out()
    process = measure(bench, seconds=60)
    before = counted(bench)
    bench.esp_of(probe(Bench.HOST, Bench.BEHIND["tunnel01"]))
    assert counted(bench) != before
    process.kill()
    process.wait()
    assert_nothing_is_counted(bench)


def test_busy_time(bench):
    def look():
        return bench.gateway.call("stats")["workers"][0]

    bench.sa_out()
    before = look()
    time.sleep(0.2)
    for _ in range(5):
        bench.esp_of(probe(Bench.HOST, Bench.BEHIND["tunnel01"]))
    after = look()
    busy = after["busy_cycles"] - before["busy_cycles"]
    assert 0 < busy < (after["cycles"] - before["cycles"]) / 2
