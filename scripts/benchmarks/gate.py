# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""The gate: is the packet path of this tree slower than that of an earlier commit?

Two or three builds of espgw-bench take turns on one core, forwards and backwards (A B B A ...). In
each run the gateway's cycles are divided by those of the raw cipher, and in each turn the one
build's quotient by the other's. So whatever slows the machine down, for a minute or
for good, meets all builds alike and falls out. docs/performance.md tells users of it."""

import argparse
import datetime
import hashlib
import io
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from typing import NamedTuple

from .arguments import mode_parser
from .common import BUILD, ROOT, BenchError, Progress, need_root

PATHS = ("encap", "decap")
SIZES = ("64", "1400", "imix")
BURST = "32"
RAW = "raw/ipsec-mb"
PROGRAM = "app/espgw-bench/espgw-bench"
# What espgw-bench is made of. Another commit with the same of it needs no measuring.
SOURCES = ("lib", "app/espgw-bench", "app/meson.build", "meson.build", "meson_options.txt")
RECORDED = "tests/performance/ratios.json"

LIMIT = 0.10           # a path may be so much worse than in another build that takes turns with it
RECORDED_LIMIT = 0.25  # and than what was recorded on another day, perhaps another host
NARROW = 0.03          # an interval of this width around the limit is judged by its middle
CONFIDENCE = 0.9
TURNS = (8, 12)        # of all paths; then of those in doubt
SECONDS = 1.0          # of one run, about

WORSE, NOISY, SAME, BETTER, ACCEPTED = "WORSE", "too noisy", "ok", "better", "accepted"
EXIT_WORSE, EXIT_FAILED, EXIT_NOISY = 1, 2, 3

HELP = f"""\
Builds espgw-bench of this tree and of an earlier commit, lets the two take turns on one core, and
compares for each path and size the gateway's cycles divided by the raw cipher's. It fails when one
is more than {100 * LIMIT:.0f} % worse than in the earlier commit, or more than
{100 * RECORDED_LIMIT:.0f} % worse than what {RECORDED} has of this kind of machine.

Compared with: the commit before the last one that changed the packet path (HEAD, when the working
tree has changes), and the last commit that recorded ratios of another packet path, so that many
commits that land together are compared as a whole, too."""

EPILOGUE = """\
Examples:
  scripts/bench --gate
  scripts/bench --gate --base v0.1
  scripts/bench --gate --record
  scripts/bench --gate --record --accept "decapsulation checks selectors now"

Exit status: 0 no path is worse; 1 one is; 2 it could not be measured; 3 no path is known to be
worse, but some could not be judged, because the machine is too noisy."""


# ---- Comparing ----

def ratios_of(report):
    """From espgw-bench's JSON: (path, size, way) to the gateway's cycles over the raw cipher's."""
    return {(row["path"], row["size"], way): figures["cycles"] / row["ways"][RAW]["cycles"]
            for row in report["rows"] for way, figures in row["ways"].items()
            if way.startswith("espgw/") and "cycles" in figures}


def interval(values):
    """The values between which the true median lies in at least 9 of 10 cases, whatever the
    distribution: the sorted values as many places from both ends as the binomial one allows."""
    values = sorted(values)
    count = len(values)
    place, outside = 0, 2 / 2 ** count
    while outside + 2 * math.comb(count, place + 1) / 2 ** count <= 1 - CONFIDENCE:
        place += 1
        outside += 2 * math.comb(count, place) / 2 ** count
    return values[place], values[count - 1 - place]


class Change(NamedTuple):
    """Of one path, from before to now: ratios to raw, and what became of them."""
    row: tuple
    before: float
    after: float
    low: float     # interval of after / before
    middle: float
    high: float
    verdict: str


