# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""A thousand tunnels and fifty thousand routes: a smaller edition of what docs/performance.md
measures by hand (python3 tests/end-to-end/scale.py)."""

import json

import pytest

import scale

TUNNELS, ROUTES = 1000, 50000


@pytest.fixture(scope="module")
def gateway(module_network):
    made = scale.make(module_network, TUNNELS, ROUTES)
    scale.start(made)
    return made


def listed(gateway, *arguments):
    group = arguments[0]
    shown = gateway.espctl("--json", *arguments).stdout
    return json.loads(shown)[f"{group}s"]


def test_all_is_there(gateway):
    assert len(listed(gateway, "tunnel", "list")) == TUNNELS
    assert len(gateway.routes(origin="config")) == ROUTES
    of_kernel = gateway.namespace.ip("route", "show", "proto", "229").splitlines()
    assert len(of_kernel) == ROUTES


def test_lists_are_filtered_and_sorted(gateway):
    names = [tunnel["name"] for tunnel in listed(gateway, "tunnel", "list", "--name", "t99*")]
    assert names == ["t99", *(f"t{i}" for i in range(990, 1000))]
    assert listed(gateway, "tunnel", "list", "--state", "up") == []
    assert len(listed(gateway, "tunnel", "list", "--state", "down", "--limit", "3")) == 3
    within = listed(gateway, "route", "list", "--prefix", "20.1.4.0/22")
    assert [route["prefix"] for route in within] == [f"20.1.{i}.0/24" for i in range(4, 8)]
    of_one = listed(gateway, "route", "list", "--tunnel", "t7", "--prefix", "20.0.0.0/8")
    assert len(of_one) == ROUTES // TUNNELS
    table = gateway.espctl("route", "list", "--limit", "30").stdout.splitlines()
    assert table[0].startswith("PREFIX") and table[-1] == "30 routes" and len(table) == 32
    wrong = gateway.espctl("tunnel", "list", "--sort", "size", check=False)
    assert wrong.returncode == 2 and "drops, out, in or name" in wrong.stderr


def test_one_change_among_many(gateway):
    """A route and a tunnel go, and come again."""
    text = gateway.file.read_text()
    fewer = text.replace(', { prefix = "20.0.7.0/24"; tunnel = "t7"; }', "")
    assert fewer != text
    path = gateway.directory / "new.conf"
    path.write_text(fewer)
    applied = gateway.espctl("config", "apply", path).stdout
    assert applied == "- route 20.0.7.0/24 by t7\nApplied: 1 route removed.\n"
    assert "20.0.7.0/24" not in gateway.namespace.ip("route", "show", "dev", "t7")
    assert gateway.espctl("config", "reload").stdout.endswith("Applied: 1 route added.\n")
    assert "20.0.7.0/24" in gateway.namespace.ip("route", "show", "dev", "t7")
