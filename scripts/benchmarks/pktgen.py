# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""scripts/bench pktgen: the whole gateway between two ports of Pktgen-DPDK. See HELP."""

import argparse
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time

from . import bed, throughput, traffic
from .common import ROOT, BenchError, Progress, machine, need_root
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
    size = throughput.size_argument(text)
    if size == "imix":
        raise argparse.ArgumentTypeError("imix: it is a script of its own")
    return size


def core_argument(text):
    cores = throughput.cores_argument(text)
    if len(cores) != 1:
        raise argparse.ArgumentTypeError(f"{text}: not one core")
    return cores


def parser():
    parse = argparse.ArgumentParser(
        prog="scripts/bench pktgen", description=HELP, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parse.add_argument
    add("pktgen", metavar="PATH", help="the program pktgen",
        type=throughput.program_argument("build Pktgen-DPDK and name its pktgen"))
    add("script", choices=SCRIPTS, metavar="SCRIPT", help="rate-sweep, rfc2544 or imix")
    add("--size", action="append", type=size_argument, metavar="BYTES",
        help=f"inner IP packet; may be repeated. By default {', '.join(SIZES)}")
    add("--seconds", type=throughput.seconds_argument, default=10.0, metavar="N",
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


class Pktgen(bed.Program):
    """Source and sink. Port 0 is at the gateway's inside, port 1 at its outside."""

    def __init__(self, test, cores, options):
        super().__init__(test, "pktgen")
        self.cores, self.options = cores, options
        self.output = test.directory / "results"
        self.telemetry = None

    def start(self):
        network = traffic.Network()
        self.bed.environment.update({
            "ESPGW_PKTGEN": str(ROOT / "scripts/pktgen"), "OUTPUT": str(self.output),
            "GATEWAY_MAC": network.inside_mac, "SOURCE": network.host,
            "TARGET": network.remote.replace("0.0/16", "0.1"), "SENDER": "0", "RECEIVER": "1",
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

    def linked(self):
        return all(self.telemetry.ask(f"/ethdev/link_status,{port}")["status"] == "UP"
                   for port in (0, 1))

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
            if gateway.process.poll() is not None:
                raise BenchError(f"espgw ended with status {gateway.process.returncode}\n"
                                 + gateway.last_words())
            if time.monotonic() - last > patience:
                raise BenchError(f"pktgen has said nothing for {patience:g} s\n"
                                 + self.last_words())
            time.sleep(0.2)
        if self.process.returncode != 0:
            raise BenchError(f"pktgen ended with status {self.process.returncode}\n"
                             + self.last_words())

    def end(self):
        if self.telemetry is not None:
            self.telemetry.close()
        super().end()


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
    workers, cores = throughput.choose_cores(options)
    need = MEMORY_MB + bed.MEMORY_MB
    free = throughput.free_hugepages_mb()
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
        gateway.start(traffic.Network(), *(traffic.Key(spi, os.urandom(36)) for spi in
                                           (throughput.SPI_OUT, throughput.SPI_IN)))
        before = gateway.state()
        pktgen.wait(gateway, progress)
        after = gateway.state()
        lines, last_words = pktgen.lines(), pktgen.last_words()
    finally:
        progress.end()
        test.close()
        shutil.rmtree(directory, ignore_errors=True)
    for line in lines:
        if line.startswith("# failed: "):
            raise BenchError(f"scripts/pktgen/{options.script}.lua: "
                             + line.removeprefix("# failed: "))
    if not any(line and not line.startswith("#") for line in lines):
        raise BenchError("Pktgen measured nothing\n" + last_words)
    return {"machine": machine(), "script": options.script, "worker_cores": workers,
            "generator_cores": cores, "rows": parse_results(lines), "lines": lines,
            "gateway": {"received": after["received"] - before["received"],
                        "forwarded": after["forwarded"] - before["forwarded"],
                        "drops": drops_between(before, after), **worker_figures(before, after)}}


def print_result(result):
    about, gateway = result["machine"], result["gateway"]
    print(f"machine: {about['cpu']}, {about['cores']} cores, TSC {about['tsc_mhz']} MHz, Linux "
          f"{about['kernel']}")
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
