# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""What the modes of scripts/bench share."""

import os
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("ESPGW_BUILD", ROOT / "build")).resolve()


class BenchError(Exception):
    """Something that the user can mend; the message says how."""


class Progress:
    """One line on the terminal that tells what is going on; nothing when stderr is none."""

    def __init__(self, total):
        self.total, self.done = total, 0
        self.shown = sys.stderr.isatty()
        self.began = time.monotonic()

    def step(self, what):
        """The next of `total` steps begins; of how many is not told when that is None."""
        self.done += 1
        if self.shown:
            passed = int(time.monotonic() - self.began)
            count = "" if self.total is None else f"{self.done}/{self.total} "
            line = f"{count}{what} ({passed} s)"
            print(f"\r\033[K{line[:99]}", end="", file=sys.stderr, flush=True)

    def end(self):
        if self.shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def built(name):
    """The path of one of espgw's own programs in the build directory."""
    path = BUILD / "app" / name / name
    if not os.access(path, os.X_OK):
        raise BenchError(f"{path} is not there: build first (meson setup build && ninja -C build), "
                         "or set ESPGW_BUILD to the build directory")
    return path


def need_root(why):
    if os.geteuid() != 0:
        raise BenchError(f"run it as root: {why}")


def tsc_hz():
    """Of the time stamp counter. Linux takes its loops per jiffy from it, shown as BogoMIPS."""
    for line in open("/proc/cpuinfo", encoding="ascii", errors="replace"):
        if line.startswith("bogomips"):
            return float(line.split(":")[1]) / 2 * 1e6
    raise BenchError("/proc/cpuinfo tells no bogomips: is this an x86 machine?")


def free_hugepages_mb():
    values = dict(line.split(":") for line in open("/proc/meminfo", encoding="ascii"))
    mounted = any(line.split()[2] == "hugetlbfs" for line in open("/proc/mounts", encoding="utf-8"))
    free = int(values.get("HugePages_Free", "0"))
    return free * int(values.get("Hugepagesize", "0 kB").split()[0]) // 1024 if mounted else 0


def machine():
    """What a reader of figures has to know of the machine."""
    model = next((line.split(":")[1].strip()
                  for line in open("/proc/cpuinfo", encoding="ascii", errors="replace")
                  if line.startswith("model name")), "unknown")
    return {"cpu": model, "cores": os.cpu_count(), "tsc_mhz": round(tsc_hz() / 1e6),
            "kernel": os.uname().release}


def machine_line(about):
    return (f"machine: {about['cpu']}, {about['cores']} cores, TSC {about['tsc_mhz']} MHz, Linux "
            f"{about['kernel']}")
