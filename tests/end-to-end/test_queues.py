# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Two queues and two workers on every port; both workers use the same SAs."""

import pytest

from topologies import Pair


@pytest.fixture(scope="module")
def wide(module_network):
    return Pair(module_network, queues=2).start()


def test_many_flows_use_both_workers_and_nothing_is_refused(wide):
    wide.iperf("-P", 8, seconds=3)
    wide.iperf("-P", 8, seconds=3, reverse=True)
    wide.site_a.ping(Pair.SITE_B, count=200, interval=0.002)
    for gateway in (wide.a, wide.b):
        port = gateway.port("lan")
        assert (port["rx_queues"], port["tx_queues"]) == (2, 2)
        assert all(queue["rx_packets"] > 100 for queue in port["queues"]), port["queues"]
        assert all(queue["tx_packets"] > 100 for queue in gateway.port("wan")["queues"])
        # Several workers number one SA's packets, so they arrive out of order: within the window.
        refused = {"replay", "too_old", "icv", "unknown_spi", "bad_frame", "sequence_exhausted"}
        assert not refused & gateway.drops().keys(), gateway.drops()


def test_no_number_is_used_twice(wide):
    sa = next(sa for sa in wide.a.call("sa.list")["sas"]
              if sa["direction"] == "out" and sa["current"] and sa["tunnel"] == "tunnel01")
    assert sa["sequence"] == sa["packets"] > 0