def judge(quotients, limit):
    """What the quotients of all turns (1.08: 8 % worse) say: (low, middle, high, verdict)."""
    low, high = interval(quotients)
    middle = statistics.median(quotients)
    if low > 1 + limit:
        verdict = WORSE
    elif high <= 1 + limit:
        verdict = BETTER if high < 1 / (1 + limit) else SAME
    elif high - low > NARROW:
        verdict = NOISY
    else:
        verdict = WORSE if middle > 1 + limit else SAME
    return low, middle, high, verdict


def compare(before, after, limit=LIMIT):
    """Lists of ratios_of(), one element a turn: the changes of all rows that both have."""
    changes = []
    for row in after[0]:
        turns = [(old[row], new[row]) for old, new in zip(before, after)
                 if row in old and row in new]
        if turns:
            low, middle, high, verdict = judge([new / old for old, new in turns], limit)
            changes.append(Change(row, statistics.median(old for old, _ in turns),
                                  statistics.median(new for _, new in turns),
                                  low, middle, high, verdict))
    return changes


def in_doubt(change, limit=LIMIT):
    """Whether more turns may change the verdict."""
    return change.low <= 1 + limit < change.high


# ---- Recorded ratios ----

def machine_of(report):
    """What has to be the same for ratios to be comparable from one day to another."""
    machine = report["machine"]
    return {"cpu": machine["cpu"], "model": cpu_model(),
            "cipher": f"ipsec-mb {machine['ipsec_mb']}, {machine['ipsec_mb_architecture']}"}


def cpu_model(cpuinfo="/proc/cpuinfo"):
    """Family and model: virtual machines call many processors by one name."""
    fields = dict(line.split("\t:", 1) if "\t:" in line else (line.split(":") + [""])[:2]
                  for line in pathlib.Path(cpuinfo).read_text().split("\n\n")[0].splitlines())
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    return f"family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}"


def read_recorded(file):
    if not file.exists():
        return {"accepted": None, "machines": []}
    return json.loads(file.read_text())


def recorded_for(recorded, machine):
    """Row to ratio as recorded on such a machine; None where there is none."""
    for entry in recorded["machines"]:
        if all(entry[key] == value for key, value in machine.items()):
            return {tuple(name.split()): ratio for name, ratio in entry["ratios"].items()}
    return None


def compare_recorded(ratios, after):
    return compare([ratios] * len(after), after, RECORDED_LIMIT)


def record(file, machine, after, reason):
    """Puts these ratios in the place of those of such machines; others stay."""
    recorded = read_recorded(file)
    others = [entry for entry in recorded["machines"]
              if any(entry[key] != value for key, value in machine.items())]
    ratios = {" ".join(row): round(statistics.median(turn[row] for turn in after), 3)
              for row in after[0]}
    entry = {**machine, "recorded": datetime.date.today().isoformat(), "ratios": ratios}
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"accepted": reason, "machines": [*others, entry]}, indent=1)
    file.write_text(text + "\n")


# ---- Which commits ----

class Base(NamedTuple):
    commit: str
    why: str


