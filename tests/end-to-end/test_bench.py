# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""espgw-bench runs, finds its packets right, and prints what its readers expect.

Speed is not judged here: other work shares the machine with the tests.
"""

import json
import os
import pathlib
import subprocess

import pytest

BUILD = pathlib.Path(os.environ.get("ESPGW_BUILD", "build"))
BENCH = BUILD / "app" / "espgw-bench" / "espgw-bench"

pytestmark = pytest.mark.skipif(
    not BENCH.exists(), reason="espgw-bench is not built (meson option benchmarks)"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def run_bench(*arguments):
    return subprocess.run(
        [BENCH, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@needs_root
def test_all_rows_as_json():
    done = run_bench("--seconds", "1", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    machine = result["machine"]
    assert machine["cpu"]
    assert machine["tsc_mhz"] > 100
    assert machine["dpdk"].startswith("DPDK")
    assert machine["ipsec_mb"]
    assert machine["buffers"] >= 512

    expected = {
        (path, size, burst)
        for path in ("encap", "decap")
        for size in ("64", "256", "512", "1024", "1400", "imix")
        for burst in (32, 256)
    }
    rows = result["rows"]
    assert len(rows) == len(expected)
    assert {(row["path"], row["size"], row["burst"]) for row in rows} == expected
    for row in rows:
        assert row["rounds"] >= 11
        assert row["raw"] > 0
        assert row["ratio"] > 1, row
        assert row["ratio"] == pytest.approx(row["cycles"] / row["raw"], rel=1e-3)
        assert row["over"] == pytest.approx(row["cycles"] - row["raw"], abs=0.1)


@needs_root
def test_a_choice_of_rows_as_table():
    done = run_bench(
        "--path", "decap", "--size", "imix", "--size", "64", "--burst", "32", "--rounds", "5"
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("path"))
    assert [line.split()[:4] for line in lines[header + 1 :]] == [
        ["decap", "64", "32", "5"],
        ["decap", "imix", "32", "5"],
    ]
    assert len({len(line) for line in lines[header:]}) == 1, "the columns are not aligned"
    assert done.stderr == "", "progress is for terminals only"


@needs_root
def test_two_at_once_do_not_meet():
    arguments = [BENCH, "--size", "64", "--burst", "32", "--seconds", "0.5", "--json"]
    runs = [
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for run in runs:
        output, errors = run.communicate(timeout=60)
        assert run.returncode == 0, errors
        assert len(json.loads(output)["rows"]) == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--size", "65"], "--size 65: it must be 64, 256, 512, 1024, 1400 or imix"),
        (["--path", "both"], "--path both: it must be encap or decap"),
        (["--burst", "33"], "--burst 33: it must be 32 or 256"),
        (["--rounds", "0"], "--rounds 0: it must be a number from 1 to 100000"),
        (["--seconds", "x"], "--seconds x: it must be a number from 0.01 to 3600"),
        (["more"], "more: unknown argument"),
    ],
)
def test_wrong_arguments_are_told(arguments, message):
    done = run_bench(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "--help" in done.stderr


def test_help():
    done = run_bench("--help")
    assert done.returncode == 0
    for option in ("--path", "--size", "--burst", "--rounds", "--seconds", "--json"):
        assert option in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 100


@needs_root
def test_without_root_it_says_so():
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", BENCH, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 127 or "failed to execute" in done.stderr:
        pytest.skip("another user may not read the build directory")
    assert done.returncode == 1
    assert "run it as root" in done.stderr
    assert done.stdout == ""
