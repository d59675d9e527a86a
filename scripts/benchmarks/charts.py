# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""The charts of docs/performance.md: measured by espgw-bench, drawn by gnuplot as SVG.

Each run of espgw-bench stays beside the charts as the JSON that it printed, so that they can be
drawn again without measuring."""

import json
import os
import pathlib
import subprocess
import sys

from .arguments import mode_parser
from .common import ROOT, BenchError, Progress, built, need_root

IMAGES = ROOT / "docs/images"
BURST = 32
TRIES = 5        # of a measurement that other work disturbs
EXIT_NOISE = 3   # of espgw-bench
SIZES = ("64", "256", "512", "1024", "1400")
IMIX_AT = 1620  # where on the axis of sizes IMIX stands, apart from the others
BAR = 0.22         # width of a bar, where a group of them has 1
PATHS_GAP = 0.3    # between the groups of two paths
CORES_SIZES = ("64", "imix", "1400")
PATHS = {"encap": "encapsulation", "decap": "decapsulation"}

# Colours that the colour-blind tell apart too (Okabe and Ito); the ciphers alone are dashed.
WAYS = {
    "espgw/burst": "lc rgb '#0072B2' lw 3 pt 7 ps 0.9",
    "espgw/ipsec-mb": "lc rgb '#56B4E9' lw 2 pt 9 ps 1",
    "rte_ipsec": "lc rgb '#D55E00' lw 2 pt 5 ps 0.8",
    "raw/burst": "lc rgb '#009E73' lw 2 dt (10,6) pt 6 ps 0.9",
    "raw/ipsec-mb": "lc rgb '#555555' lw 2 dt (10,6) pt 8 ps 1",
}
# What the bars of the chart by cores are: workers, SAs each way, the key's words, colour. Workers
# have SAs of their own where there are as many.
LOADS = [
    (1, 1, "1 worker, one SA", "#9ecae9"),
    (2, 1, "2 workers, one SA", "#0072B2"),
    (1, 8, "1 worker, eight SAs", "#f5d28a"),
    (2, 16, "2 workers, eight SAs each", "#E69F00"),
]

HELP = """\
Measures by espgw-bench and draws the charts of docs/performance.md into docs/images: cycles per
packet by size, and throughput by cores. What was measured is kept beside them as JSON.

Takes about half a minute on two idle cores; what was too noisy is measured again, a few times.
Needs gnuplot (Debian: gnuplot-nox)."""

EPILOGUE = """\
Examples:
  sudo scripts/bench charts
  scripts/bench charts --from docs/images              draw again what was measured
  scripts/bench charts --from run.json --output /tmp   of espgw-bench --json >run.json

Exit status: 0 drawn; 1 not; 2 the command line is wrong."""


# ---- Reports of espgw-bench ----

def file_name(report):
    load = report["load"]
    return f"workers-{load['workers']}-sas-{load['sas']}.json"


def measure(workers, sas, options):
    command = [str(built("espgw-bench")), "--json", f"--burst={BURST}", f"--workers={workers}",
               f"--sas={sas}", *(f"--path={path}" for path in PATHS)]
    if workers > 1 or sas > 1:
        command += [f"--size={size}" for size in CORES_SIZES]
    if options.rounds is not None:
        command.append(f"--rounds={options.rounds}")
    if options.hugepages:
        command.append("--hugepages")
    if options.allow_noise:
        command.append("--allow-noise")
    for _ in range(TRIES):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False)
        if done.returncode != EXIT_NOISE:
            break
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def measure_all(options):
    need_root("espgw-bench works in a network namespace of its own")
    loads = [load for load in LOADS if load[0] <= len(os.sched_getaffinity(0))]
    progress = Progress(len(loads))
    reports = []
    for workers, sas, words, _ in loads:
        progress.step(f"measuring: {words}")
        reports.append(measure(workers, sas, options))
    progress.end()
    return reports


def read_reports(names):
    files = []
    for name in map(pathlib.Path, names):
        files += sorted(name.glob("workers-*-sas-*.json")) if name.is_dir() else [name]
    if not files:
        raise BenchError(f"--from {' '.join(names)}: there are no workers-*-sas-*.json in it")
    reports = []
    for file in files:
        try:
            reports.append(json.loads(file.read_text()))
            reports[-1]["load"]["workers"], reports[-1]["rows"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchError(f"--from {file}: not what espgw-bench --json prints "
                             f"({error})") from None
    return reports


def figures(report, path, size):
    """Of the ways of a row: TSC cycles per packet. Empty where the row was not measured, or was
    too noisy."""
    for row in report["rows"]:
        if (row["path"], row["size"], row["burst"]) == (path, size, BURST):
            return {way: values["cycles"] for way, values in row["ways"].items()
                    if "cycles" in values}
    return {}


def gateway(cycles):
    """Of the gateway as it is by default on this CPU."""
    return cycles.get("espgw/burst") or cycles.get("espgw/ipsec-mb")


def find_load(reports, workers, sas):
    for report in reports:
        load = report["load"]
        if (load["workers"], load["sas"], load["cold"]) == (workers, sas, False):
            return report
    return None


# ---- Drawing ----

def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def head(title, machine):
    below = (f"{machine['cpu']}, TSC {machine['tsc_mhz']:.0f} MHz; ipsec-mb {machine['ipsec_mb']}, "
             f"{machine['ipsec_mb_architecture']}; bursts of {BURST}")
    return f"""\
