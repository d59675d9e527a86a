# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""scripts/bench throughput: packets a second of the whole gateway. See HELP."""

import json
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

from . import bed, live, traffic
from .arguments import (choose_cores, cores_argument, mode_parser, program_argument,
                        seconds_argument, size_argument, turns_argument)
from .common import (BenchError, Progress, free_hugepages_mb, machine, machine_line, need_root)
from .figures import drops_between, percent, spread, worker_figures

HELP = """\
Runs the real espgw between two memif links. dpdk-testpmd, on a core of its own, is source and sink:
it sends as fast as it can, packets from memory, and counts what comes back. Needs no NIC; as root.

For each size and direction it prints

  Mpps       packets a second that came out, in millions; of both directions together with `both`.
             The median of five intervals
  spread     greatest less smallest interval, in % of the median; with --turns, of one turn
  inner      Gbit/s of the inner IP packets
  wire       Gbit/s of the ESP on an Ethernet: frame, checksum, preamble and gap
  cycles     of the TSC per packet, while the worker was busy
  idle       share of the time in which the worker had no packets
  burst      packets per loop that found any
  lost       share of the packets that entered the gateway and did not come out; reasons follow
  refused    share of the packets that the generator had, for which the ring to the gateway had no
             room. It is no loss of the gateway: the generator is the faster one then, and the
             gateway is measured at its limit

Docs: docs/benchmarking.md."""

EXAMPLES = """\
examples:
  scripts/bench --size 64 --size imix --direction encap
  scripts/bench --baseline                          plain forwarding over the same links, too
  scripts/bench --secgw examples/ipsec-secgw/build/ipsec-secgw
  scripts/bench --config /etc/espgw/espgw.conf      real NICs; the generator is yours
"""

SIZES = ("64", "256", "512", "1400", "imix")
DIRECTIONS = ("encap", "decap", "both")
INTERVALS = 5
WARM_SECONDS = 1.0
HUGEPAGES_MB = 2 * bed.MEMORY_MB


def parser():
    parse = mode_parser("throughput", HELP, EXAMPLES)
    add = parse.add_argument
    add("--size", action="append", type=size_argument, metavar="BYTES",
        help="inner IP packet, or imix (64, 570 and 1400 bytes, 7:4:1); may be repeated. By "
        f"default {', '.join(SIZES)}")
    add("--direction", action="append", choices=DIRECTIONS,
        help="encap: cleartext in, ESP out; decap; both at once. May be repeated. By default all")
    add("--seconds", type=seconds_argument, default=3.0, metavar="N",
        help="how long each row is measured, after a second of warming up; by default 3")
    add("--turns", type=turns_argument, metavar="N",
        help="measure each row so often, the programs in turns, each time with processes anew, and "
        "print the turn whose Mpps are the median: for machines whose speed changes by the minute")
    add("--cores", type=cores_argument, metavar="LIST",
        help="the workers' cores, such as 2,3; by default one, core 1. As many queues as cores")
    add("--generator-cores", type=cores_argument, metavar="LIST",
        help="as many others for testpmd; by default the first ones that are no worker's")
    add("--baseline", action="store_true",
        help="measure plain forwarding (another testpmd in espgw's place), too")
    add("--secgw", metavar="PATH",
        type=program_argument("build DPDK's examples/ipsec-secgw and name what it made"),
        help="measure this build of DPDK's ipsec-secgw, too")
    add("--secgw-options", default="", metavar="WORDS",
        help="more options for it, such as '-l' for librte_ipsec's path")
    add("--config", metavar="FILE",
        help="start espgw with this configuration instead, give each tunnel a random outbound key, "
        "and measure what a generator of yours sends to it, by the gateway's counters")
    add("--no-hugepages", action="store_true",
        help="do not use hugepages; by default they are used where enough are free")
    add("--json", action="store_true", help="print JSON instead of the table")
    return parse


# ---- one row ----

def rates(first, last, link_in, link_out):
    """What came in by one link and out of the other between two looks at the generator."""
    took_in = last[link_in]["time"] - first[link_in]["time"]
    took_out = last[link_out]["time"] - first[link_out]["time"]

    def grown(link, name):
        return last[link][name] - first[link][name]
    return {"offered": grown(link_in, "offered") / took_in,
            "sent": grown(link_in, "sent") / took_in,
            "out": grown(link_out, "received") / took_out}


WAYS = {"encap": ("inside", "outside"), "decap": ("outside", "inside")}


def measure(generator, gateway, directions, seconds):
    """Intervals of rates for each direction, and the gateway's counters around all of them."""
    intervals = []
    before = gateway.state() if gateway else None
    last = generator.counters()
    for _ in range(INTERVALS):
        time.sleep(seconds / INTERVALS)
        now = generator.counters()
        intervals.append({way: rates(last, now, *WAYS[way]) for way in directions})
        last = now
    after = gateway.state() if gateway else None
    return intervals, before, after


