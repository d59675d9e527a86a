# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""scripts/bench pktgen: the whole gateway between two ports of Pktgen-DPDK. See HELP."""

import argparse
import ipaddress
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time

from . import arguments, bed, traffic
from .common import (ROOT, BenchError, Progress, free_hugepages_mb, machine, machine_line,
                     need_root)
from .figures import drops_between, percent, worker_figures

HELP = """\
Runs the real espgw between two memif links, with Pktgen-DPDK as source and sink: it encapsulates
what Pktgen sends. Needs no NIC; as root, with 3 GB of hugepages free.

Pktgen is no Debian package. How to build it: docs/benchmarking.md. Scripts, in scripts/pktgen:

  rate-sweep   10, 20 ... 100 % of the link, each size
  rfc2544      the highest rate without loss, each size, by bisection
  imix         64, 570 and 1400 bytes, 7:4:1, at 25, 50, 75 and 100 % of the link

More settings of theirs are environment variables, named in scripts/pktgen/*.lua: RATES, STEP,
ALLOWED_LOSS, CONFIRM_SECONDS. Pktgen takes memif's link for one of 10 Gbit/s.

Before its first packet Pktgen may take a minute. Docs: docs/benchmarking.md."""

EXAMPLES = """\
examples:
  scripts/bench pktgen Pktgen-DPDK/build/app/pktgen rate-sweep --size 64 --size 1400
  CONFIRM_SECONDS=10 scripts/bench pktgen Pktgen-DPDK/build/app/pktgen rfc2544 --seconds 5 --json
"""

SCRIPTS = ("rate-sweep", "rfc2544", "imix")
SIZES = ("64", "256", "512", "1400")
MEMORY_MB = 2560          # Pktgen's, for two ports
START_SECONDS = 25        # in which the gateway starts and gets its key
SILENT_SECONDS = 180      # longer than a trial, that Pktgen may take for a line
RING_LOG2 = 13            # Pktgen has threads that take each other's core for milliseconds


def size_argument(text):
    size = arguments.size_argument(text)
    if size == "imix":
        raise argparse.ArgumentTypeError("imix: it is a script of its own")
    return size


def core_argument(text):
    cores = arguments.cores_argument(text)
    if len(cores) != 1:
        raise argparse.ArgumentTypeError(f"{text}: not one core")
    return cores


def parser():
    parse = arguments.mode_parser("pktgen", HELP, EXAMPLES)
    add = parse.add_argument
    add("pktgen", metavar="PATH", help="the program pktgen",
        type=arguments.program_argument("build Pktgen-DPDK and name its pktgen"))
    add("script", choices=SCRIPTS, metavar="SCRIPT", help="rate-sweep, rfc2544 or imix")
    add("--size", action="append", type=size_argument, metavar="BYTES",
        help=f"inner IP packet; may be repeated. By default {', '.join(SIZES)}")
    add("--seconds", type=arguments.seconds_argument, default=10.0, metavar="N",
        help="length of a trial, by default 10")
    add("--core", dest="cores", type=core_argument, metavar="N",
        help="the worker's core, by default 1")
    add("--generator-core", dest="generator_cores", type=core_argument, metavar="N",
        help="Pktgen's, by default the first that is not the worker's")
    add("--json", action="store_true", help="print JSON instead of the table")
    return parse


def confirm_seconds():
    """A setting of rfc2544.lua, which checks it."""
    try:
        return float(os.environ.get("CONFIRM_SECONDS", "60"))
    except ValueError:
        return 0