set terminal svg size 920,560 dynamic font 'DejaVu Sans,Helvetica,Arial,sans-serif,14' \\
	background '#ffffff' noenhanced rounded
set encoding utf8
set title {quoted(title)} font ',18' offset 0,-0.3
set label 1 {quoted(below)} at screen 0.5,0.022 center font ',11' textcolor rgb '#444444'
set bmargin at screen 0.25
set tmargin at screen 0.89
set lmargin at screen 0.09
set rmargin at screen 0.97
set key at screen 0.53,0.092 center center horizontal maxrows 2 samplen 3 width 1
set border 3 lc rgb '#444444'
set tics nomirror out textcolor rgb '#222222'
set grid ytics lc rgb '#dddddd' lw 1
set yrange [0:*]
"""


def cycles_chart(report, path):
    """Cycles per packet by size, a line for each way."""
    lines = [head(f"Cost of {PATHS[path]}: TSC cycles per packet by size", report["machine"]),
             "set xlabel 'Inner IP packet, bytes' offset 0,0.6",
             "set ylabel 'TSC cycles per packet' offset 1,0",
             f"set xrange [0:{IMIX_AT + 90}]",
             "set xtics (" + ", ".join(f"'{size}' {size}" for size in SIZES)
             + f", 'IMIX' {IMIX_AT})",
             "set arrow 1 from 1510,graph 0 to 1510,graph 1 nohead lc rgb '#bbbbbb' dt 3"]
    plots = []
    for i, (way, style) in enumerate(WAYS.items()):
        points = [(size, figures(report, path, size).get(way)) for size in (*SIZES, "imix")]
        points = [(IMIX_AT if size == "imix" else int(size), cycles)
                  for size, cycles in points if cycles is not None]
        if not points:
            continue
        # An empty line ends a line: IMIX is no size among the others.
        lines += [f"$way{i} << EOD", *(f"{'' if at < IMIX_AT else chr(10)}{at} {cycles}"
                                       for at, cycles in points), "EOD"]
        plots.append(f"$way{i} using 1:2 with linespoints {style} title {quoted(way)}")
    return "\n".join([*lines, "plot " + ", \\\n\t".join(plots), ""]) if plots else None


def packet_rate(report, path, size):
    """Million packets a second of all workers together."""
    cycles = gateway(figures(report, path, size)) if report is not None else None
    if cycles is None:
        return None
    return report["load"]["workers"] * report["machine"]["tsc_mhz"] / cycles


def cores_groups():
    """Where each group of bars stands: (place, path, size)."""
    for i, path in enumerate(PATHS):
        for j, size in enumerate(CORES_SIZES):
            yield i * (len(CORES_SIZES) + PATHS_GAP) + j, path, size


def bar_label(text, at, rate, rows_above, colour):
    return (f"set label {quoted(text)} at {at:.3f},{rate:.3f} center offset 0,{rows_above} "
            f"font ',10' textcolor rgb '{colour}'")


def cores_chart(reports):
    """Packets a second by workers and SAs: a group of bars for each path and size."""
    loads = [(find_load(reports, workers, sas), words, colour)
             for workers, sas, words, colour in LOADS]
    loads = [load for load in loads if load[0] is not None]
    if not any(report["load"]["workers"] > 1 for report, _, _ in loads):
        return None
    machine = loads[0][0]["machine"]
    lines = [head("Throughput of the packet path by cores", machine),
             "set ylabel 'Million packets a second' offset 1,0",
             f"set xrange [-0.6:{len(PATHS) * len(CORES_SIZES) + 0.05:.2f}]",
             "set offsets 0,0,graph 0.1,0", "set style fill solid 1 noborder",
             f"set boxwidth {0.9 * BAR}"]
    bars, tics = [[] for _ in loads], []
    for place, path, size in cores_groups():
        tics.append(quoted("IMIX" if size == "imix" else f"{size} bytes") + f" {place:.2f}")
        for i, (report, _, _) in enumerate(loads):
            rate = packet_rate(report, path, size)
            if rate is None:
                continue
            at = place + (i - (len(loads) - 1) / 2) * BAR
            bars[i].append(f"{at:.3f} {rate:.3f}")
            lines.append(bar_label(f"{rate:.1f}", at, rate, 0.6, "#000000"))
            workers, sas = report["load"]["workers"], report["load"]["sas"]
            one = packet_rate(find_load(reports, 1, max(1, sas // workers)), path, size)
            if workers > 1 and one is not None:
                lines.append(bar_label(f"×{rate / one:.2f}", at, rate, 1.5, "#444444"))
    lines.append("set xtics scale 0 (" + ", ".join(tics) + ")")
    for i, words in enumerate(PATHS.values()):
        middle = i * (len(CORES_SIZES) + PATHS_GAP) + (len(CORES_SIZES) - 1) / 2
        lines.append(f"set label {quoted(words)} at {middle},graph -0.12 center")
    plots = []
    for i, (_, words, colour) in enumerate(loads):
        lines += [f"$load{i} << EOD", *bars[i], "EOD"]
        plots.append(f"$load{i} using 1:2 with boxes lc rgb '{colour}' title {quoted(words)}")
    return "\n".join([*lines, "plot " + ", \\\n\t".join(plots), ""])


def draw(script, file):
    """Puts the file in place only when it is whole."""
    unfinished = file.with_suffix(".svg.new")
    script = f"set output {quoted(str(unfinished))}\n{script}"
    try:
        done = subprocess.run(["gnuplot", "-"], input=script, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
    except FileNotFoundError:
        raise BenchError("gnuplot is not installed (Debian: apt-get install gnuplot-nox)") from None
    if done.returncode != 0 or "warning" in done.stdout.lower():
        unfinished.unlink(missing_ok=True)
        raise BenchError(f"gnuplot failed:\n{done.stdout}")
    unfinished.rename(file)


def charts_of(reports):
    """File name to gnuplot script, of what the reports suffice for."""
    scripts = {"throughput-by-cores.svg": cores_chart(reports)}
    one = find_load(reports, 1, 1)
    for path, words in PATHS.items():
        scripts[f"cycles-{words}.svg"] = cycles_chart(one, path) if one else None
    return {name: script for name, script in scripts.items() if script is not None}


def parse(arguments):
    parser = mode_parser("charts", HELP, EPILOGUE, add_help=False)
    parser.add_argument("--from", dest="files", action="append", metavar="FILE",
                        help="draw this (what espgw-bench --json printed, or a directory of it) "
                        "instead of measuring; may be repeated")
    parser.add_argument("--output", type=pathlib.Path, default=IMAGES, metavar="DIRECTORY",
                        help="where the charts go (default: docs/images)")
    parser.add_argument("--rounds", type=int, metavar="N",
                        help="rounds of each row (default: espgw-bench's)")
    parser.add_argument("--hugepages", action="store_true",
                        help="packets in hugepages (scripts/hugepages reserves them)")
    parser.add_argument("--allow-noise", action="store_true",
                        help="draw what was measured on a busy machine, too")
    parser.add_argument("-h", "--help", action="help", help="this text")
    return parser.parse_args(arguments)


def charts(options):
    reports = read_reports(options.files) if options.files else measure_all(options)
    scripts = charts_of(reports)
    if not scripts:
        raise BenchError(f"nothing to draw: no bursts of {BURST} with one worker and one SA")
    options.output.mkdir(parents=True, exist_ok=True)
    if not options.files:
        for report in reports:
            (options.output / file_name(report)).write_text(json.dumps(report, indent=1) + "\n")
    for name, script in scripts.items():
        draw(script, options.output / name)
        print(options.output / name)
    return 0


def main(arguments):
    options = parse(arguments)
    try:
        return charts(options)
    except BenchError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 1