def settle(generator):
    """Stops sending and takes in what is still under way; the totals then. testpmd stops as sink,
    too, for a moment in which the gateway may find its way out full: those drops are told apart,
    because the figures of the row end before."""
    generator.tell("stop")
    generator.tell("set fwd rxonly")
    generator.tell("start")
    last = generator.counters()
    for _ in range(50):
        time.sleep(0.1)
        now = generator.counters()
        if all(now[link][name] == last[link][name] for link in now for name in
               ("sent", "received")):
            return now
        last = now
    raise BenchError("packets still come half a second after the last one was sent")


def gigabits(size, packets_per_second):
    """Of the inner packets, and of the Ethernet that carries them as ESP."""
    sizes = traffic.sizes_of(size)
    inner = statistics.fmean(sizes)
    wire = statistics.fmean(map(traffic.esp_size, sizes)) + traffic.ETHERNET_SIZE + \
        traffic.WIRE_OVERHEAD
    return inner * 8 * packets_per_second / 1e9, wire * 8 * packets_per_second / 1e9


def direction_figures(intervals, way, totals):
    def mean(name):
        return statistics.fmean(interval[way][name] for interval in intervals)
    link_in, link_out = WAYS[way]
    offered, sent, out = mean("offered"), mean("sent"), mean("out")
    return {"packets_per_second": statistics.median(interval[way]["out"] for interval in intervals),
            "refused_share": max(0.0, 1 - sent / offered) if offered else 0.0,
            "lost_share": max(0.0, 1 - out / sent) if sent else 0.0,
            "total": {"sent": totals[link_in]["sent"], "received": totals[link_out]["received"],
                      "received_bytes": totals[link_out]["received_bytes"]}}


def gateway_figures(program, states):
    """`states`: before the first packet, before and after the intervals, after the last packet."""
    begin, before, after, end = states
    figures = worker_figures(before, after)
    received = after["received"] - before["received"]
    figures["drops"] = drops_between(before, after)
    figures["lost_share"] = sum(figures["drops"].values()) / received if received else 0.0
    figures["received"] = received
    figures["total"] = {"received": end["received"] - begin["received"],
                        "forwarded": end["forwarded"] - begin["forwarded"],
                        "dropped": sum(drops_between(begin, end).values())}
    figures["crypto"] = end["crypto"]
    return figures


def row_of(program, case, intervals, totals, states):
    size, direction, directions = case
    sums = [sum(interval[way]["out"] for way in directions) for interval in intervals]
    inner, wire = gigabits(size, statistics.median(sums))
    each = {way: direction_figures(intervals, way, totals) for way in directions}
    row = {"program": program.name, "direction": direction, "size": size,
           "intervals": sums,
           "packets_per_second": statistics.median(sums), "spread": spread(sums),
           "inner_gbit_per_second": inner, "wire_gbit_per_second": wire,
           "refused_share": max(figures["refused_share"] for figures in each.values()),
           "lost_share": max(figures["lost_share"] for figures in each.values()),
           "directions": each}
    if states is not None:
        row["gateway"] = gateway_figures(program, states)
        row["lost_share"] = row["gateway"]["lost_share"]
    return row


def run_case(make, case, options, cores, hugepages):
    """Starts the programs anew, measures, ends them."""
    size, direction, directions = case
    network = traffic.Network()
    out_key, in_key = traffic.new_keys()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="espgw-bench-"))
    test = bed.Bed(directory, hugepages, cores[1], options.secgw_options.split())
    files = {"encap": None, "decap": None}
    try:
        for way in directions:
            files[way] = directory / f"{way}.pcap"
            traffic.write_pcap(files[way], traffic.cleartext(network, size) if way == "encap"
                               else traffic.esp(network, size, in_key))
        generator = test.generator
        generator.start(files["encap"], files["decap"])
        program = test.measured = make(test, cores[0])
        program.start(network, out_key, in_key)
        program.wait_until(generator.linked, "its links come up")
        gateway = program if isinstance(program, bed.Gateway) else None
        begin = None
        if gateway:
            begin = gateway.state()
        generator.tell("start")
        time.sleep(WARM_SECONDS)
        intervals, before, after = measure(generator, gateway, directions, options.seconds)
        totals = settle(generator)
        states = (begin, before, after, gateway.state()) if gateway else None
        return row_of(program, case, intervals, totals, states)
    except BenchError as error:
        raise BenchError(f"{direction}, size {size}: {error}") from None
    finally:
        test.close()
        shutil.rmtree(directory, ignore_errors=True)


