# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""espgw --check on the configurations that come with it, and on bad ones."""

import re

import pytest

from testbed import ESPGW, ROOT, run

FILES = sorted((ROOT / "config").glob("*.conf"))

BAD = """\
gateway = { nam = "x"; };
workers = { cores = [ 0 ]; };
ports = (
  { name = "lan"; side = "inside"; device = "net_null0"; addresses = [ "10.0.0.1/24" ]; },
  { name = "wan"; side = "outside"; device = "net_null0"; addresses = [ "203.0.113.1/24" ]; }
);
tunnels = (
  { name = "tunnel01"; gateway_endpoint = "203.0.113.1"; customer_endpoint = "198.51.100.1";
    interface_address = "169.254.244.2/30"; replay_window = 1000; }
);
routes = (
  { prefix = "192.168.192.1/26"; tunnel = "tunnel01"; },
  { prefix = "192.168.193.0/24"; tunnel = "tunnel09"; }
);
"""


def check(file):
    return run(ESPGW, "--check", file, check=False)


def test_there_are_example_configurations():
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_example_configuration_is_fine(file):
    done = check(file)
    assert done.returncode == 0, done.stderr


def test_all_errors_are_shown_with_file_and_line(tmp_path):
    file = tmp_path / "bad.conf"
    file.write_text(BAD)
    done = check(file)
    assert done.returncode == 1
    lines = {int(line) for line in re.findall(rf"^{re.escape(str(file))}:(\d+): ", done.stderr,
                                              re.M)}
    assert {1, 5, 9, 12, 13} <= lines, done.stderr
    for words in ("gateway.nam", "name", "192.168.192.0/26", "tunnel09", "replay_window"):
        assert words in done.stderr


def test_a_file_that_is_not_there_and_one_that_is_no_configuration(tmp_path):
    missing = tmp_path / "missing.conf"
    done = check(missing)
    assert done.returncode == 1 and str(missing) in done.stderr
    garbage = tmp_path / "garbage.conf"
    garbage.write_text("ports = ( {\n  name = ;\n")
    done = check(garbage)
    assert done.returncode == 1 and f"{garbage}:2" in done.stderr
