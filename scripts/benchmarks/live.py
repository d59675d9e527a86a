# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""scripts/bench --config: a gateway with the user's configuration, NICs and generator, measured by
its own counters."""

import os
import pathlib
import re
import shutil
import statistics
import sys
import tempfile
import time

from . import bed, traffic
from .common import BenchError, machine
from .figures import drops_between, percent, spread, worker_figures

CONTROL_SOCKET = "/run/espgw/control.sock"   # the configuration's default
WAIT_SECONDS = 120                           # for the generator
TRAFFIC = 1000                               # packets a second that are no chance any more
QUIET_SECONDS = 0.3
SPI = 0x1001


class LiveGateway(bed.Gateway):
    """espgw with a configuration that is not ours."""

    def __init__(self, place, file):
        super().__init__(place, [])
        self.file = file
        found = re.search(r'^[^#\n]*\bcontrol_socket\s*[=:]\s*"([^"]+)"', file.read_text(),
                          re.MULTILINE)
        self.control = pathlib.Path(found.group(1) if found else CONTROL_SOCKET)

    def start(self):
        self.spawn([bed.built("espgw"), "--config", self.file])
        self.wait_until(lambda: "espgw: ready" in self.log.read_text(errors="replace"), "is ready")
        self.cores = [worker["core"] for worker in self.espctl("stats")["workers"]]
        for number, tunnel in enumerate(self.espctl("tunnel", "list")["tunnels"]):
            self.add_sa("out", traffic.Key(SPI + number, os.urandom(36)), tunnel=tunnel["name"])

    def missed(self):
        return sum(port["rx_missed"] for port in self.espctl("port", "list")["ports"])


def rate(first, last, name):
    return (last[name] - first[name]) / (last["time"] - first["time"])


def wait_for_traffic(gateway):
    print("scripts/bench: the gateway is ready; start the generator", file=sys.stderr)
    last = gateway.state()
    for _ in range(WAIT_SECONDS):
        time.sleep(1)
        now = gateway.state()
        if rate(last, now, "received") > TRAFFIC:
            return
        last = now
    raise BenchError(f"no traffic came within {WAIT_SECONDS} s")


def intervals_of(gateway, seconds, count):
    states = [gateway.state()]
    for _ in range(count):
        time.sleep(seconds / count)
        states.append(gateway.state())
    return states


def measure(config, seconds, count, warm_seconds):
    file = pathlib.Path(config).resolve()
    if not file.is_file():
        raise BenchError(f"argument --config: {config}: no such file")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="espgw-bench-"))
    gateway = LiveGateway(bed.Bed(directory, False, []), file)
    try:
        gateway.start()
        quiet = gateway.state()
        time.sleep(QUIET_SECONDS)
        if rate(quiet, gateway.state(), "received") > TRAFFIC:
            raise BenchError("packets come already: stop the generator until it is asked for")
        wait_for_traffic(gateway)
        time.sleep(warm_seconds)
        missed = gateway.missed()
        states = intervals_of(gateway, seconds, count)
        missed = gateway.missed() - missed
    finally:
        gateway.end()
        shutil.rmtree(directory, ignore_errors=True)
    return {"machine": machine(), "config": str(file), "seconds": seconds,
            **figures_of(gateway, states, missed)}


def figures_of(gateway, states, missed):
    first, last = states[0], states[-1]
    out = [rate(before, after, "forwarded") for before, after in zip(states, states[1:])]
    received = last["received"] - first["received"]
    drops = drops_between(first, last)
    return {"worker_cores": gateway.cores, "packets_per_second": statistics.median(out),
            "spread": spread(out), "received_per_second": rate(first, last, "received"),
            "received_gbit_per_second": 8 * rate(first, last, "received_bytes") / 1e9,
            "missed": missed, "received": received, "drops": drops,
            "lost_share": sum(drops.values()) / received if received else 0.0,
            **worker_figures(first, last)}


def print_result(result):
    cycles, burst = result["cycles_per_packet"], result["packets_per_burst"]
    print(f"machine:   {result['machine']['cpu']}, TSC {result['machine']['tsc_mhz']} MHz; "
          f"workers on {result['worker_cores']}")
    print(f"received:  {result['received_per_second'] / 1e6:.3f} Mpps, "
          f"{result['received_gbit_per_second']:.2f} Gbit/s of frames")
    print(f"forwarded: {result['packets_per_second'] / 1e6:.3f} Mpps, spread "
          f"{percent(result['spread'])}")
    print(f"worker:    {cycles or 0:.0f} cycles per packet, idle {percent(result['idle_share'])}, "
          f"{burst or 0:.1f} packets per burst")
    print(f"missed:    {result['missed']} packets, by the NICs")
    print(f"dropped:   {percent(result['lost_share'], 3)}")
    for reason, packets in result["drops"].items():
        print(f"           {reason}: {packets}")