class Pktgen(bed.Source):
    def __init__(self, test, cores, options):
        super().__init__(test, "pktgen", cores)
        self.options = options
        self.output = test.directory / "results"

    def start(self):
        network = traffic.Network()
        self.bed.environment.update({
            "ESPGW_PKTGEN": str(ROOT / "scripts/pktgen"), "OUTPUT": str(self.output),
            "GATEWAY_MAC": network.inside_mac, "SOURCE": network.host,
            "TARGET": str(ipaddress.ip_network(network.remote)[1]),
            "SENDER": str(self.INSIDE), "RECEIVER": str(self.OUTSIDE),
            "SIZES": ",".join(self.options.size or SIZES),
            "SECONDS": f"{self.options.seconds:g}", "START_DELAY": str(START_SECONDS)})
        links = (f"net_memif{i},role=server,{self.bed.link(name)}"
                 for i, name in enumerate(("inside", "outside")))
        self.spawn([self.options.pktgen, "--lcores", f"0@{self.cores[0]},1@{self.cores[0]}",
                    "--in-memory", "--no-pci", "--file-prefix", self._prefix(),
                    *(f"--vdev={link}" for link in links), "--", "-m", "1.[0-1]", "-f",
                    ROOT / f"scripts/pktgen/{self.options.script}.lua"])
        # Its sockets are there before its ports are, and the gateway connects but once.
        self.wait_until(self.output.exists, "starts its script")
        self.telemetry = self._telemetry()

    def lines(self):
        return self.output.read_text().splitlines() if self.output.exists() else []

    def wait(self, gateway, progress):
        """Until the script ends; a step of progress for each of its lines."""
        patience = SILENT_SECONDS + max(self.options.seconds, confirm_seconds())
        seen, last = 0, time.monotonic()
        while self.process.poll() is None:
            for line in self.lines()[seen:]:
                progress.step(line.lstrip("# "))
                seen, last = seen + 1, time.monotonic()
            gateway.expect_running()
            if time.monotonic() - last > patience:
                self.fail(f"it has said nothing for {patience:g} s")
            time.sleep(0.2)
        if self.process.returncode != 0:
            self.expect_running()
        for line in self.lines():
            if line.startswith("# failed: "):
                raise BenchError(f"scripts/pktgen/{self.options.script}.lua: "
                                 + line.removeprefix("# failed: "))
        if not any(line and not line.startswith("#") for line in self.lines()):
            self.fail("it measured nothing")


def value_of(word):
    try:
        return int(word)
    except ValueError:
        pass
    try:
        return float(word)
    except ValueError:
        return word


def parse_results(lines):
    """Rows of the script, each under the names of its columns. Those of rfc2544 are of two kinds,
    and begin with its name."""
    columns, rows = {}, []
    for line in lines:
        words = line.split()
        if line.startswith("#"):
            kind = words[1] if words[1] in ("trial", "found") else None
            columns[kind] = words[1:] if kind is None else words[2:]
            continue
        kind = words[0] if words[0] in ("trial", "found") else None
        names = columns[kind]
        words = words[kind is not None:]
        words = words[:len(names) - 1] + [" ".join(words[len(names) - 1:])]
        row = dict(zip(names, map(value_of, words)))
        rows.append(row if kind is None else {"kind": kind, **row})
    return rows


def run(options):
    if len(os.sched_getaffinity(0)) < 2:
        raise BenchError("it takes two cores, one for the gateway's worker and one for Pktgen")
    workers, cores = arguments.choose_cores(options)
    need = MEMORY_MB + bed.MEMORY_MB
    free = free_hugepages_mb()
    if free < need:
        raise BenchError(f"{free} MB of hugepages are free, {need} are needed: scripts/hugepages "
                         f"{need} reserves them")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="espgw-bench-"))
    test = bed.Bed(directory, True, cores)
    test.ring_log2 = RING_LOG2
    test.generator = pktgen = Pktgen(test, cores, options)
    progress = Progress(None)
    try:
        pktgen.start()
        gateway = test.measured = bed.Gateway(test, workers)
        gateway.start(traffic.Network(), *traffic.new_keys())
        before = gateway.state()
        pktgen.wait(gateway, progress)
        after = gateway.state()
        lines = pktgen.lines()
    finally:
        progress.end()
        test.close()
        shutil.rmtree(directory, ignore_errors=True)
    return {"machine": machine(), "script": options.script, "worker_cores": workers,
            "generator_cores": cores, "rows": parse_results(lines), "lines": lines,
            "gateway": {"received": after["received"] - before["received"],
                        "forwarded": after["forwarded"] - before["forwarded"],
                        "drops": drops_between(before, after), **worker_figures(before, after)}}


def print_result(result):
    gateway = result["gateway"]
    print(machine_line(result["machine"]))
    print(f"load:    scripts/pktgen/{result['script']}.lua; worker on {result['worker_cores']}, "
          f"Pktgen on {result['generator_cores']}, memif zero-copy\n")
    print("\n".join(result["lines"]))
    print(f"\nthe gateway, all the time: received {gateway['received']}, forwarded "
          f"{gateway['forwarded']}, {gateway['cycles_per_packet'] or 0:.0f} cycles per packet, "
          f"idle {percent(gateway['idle_share'])}")
    for reason, packets in gateway["drops"].items():
        print(f"dropped: {reason} {packets}")


def main(arguments):
    options = parser().parse_args(arguments)
    try:
        if options.size and options.script == "imix":
            raise BenchError("argument --size: not with imix, which has sizes of its own")
        if options.cores and options.cores == options.generator_cores:
            raise BenchError("argument --generator-core: it is the worker's")
        need_root("DPDK's programs share memory, and espgw makes interfaces")
        result = run(options)
    except BenchError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 1
    if options.json:
        del result["lines"]
        print(json.dumps(result, indent=2))
    else:
        print_result(result)
    return 0