def median_turn(turns):
    """The row with the median rate (of an even number, the lower middle one), and all rates."""
    ordered = sorted(turns, key=lambda row: row["packets_per_second"])
    row = ordered[(len(ordered) - 1) // 2]
    return {**row, "turns": [turn["packets_per_second"] for turn in turns]}


def run_turns(case, makers, options, cores, hugepages, progress):
    """A row for each program."""
    rows = [[] for _ in makers]
    for turn in range(options.turns or 1):
        for make, turns in zip(makers, rows):
            which = f", turn {turn + 1}" if options.turns else ""
            progress.step(f"{case[1]}, size {case[0]}, {options.seconds:g} s{which}")
            turns.append(run_case(make, case, options, cores, hugepages))
    return list(map(median_turn, rows))


# ---- report ----

COLUMNS = (("program", 7), ("direction", 9), ("size", 5), ("Mpps", 6), ("spread", 7), ("inner", 6),
           ("wire", 6), ("cycles", 7), ("idle", 6), ("burst", 6), ("lost", 8), ("refused", 8))


def cells(row):
    gateway = row.get("gateway", {})
    cycles, burst = gateway.get("cycles_per_packet"), gateway.get("packets_per_burst")
    return (row["program"], row["direction"], row["size"],
            f"{row['packets_per_second'] / 1e6:.2f}", percent(row["spread"]),
            f"{row['inner_gbit_per_second']:.1f}", f"{row['wire_gbit_per_second']:.1f}",
            "-" if cycles is None else f"{cycles:.0f}", percent(gateway.get("idle_share")),
            "-" if burst is None else f"{burst:.1f}", percent(row["lost_share"], 2),
            percent(row["refused_share"]))


def line(words):
    return " ".join(f"{word:<{width}}" if index < 2 else f"{word:>{width}}"
                    for index, (word, (_, width)) in enumerate(zip(words, COLUMNS))).rstrip()


def print_table(result):
    load = result["load"]
    print(machine_line(result["machine"]))
    print(f"load:    workers on {load['worker_cores']}, generator on {load['generator_cores']}, "
          f"memif zero-copy, rings of {bed.DESCRIPTORS}, {'' if load['hugepages'] else 'no '}"
          "hugepages, replay window off\n")
    print(line([name for name, _ in COLUMNS]))
    for row in result["rows"]:
        print(line(cells(row)))
    if result["load"]["turns"] > 1:
        print()
        for row in result["rows"]:
            rates_of_turns = " ".join(f"{rate / 1e6:.2f}" for rate in row["turns"])
            print(f"turns of {row['program']}, {row['direction']}, {row['size']}, Mpps: "
                  f"{rates_of_turns}")
    for row in result["rows"]:
        gateway = row.get("gateway", {"drops": {}})
        for reason, packets in gateway["drops"].items():
            share = packets / gateway["received"]
            print(f"dropped by {row['program']}, {row['direction']}, {row['size']}: {reason} "
                  f"{packets} ({100 * share:.3f} %)")
    for comparison in result["comparisons"]:
        print(f"espgw / {comparison['with']}, {comparison['direction']}, {comparison['size']}: "
              f"{comparison['ratio']:.2f}")


def compare(rows):
    """espgw's rate by that of each other program, per case."""
    own = {(row["direction"], row["size"]): row for row in rows if row["program"] == "espgw"}
    return [{"with": row["program"], "direction": row["direction"], "size": row["size"],
             "ratio": own[row["direction"], row["size"]]["packets_per_second"] /
             row["packets_per_second"]}
            for row in rows if row["program"] != "espgw" and row["packets_per_second"]]


# Of these, a gateway with the user's configuration takes none.
BED_ARGUMENTS = ("size", "direction", "cores", "generator_cores", "baseline", "secgw",
                 "secgw_options", "no_hugepages", "turns")


def run_live(options):
    for name in BED_ARGUMENTS:
        if getattr(options, name):
            raise BenchError(f"argument --{name.replace('_', '-')}: not with --config, where the "
                             "configuration and your generator decide")
    return live.measure(options.config, options.seconds, INTERVALS, WARM_SECONDS)


def run(options):
    cores = choose_cores(options)
    free = 0 if options.no_hugepages else free_hugepages_mb()
    hugepages = free >= HUGEPAGES_MB
    if not hugepages and not options.no_hugepages:
        print(f"scripts/bench: {free} MB of hugepages are free, {HUGEPAGES_MB} are needed; going "
              f"on without (scripts/hugepages {HUGEPAGES_MB} reserves them)", file=sys.stderr)
    makers = [bed.Gateway]
    if options.baseline:
        makers.append(bed.Forwarder)
    if options.secgw:
        makers.append(lambda test, workers: bed.Secgw(test, workers, options.secgw))
    cases = [(size, direction, ("encap", "decap") if direction == "both" else (direction,))
             for direction in options.direction or DIRECTIONS for size in options.size or SIZES]
    progress = Progress(len(cases) * len(makers) * (options.turns or 1))
    rows = []
    try:
        for case in cases:
            rows += run_turns(case, makers, options, cores, hugepages, progress)
    finally:
        progress.end()
    return {"machine": machine(), "rows": rows, "comparisons": compare(rows),
            "load": {"worker_cores": cores[0], "generator_cores": cores[1],
                     "hugepages": hugepages, "seconds": options.seconds,
                     "turns": options.turns or 1, "replay_window": 0}}


def main(arguments):
    options = parser().parse_args(arguments)
    try:
        need_root("DPDK's programs share memory, and espgw makes interfaces")
        result = run_live(options) if options.config else run(options)
    except BenchError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(result, indent=2))
    elif options.config:
        live.print_result(result)
    else:
        print_table(result)
    return 0
