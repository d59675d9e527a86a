# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""scripts/bench footprint measures memory and start. How much is not judged here: other work shares
the machine with the tests."""

import json
import os
import subprocess

import pytest

from testbed import PATIENCE, ROOT

BENCH = ROOT / "scripts/bench"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="it makes network namespaces: needs root")


def footprint(*arguments):
    return subprocess.run(["/usr/bin/python3", BENCH, "footprint", *arguments],
                          capture_output=True, text=True, timeout=100 * PATIENCE, check=False)


@needs_root
def test_memory():
    done = footprint("--only", "memory", "--count", "300", "--tunnels", "100", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) == {"memory"}
    memory = result["memory"]
    assert 10e6 < memory["idle"]["own"] < memory["idle"]["resident"]
    assert memory["idle"]["resident"] <= memory["in use"]["resident"] < 1e9
    each = memory["each"]
    assert set(each) == {"tunnel", "SA in, window 1024", "SA out", "route, IPv4 /24",
                         "route, IPv6 /48", "SA of room (max_sas)", "route of room (max_routes)"}
    # An SA's key schedule alone has 1,008 bytes; the others keep some words.
    for what, least in (("SA in, window 1024", 1008), ("SA out", 1008), ("tunnel", 200),
                        ("route, IPv4 /24", 20), ("route, IPv6 /48", 20)):
        assert least < each[what] < 100e3, what


@needs_root
def test_start():
    done = footprint("--only", "start", "--starts", "2", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) == {"start"}
    start = result["start"]
    for times in start.values():
        assert 0 < times["median"] <= times["longest"] < 20
    for earlier, later in (("socket", "sa"), ("socket", "first packet")):
        assert start[earlier]["median"] <= start[later]["median"]
    assert "ready" in start


@pytest.mark.parametrize("arguments, message", [
    (["--starts", "0"], "--starts 0: it must be from 1 to 1000"),
    (["--only", "speed"], "argument --only: invalid choice")])
def test_wrong_arguments_are_told(arguments, message):
    done = footprint(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