class History:
    """What git knows of the packet path."""

    def __init__(self, root=ROOT):
        self.root = root

    def git(self, *arguments, check=True):
        # In CI the checkout may belong to somebody else than root.
        try:
            done = subprocess.run(["git", "-c", "safe.directory=*", "-C", self.root, *arguments],
                                  capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise BenchError("git is not installed: scripts/setup installs it") from None
        if check and done.returncode != 0:
            raise BenchError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout.strip() if done.returncode == 0 else None

    def exists(self):
        return self.git("rev-parse", "HEAD", check=False) is not None

    def commit(self, name):
        return self.git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", check=False)

    def sources(self, commit):
        """Equal for commits whose packet path is the same, byte for byte."""
        return self.git("ls-tree", commit, "--", *SOURCES)

    def changed(self):
        """Whether the working tree has changes in the packet path."""
        return bool(self.git("status", "--porcelain", "--", *SOURCES))

    def commits(self, *arguments):
        return self.git("log", "--format=%H", *arguments).split()

    def previous(self):
        """The commit before the last change of the packet path, or None."""
        if self.changed():
            return self.commit("HEAD")
        changes = self.commits("--first-parent", "-1", "--", *SOURCES)
        return self.commit(f"{changes[0]}^1") if changes else None

    def last_recorded(self):
        """The last commit that recorded ratios and has another packet path than this tree."""
        here = None if self.changed() else self.sources("HEAD")
        for commit in self.commits("--", RECORDED):
            if self.sources(commit) != here and self.recorded_in(commit):
                return commit
        return None

    def recorded_in(self, commit):
        return self.git("show", f"{commit}:{RECORDED}", check=False)

    def describe(self, commit):
        return self.git("log", "-1", "--abbrev=9", "--format=%h %s", commit)

    def bases(self):
        """The commits to compare with, each packet path once."""
        found = [(self.previous(), "before the last change of the packet path"),
                 (self.last_recorded(), "last recorded")]
        bases, seen = [], set()
        for commit, why in found:
            if commit is not None and self.sources(commit) not in seen:
                seen.add(self.sources(commit))
                bases.append(Base(commit, why))
        return bases

    def unpack(self, commit, directory):
        archive = subprocess.run(["git", "-c", "safe.directory=*", "-C", self.root, "archive",
                                  commit], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(directory)


# ---- Building ----

def run_quietly(*command, **options):
    """Its words are for the one who has to mend it."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, **options)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(map(str, command))} failed:\n{done.stdout[-4000:]}")


def build_here():
    """This tree's program, in the build directory as it is configured."""
    if not (BUILD / "build.ninja").exists():
        run_quietly("meson", "setup", BUILD, ROOT)
    run_quietly("ninja", "-C", BUILD, PROGRAM)
    return BUILD / PROGRAM


def build_settings():
    """Options that were given on meson's command line, and the compiler. All else each tree
    decides for itself: its own flags are part of it."""
    text = (BUILD / "meson-private/cmd_line.txt").read_text()
    lines = text.split("[options]", 1)[1].split("[properties]", 1)[0].splitlines()
    options = ["-D" + "=".join(part.strip() for part in line.split("=", 1))
               for line in lines if "=" in line]
    targets = json.loads((BUILD / "meson-info/intro-targets.json").read_text())
    compilers = [source["compiler"] for target in targets if target["name"] == "espgw-bench"
                 for source in target["target_sources"] if source.get("compiler")]
    return options, " ".join(compilers[0])


def build_base(history, commit):
    """The program of another commit; kept in the build directory for the next time."""
    options, compiler = build_settings()
    version = subprocess.run([*compiler.split(), "--version"], capture_output=True, text=True,
                             check=True).stdout
    key = "\n".join([history.sources(commit), *options, compiler, version])
    kept = BUILD / "gate" / f"espgw-bench-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if kept.exists():
        return kept
    kept.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="espgw-gate-") as scratch:
        tree, build = pathlib.Path(scratch, "tree"), pathlib.Path(scratch, "build")
        tree.mkdir()
        history.unpack(commit, tree)
        # Without debug information it is built faster, and has the same instructions.
        run_quietly("meson", "setup", *options, "-Ddebug=false", build, tree,
                    env={**os.environ, "CC": compiler})
        run_quietly("ninja", "-C", build, PROGRAM)
        unfinished = kept.with_suffix(".new")
        shutil.copy2(build / PROGRAM, unfinished)
        unfinished.rename(kept)
    return kept


# ---- Measuring ----

def measure(program, rows, options):
    """One run; espgw-bench's JSON. Its own refusal of noisy rows is off: the gate sees from the
    turns how much a figure is worth."""
    paths, sizes = sorted({row[0] for row in rows}), sorted({row[1] for row in rows})
    seconds = options.seconds * len(paths) * len(sizes) / (len(PATHS) * len(SIZES))
    command = [str(program), "--json", "--allow-noise", "--no-rte-ipsec", "--burst", BURST,
               "--seconds", f"{seconds:.2f}", *(f"--path={path}" for path in paths),
               *(f"--size={size}" for size in sizes)]
    if options.core is not None:
        command.append(f"--core={options.core}")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def take_turns(programs, turns, rows, options, progress):
    """Each program's reports, one a turn. Every second turn goes backwards, so that a drift of the
    machine favours none."""
    reports = [[] for _ in programs]
    for turn in range(turns):
        order = range(len(programs))
        for i in order if turn % 2 == 0 else reversed(order):
            progress.step(f"turn {turn + 1} of {turns}: build {i + 1} of {len(programs)}")
            reports[i].append(measure(programs[i], rows, options))
    return reports


def keep_rows(ratios, rows):
    return [{row: turn[row] for row in turn if row[:2] in rows} for turn in ratios]


def compare_builds(programs, options):
    """programs: of the bases, then this tree's. Returns the changes for each base, this tree's
    ratios by turn, and a report of it."""
    rows = [(path, size) for path in PATHS for size in SIZES]
    progress = Progress(TURNS[0] * len(programs))
    reports = take_turns(programs, TURNS[0], rows, options, progress)
    ratios = [[ratios_of(report) for report in series] for series in reports]
    changes = [compare(before, ratios[-1]) for before in ratios[:-1]]
    doubtful = {change.row[:2] for of_base in changes for change in of_base if in_doubt(change)}
    if doubtful:
        progress.total += TURNS[1] * len(programs)
        more = take_turns(programs, TURNS[1], doubtful, options, progress)
        for i, of_base in enumerate(changes):
            changes[i] = settle(of_base, doubtful, ratios[i], ratios[-1], more[i], more[-1])
    progress.end()
    return changes, ratios[-1], reports[-1][0]


def settle(changes, doubtful, before, after, more_before, more_after):
    """The changes anew, with the further turns of rows that were in doubt."""
    before = keep_rows(before, doubtful) + [ratios_of(report) for report in more_before]
    after = keep_rows(after, doubtful) + [ratios_of(report) for report in more_after]
    anew = {change.row: change for change in compare(before, after)}
    return [anew.get(change.row, change) for change in changes]


# ---- Telling ----

def accept(changes):
    return [change._replace(verdict=ACCEPTED) if change.verdict == WORSE else change
            for change in changes]


def print_changes(title, changes):
    print(f"{title}\n")
    print(f"{'path':6} {'size':>5}  {'way':14} {'before':>7} {'after':>7} {'change':>8}"
          f"  {'90 % of chance':>18}  verdict")
    for change in changes:
        path, size, way = change.row
        span = f"{100 * (change.low - 1):+.1f} to {100 * (change.high - 1):+.1f} %"
        print(f"{path:6} {size:>5}  {way:14} {change.before:7.3f} {change.after:7.3f}"
              f" {100 * (change.middle - 1):+6.1f} %  {span:>18}  {change.verdict}")
    print()


def conclude(comparisons):
    """The last line, and the exit status."""
    verdicts = [(change.verdict, change.row) for _, changes in comparisons for change in changes]
    worse, noisy = (list(dict.fromkeys(" ".join(row) for given, row in verdicts
                                       if given == verdict)) for verdict in (WORSE, NOISY))
    if worse:
        return (f"FAILED: worse: {', '.join(worse)}. If that is meant: scripts/bench --gate "
                "--record --accept REASON", EXIT_WORSE)
    if noisy:
        return (f"too noisy to judge: {', '.join(noisy)}. Keep other work off the machine and "
                "run scripts/bench --gate again", EXIT_NOISY)
    if not verdicts:
        return "there was nothing to compare with", 0
    return "no path is worse", 0


def as_json(comparisons, text, status):
    return json.dumps({
        "conclusion": text, "status": status,
        "comparisons": [{"with": title, "rows": [
            {"path": change.row[0], "size": change.row[1], "way": change.row[2],
             **{name: getattr(change, name) for name in change._fields[1:]}}
            for change in changes]} for title, changes in comparisons]}, indent=1)


def parse(arguments):
    parser = mode_parser("--gate", HELP, EPILOGUE, add_help=False)
    parser.add_argument("--base", metavar="COMMIT", help="compare with this commit only")
    parser.add_argument("--record", action="store_true",
                        help=f"measure this tree only, and write its ratios to {RECORDED}")
    parser.add_argument("--accept", metavar="REASON",
                        help="with --record: why this tree may be slower than earlier commits; the "
                        "gate then tells what is worse and does not fail for it")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S",
                        help=f"length of one run (default: {SECONDS:.0f})")
    parser.add_argument("--core", type=int, metavar="N",
                        help="core to measure on (default: the last)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("-h", "--help", action="help", help="this text")
    options = parser.parse_args(arguments)
    if options.accept is not None and not options.record:
        parser.error("--accept goes with --record")
    if options.record and options.base is not None:
        parser.error("--record measures this tree only: leave --base out")
    if not 0.1 <= options.seconds <= 60:
        parser.error(f"--seconds {options.seconds}: it must be from 0.1 to 60")
    return options


def choose_bases(history, options):
    if options.base is not None:
        commit = history.commit(options.base)
        if commit is None:
            raise BenchError(f"--base {options.base}: there is no such commit")
        return [Base(commit, "--base")]
    if not history.exists():
        return []
    return history.bases()


def build_bases(history, options, say):
    """(base, program) of each commit to compare with. A commit that was chosen by itself, and does
    not build or run, does not fail the one that may have mended it."""
    if options.record:
        return []
    built = []
    for base in choose_bases(history, options):
        try:
            program = build_base(history, base.commit)
            trial = argparse.Namespace(seconds=0.01, core=options.core)
            measure(program, [(path, size) for path in PATHS for size in SIZES], trial)
            built.append((base, program))
        except BenchError as error:
            if options.base is not None:
                raise
            say(f"{error}\nnote: {history.describe(base.commit)} ({base.why}) can't be measured: "
                "not compared with it")
    if not built:
        say("note: there is no earlier commit with another packet path: comparing with recorded "
            "ratios only")
    return built


def compare_bases(history, bases, of_bases, recorded, say):
    """Title and changes of each base; what is worse and accepted since is marked so."""
    for base, changes in zip(bases, of_bases):
        then = json.loads(history.recorded_in(base.commit) or "{}")
        if recorded["accepted"] and recorded != then:
            say(f"note: slower than {base.commit[:9]} is accepted: {recorded['accepted']}")
            changes = accept(changes)
        yield f"{history.describe(base.commit)} ({base.why})", changes


def gate(options):
    history = History()
    say = (lambda *words: print(*words, file=sys.stderr)) if options.json else print
    here = build_here()
    built = build_bases(history, options, say)
    of_bases, after, report = compare_builds([*(program for _, program in built), here], options)
    machine, recorded = machine_of(report), read_recorded(ROOT / RECORDED)
    if options.record:
        record(ROOT / RECORDED, machine, after, options.accept)
        say(f"recorded in {RECORDED}: commit it together with the change that it belongs to")
        return 0
    comparisons = list(compare_bases(history, [base for base, _ in built], of_bases, recorded, say))
    ratios = recorded_for(recorded, machine)
    if ratios is None:
        say(f"note: {RECORDED} has nothing of such a machine ({', '.join(machine.values())}); "
            "scripts/bench --gate --record adds it")
    else:
        comparisons.append((f"recorded ratios, limit {100 * RECORDED_LIMIT:.0f} %",
                            compare_recorded(ratios, after)))
    text, status = conclude(comparisons)
    if options.json:
        print(as_json(comparisons, text, status))
        return status
    print("Cycles of the gateway divided by those of the raw cipher, medians of the turns\n")
    for title, changes in comparisons:
        print_changes(f"Compared with {title}:", changes)
    print(text)
    return status


def main(arguments):
    options = parse(arguments)
    try:
        need_root("espgw-bench works in a network namespace of its own")
        return gate(options)
    except BenchError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return EXIT_FAILED
