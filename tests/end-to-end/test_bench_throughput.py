# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""scripts/bench runs the real daemon between two memif links and accounts for every packet.

Speed is not judged here: other work shares the machine with the tests.
"""

import json
import os
import subprocess

import pytest

from testbed import ROOT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SIZE = 64
ETHERNET = 14
# 20 outer IP, 8 ESP, 8 IV, 64 + 2 trailer padded to 68, 16 ICV
FRAMES = {"encap": ETHERNET + 120, "decap": ETHERNET + SIZE}


def run_bench(*arguments, **options):
    return subprocess.run([ROOT / "scripts/bench", *arguments], capture_output=True, text=True,
                          timeout=120, check=False, **options)


@pytest.fixture(scope="module")
def result():
    done = run_bench("--size", str(SIZE), "--direction", "encap", "--direction", "both",
                     "--seconds", "1", "--no-hugepages", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(params=("encap", "both"))
def row(request, result):
    return next(row for row in result["rows"] if row["direction"] == request.param)


def test_packets_come_out_as_they_should(row):
    assert row["program"] == "espgw" and row["packets_per_second"] > 0
    for way, figures in row["directions"].items():
        total = figures["total"]
        assert total["received"] > 1000
        assert total["received_bytes"] == total["received"] * FRAMES[way]
    assert set(row["directions"]) == ({"encap", "decap"} if row["direction"] == "both"
                                      else {"encap"})


def test_every_packet_is_accounted_for(row):
    gateway = row["gateway"]["total"]
    sent = sum(figures["total"]["sent"] for figures in row["directions"].values())
    received = sum(figures["total"]["received"] for figures in row["directions"].values())
    assert gateway["received"] == sent
    assert gateway["received"] == gateway["forwarded"] + gateway["dropped"]
    # The host's own frames leave by the same ports: none, or a few.
    assert 0 <= received - gateway["forwarded"] <= 5
    # The sink shares the machine, so the gateway may find its ring full; nothing else.
    assert set(row["gateway"]["drops"]) <= {"tx_full"}


def test_the_worker_is_measured(row):
    gateway = row["gateway"]
    assert 10 < gateway["cycles_per_packet"] < 1e6
    assert 0 <= gateway["idle_share"] <= 1
    assert 0 < gateway["packets_per_burst"] <= 64
    # Rates and sizes agree.
    assert row["inner_gbit_per_second"] == pytest.approx(
        row["packets_per_second"] * SIZE * 8 / 1e9)


@pytest.mark.parametrize("arguments, words", [
    (("--size", "20"), "--size: 20"),
    (("--size", "9000"), "--size: 9000"),
    (("--direction", "up"), "--direction"),
    (("--seconds", "soon"), "--seconds: soon"),
    (("--cores", "777"), "--cores: 777"),
    (("--generator-cores", "0,0"), "--generator-cores: 0,0"),
    (("--secgw", "/nowhere/secgw"), "--secgw: /nowhere/secgw"),
    (("--velocity",), "--velocity"),
    (("speed",), "speed: no such mode"),
])
def test_a_wrong_argument_is_named(arguments, words):
    done = run_bench(*arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_missing_testpmd_is_told_with_what_to_install():
    done = run_bench("--seconds", "1", env={**os.environ, "PATH": "/nowhere"})
    assert done.returncode == 1
    assert "dpdk-testpmd" in done.stderr and "dpdk-dev" in done.stderr
