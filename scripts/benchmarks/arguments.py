# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""What the modes of scripts/bench take from the command line: checks that several of them share."""

import argparse
import os

from . import traffic
from .common import BenchError


def mode_parser(mode, text, epilog, **more):
    """The parser of a mode, without its arguments."""
    return argparse.ArgumentParser(prog=f"scripts/bench {mode}", description=text, epilog=epilog,
                                   formatter_class=argparse.RawDescriptionHelpFormatter, **more)


def size_argument(text):
    if text == "imix":
        return text
    if not text.isdecimal() or not traffic.SIZE_MIN <= int(text) <= traffic.SIZE_MAX:
        raise argparse.ArgumentTypeError(
            f"{text}: not imix, nor a number of bytes from {traffic.SIZE_MIN} to "
            f"{traffic.SIZE_MAX}")
    return str(int(text))


def turns_argument(text):
    if not text.isdecimal() or not 1 <= int(text) <= 99:
        raise argparse.ArgumentTypeError(f"{text}: not a number from 1 to 99")
    return int(text)


def seconds_argument(text):
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0.5 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text}: not a number of seconds from 0.5 to 3600")
    return seconds


def cores_argument(text):
    there = os.sched_getaffinity(0)
    words = text.split(",")
    if not all(word.isdecimal() and int(word) in there for word in words) \
            or len(set(words)) != len(words):
        raise argparse.ArgumentTypeError(
            f"{text}: not a list of different cores of this machine such as 1,2 "
            f"(there are {', '.join(map(str, sorted(there)))})")
    return [int(word) for word in words]


def program_argument(advice):
    """A check of the path of a program that the user has built."""
    def check(text):
        if not os.path.isfile(text) or not os.access(text, os.X_OK):
            raise argparse.ArgumentTypeError(
                f"{text}: no such program; {advice} (docs/benchmarking.md)")
        return os.path.abspath(text)
    return check


def choose_cores(options):
    there = sorted(os.sched_getaffinity(0))
    workers = options.cores or there[1:2] or there
    generator = options.generator_cores or \
        [core for core in there if core not in workers][:len(workers)]
    if len(generator) < len(workers):
        raise BenchError(f"argument --cores: {len(workers)} workers need as many other cores for "
                         f"the generator, and there are {len(generator)}")
    if len(generator) > len(workers):
        raise BenchError("argument --generator-cores: name as many as there are workers "
                         f"({len(workers)})")
    if set(generator) & set(workers):
        raise BenchError("argument --generator-cores: a core is a worker's")
    return workers, generator
