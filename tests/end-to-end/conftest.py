# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Fixtures of the end-to-end tests, which run the real espgw in network namespaces, as root:

    sudo /usr/bin/python3 -m pytest tests/end-to-end

ESPGW_BUILD names meson's build directory (by default build)."""

import os

import pytest

pytest.register_assert_rewrite("testbed", "topologies", "ike")

import testbed  # noqa: E402
from topologies import Bench, Pair  # noqa: E402


def _needs_network(item):
    return any(name in item.fixturenames for name in ("network", "module_network", "bench", "pair"))


def pytest_collection_modifyitems(items):
    if os.geteuid() == 0:
        return
    for item in items:
        if _needs_network(item):
            item.add_marker(pytest.mark.skip(reason="it makes network namespaces: needs root"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for network in testbed.networks:
            report.sections.extend(network.logs())


@pytest.fixture
def network():
    """A network of the test's own."""
    made = testbed.Network()
    yield made
    made.close()


@pytest.fixture(scope="module")
def module_network():
    made = testbed.Network()
    yield made
    made.close()


@pytest.fixture(scope="module")
def module_bench(module_network):
    return Bench(module_network).start()


@pytest.fixture
def bench(module_bench):
    """A running gateway between two raw wires, without SAs; shared by the module's tests."""
    module_bench.reset()
    yield module_bench
    assert module_bench.gateway.alive, "espgw ended during the test"


@pytest.fixture(scope="module")
def pair(module_network):
    """Two running gateways between two kernels, both tunnels up; shared by the module's tests."""
    return Pair(module_network).start()
