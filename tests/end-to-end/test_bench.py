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

from testbed import can_burst

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


def run_measurement(*arguments):
    """A measurement of some rounds, however noisy. The figures in JSON."""
    done = run_bench("--rounds", "5", "--allow-noise", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def ways():
    """What is measured when nothing is chosen."""
    result = run_measurement("--path", "encap", "--size", "64", "--burst", "32")
    return set(result["rows"][0]["ways"])


def packets_of_a_round(size, sharers=1):
    """As docs/performance.md has it, of each worker: half of its L2, whole bursts."""
    found = subprocess.run(["getconf", "LEVEL2_CACHE_SIZE"], capture_output=True, check=True)
    cache = (int(found.stdout or 0) or 2 << 20) // sharers
    inner = 344 if size == "imix" else int(size)
    fitting = cache // 2 // (128 + 64 + inner)  # mbuf, and a line of headers and ICV
    return max(min(fitting // 256 * 256, 768), 256)


def check_row(row):
    raw = row["ways"]["raw/ipsec-mb"]["cycles"]
    assert raw > 0
    for figures in row["ways"].values():
        cycles = figures["cycles"]
        assert 0 < figures["quartile1"] <= cycles <= figures["quartile3"], row
        spread = (figures["quartile3"] - figures["quartile1"]) / cycles
        assert figures["spread"] == pytest.approx(spread, abs=1e-3)
        assert figures["ratio"] == pytest.approx(cycles / raw, rel=1e-3)
        assert figures["over"] == pytest.approx(cycles - raw, abs=0.1)
    gateway = row["ways"].get("espgw/burst") or row["ways"]["espgw/ipsec-mb"]
    assert [row[name] for name in ("cycles", "raw", "ratio")] \
        == [gateway["cycles"], raw, gateway["ratio"]]
    widest = max(figures["spread"] for figures in row["ways"].values())
    assert row["noisy"] == (widest > 0.1)


@needs_root
def test_all_rows_as_json(ways):
    done = run_bench("--seconds", "1", "--allow-noise", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    machine = result["machine"]
    assert machine["cpu"]
    assert machine["tsc_mhz"] > 100
    assert machine["dpdk"].startswith("DPDK")
    assert machine["ipsec_mb"]
    load = {"workers": 1, "sas": 1, "routes": 10, "shared": 1, "cold": False}
    load["packets"] = packets_of_a_round("64")
    assert result["load"] == load

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
        assert row["packets"] == packets_of_a_round(row["size"])
        assert set(row["ways"]) == ways
        check_row(row)
        assert row["ways"]["espgw/ipsec-mb"]["ratio"] > 1, row


@needs_root
def test_the_gateway_with_both_ciphers_and_rte_ipsec(ways):
    assert {"espgw/ipsec-mb", "raw/ipsec-mb"} <= ways
    assert ("espgw/burst" in ways) == ("raw/burst" in ways) == can_burst()
    drivers = pathlib.Path("/usr/lib/x86_64-linux-gnu/dpdk").glob(
        "pmds-*/librte_crypto_ipsec_mb.so*"
    )
    if any(drivers):
        assert "rte_ipsec" in ways


@needs_root
def test_ways_can_be_left_out():
    row = ["--path", "decap", "--size", "64", "--burst", "32"]
    result = run_measurement("--no-rte-ipsec", "--crypto", "ipsec-mb", *row)
    assert set(result["rows"][0]["ways"]) == {"espgw/ipsec-mb", "raw/ipsec-mb"}
    if can_burst():
        result = run_measurement("--no-rte-ipsec", "--crypto", "burst", *row)
        expected = {"espgw/burst", "raw/burst", "raw/ipsec-mb"}  # the last to compare with
        assert set(result["rows"][0]["ways"]) == expected


@needs_root
@pytest.mark.parametrize(
    "arguments, load",
    [
        (["--sas", "40"], {"sas": 40, "routes": 40}),
        (["--sas", "3", "--routes", "1000"], {"sas": 3, "routes": 1000}),
        (["--routes", "1000000"], {"sas": 1, "routes": 1000000}),
        (["--sas", "8", "--shared", "3"], {"sas": 8, "shared": 3}),
        (["--cold"], {"cold": True}),
    ],
)
def test_loads(arguments, load):
    """Packets of both directions come out right, for many SAs, routes and buffers."""
    paths = ["--path", "encap", "--path", "decap", "--path", "both"]
    result = run_measurement("--size", "64", "--size", "imix", "--burst", "256", *paths, *arguments)
    assert load.items() <= result["load"].items()
    assert [row["path"] for row in result["rows"]] == ["encap"] * 2 + ["decap"] * 2 + ["both"] * 2
    for row in result["rows"]:
        check_row(row)
    if load.get("cold"):
        assert result["load"]["packets"] > 4 * 768


@needs_root
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.parametrize("sas", [1, 2, 7])
def test_two_workers(sas):
    """On one SA, or on SAs of their own; every packet comes out right, and is counted."""
    paths = ["--path", "encap", "--path", "decap", "--path", "both"]
    result = run_measurement("--workers", "2", "--sas", str(sas), "--size", "imix", *paths)
    assert result["load"]["workers"] == 2
    assert len(result["rows"]) == 6
    for row in result["rows"]:
        assert "rte_ipsec" not in row["ways"]
        check_row(row)


@needs_root
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.parametrize("shared", [False, True])
def test_two_workers_that_share_a_cache(tmp_path, shared):
    """What the kernel says of the two cores is covered by a file of the test's own."""
    row = ["--size", "256", "--size", "512", "--path", "encap", "--burst", "32"]
    bench = [BENCH, "--workers", "2", "--rounds", "5", "--allow-noise", *row, "--json"]
    script = "set -e; "
    for core in sorted(os.sched_getaffinity(0))[-2:]:
        said = tmp_path / str(core)
        said.write_text("0,1\n" if shared else f"{core}\n")
        cpu = f"/sys/devices/system/cpu/cpu{core}"
        for file in (f"{cpu}/cache/index2/shared_cpu_list", f"{cpu}/topology/thread_siblings_list"):
            if os.path.exists(file):
                script += f"mount --bind {said} {file}; "
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script + 'exec "$@"', "sh", *bench],
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for row in json.loads(done.stdout)["rows"]:
        assert row["packets"] == packets_of_a_round(row["size"], 2 if shared else 1)


@needs_root
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.parametrize("cold", [[], ["--cold"]])
def test_what_two_cores_cost_each_other(cold):
    """Sharing sends every packet in order, or it fails; the idle worker does its part."""
    sizes = ["--size", "64", "--size", "imix"]
    command = ["--cores", *sizes, *cold, "--rounds", "21", "--allow-noise"]
    done = run_bench(*command, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["machine"]["tsc_mhz"] > 0
    assert set(result["lines"]) == {"transfer", "add_alone", "add_both"}
    assert all(line["quartile1"] <= line["cycles"] <= line["quartile3"]
               for line in result["lines"].values())
    for rows in (result["order"], result["share"]):
        assert [row["size"] for row in rows] == ["64", "imix"]
    for row in result["order"]:
        assert row["undisturbed"]["packets"] <= row["all"]["packets"] == 2 * 20000 * 32
        outside = row["all"]["outside_64_128_1024_4096"]
        assert outside == sorted(outside, reverse=True)
        assert (row["all"]["latest"] >= 64) == (outside[0] > 0)
    for row in result["share"]:
        assert row["alone"]["cycles"] > 0 and row["shared"]["cycles"] > 0
        assert 0 < row["helped"] < 1
    table = run_bench(*command)
    assert table.returncode == 0, table.stderr
    assert len(table.stdout.splitlines()) == 27


@needs_root
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_noise_between_two_cores_is_refused():
    done = run_bench("--cores", "--size", "64", "--rounds", "21", "--json")
    result = json.loads(done.stdout)
    noisy = sum("cycles" not in line for line in result["lines"].values())
    noisy += sum(row["noisy"] for row in result["share"])
    assert done.returncode == (3 if noisy else 0), done.stderr
    assert (f"{noisy} of 4 figures are too noisy" in done.stderr) == (noisy > 0)
    for row in result["share"]:
        assert ("cycles" in row["shared"]) == (not row["noisy"])


@needs_root
def test_the_ciphers_of_a_cpu_without_avx512():
    done = run_bench("--avx2", "--size", "64", "--size", "1400", "--rounds", "5", "--allow-noise",
                     "--json")
    if not can_burst():
        assert done.returncode == 1 and "--avx2: this CPU lacks VAES" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["machine"]["ipsec_mb_architecture"] == "AVX2"
    assert len(result["rows"]) == 8
    for row in result["rows"]:
        assert set(row["ways"]) == {"raw/burst", "raw/ipsec-mb"}
        assert row["ways"]["raw/burst"]["ratio"] < 1, "VAES gains nothing"
    assert run_bench("--avx2", "--size", "64", "--rounds", "5", "--allow-noise").returncode == 0


@needs_root
def test_thousands_of_tunnels():
    result = run_measurement("--path", "decap", "--size", "64", "--burst", "32", "--sas", "5000")
    assert result["load"]["sas"] == 5000


@needs_root
def test_a_choice_of_rows_as_table(ways):
    done = run_bench(
        *("--path", "decap", "--size", "imix", "--size", "64", "--burst", "32"),
        *("--rounds", "5", "--allow-noise"),
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    counts = sorted({packets_of_a_round(size) for size in ("64", "imix")})
    assert f"packets of a round: {' to '.join(map(str, counts))}" in lines[3]
    header = next(i for i, line in enumerate(lines) if line.startswith("path"))
    rows = [line.split()[:5] for line in lines[header + 1 :]]
    assert [row[:4] for row in rows] == [["decap", "64", "32", "5"]] * len(ways) + [
        ["decap", "imix", "32", "5"]
    ] * len(ways)
    assert {row[4] for row in rows} == ways
    assert len({len(line) for line in lines[header:]}) == 1, "the columns are not aligned"
    assert done.stderr == "", "progress is for terminals only"


@needs_root
def test_noisy_rows_are_refused():
    """A second program on the core, so that rounds differ: it takes most of every other one."""
    core = max(os.sched_getaffinity(0))
    other = subprocess.Popen(["taskset", "-c", str(core), "sh", "-c", "while :; do :; done"])
    try:
        row = ["--path", "encap", "--size", "64", "--burst", "32", "--cold", "--rounds", "31"]
        done = run_bench("--json", "--core", str(core), *row)
        shown = run_bench("--allow-noise", "--core", str(core), *row)
        table = run_bench("--core", str(core), *row)
    finally:
        other.kill()
        other.wait()
    assert done.returncode == 3, done.stdout
    assert "1 of 1 rows are too noisy" in done.stderr
    assert "--allow-noise" in done.stderr
    (refused,) = json.loads(done.stdout)["rows"]
    assert refused["noisy"] and not {"cycles", "raw", "ratio"} & set(refused)
    for figures in refused["ways"].values():
        assert set(figures) == {"spread"}
    assert table.returncode == 3
    assert all(line.split()[5] == "noisy" for line in table.stdout.splitlines()[-2:])
    assert shown.returncode == 0
    assert "noisy" not in shown.stdout + shown.stderr


@needs_root
def test_two_at_once_do_not_meet():
    arguments = [BENCH, "--size", "64", "--burst", "32", "--seconds", "0.5", "--json"]
    arguments.append("--allow-noise")
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
        (["--path", "all"], "--path all: it must be encap, decap or both"),
        (["--crypto", "auto"], "--crypto auto: it must be burst or ipsec-mb"),
        (["--avx2", "--cores"], "--avx2: --cores measures no cipher alone"),
        (["--avx2", "--sas", "2"], "--avx2: both ciphers are measured, with one key"),
        (["--workers", "3"], "--workers 3: it must be a number from 1 to 2"),
        (["--workers", "2", "--cold"], "--cold: two workers need two SAs"),
        (["--sas", "0"], "--sas 0: it must be a number from 1 to 10000"),
        (["--routes", "9"], "--routes 9: it must be a number from 10 to 1000000"),
        (["--sas", "2", "--shared", "3"], "--shared 3: more than SAs (2)"),
        (["--sas", "20", "--routes", "10"], "--routes 10: fewer than SAs (20)"),
        (["--burst", "33"], "--burst 33: it must be 32 or 256"),
        (["--rounds", "0"], "--rounds 0: it must be a number from 1 to 20000"),
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
    options = "path size burst crypto no-rte-ipsec avx2 workers sas routes cold rounds seconds allow-noise json cores"
    for option in options.split():
        assert f"--{option} " in done.stdout
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
