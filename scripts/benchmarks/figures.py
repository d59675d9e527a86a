# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Figures from a gateway's counters."""

import statistics

from .common import tsc_hz


def spread(values):
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def worker_figures(gateway, before, after):
    """Cycles per packet and the idle share. Loops that find nothing take as long as they took
    without traffic, or a little longer, so the idle share is a lower bound and the cycles an upper
    one."""
    time_in_all = (after["time"] - before["time"]) * len(gateway.cores)
    loops = after["loops"] - before["loops"]
    busy_loops = after["busy_loops"] - before["busy_loops"]
    packets = after["received"] - before["received"]
    idle = min(1.0, (loops - busy_loops) * gateway.idle_loop_seconds / time_in_all)
    return {"cycles_per_packet": (1 - idle) * time_in_all * tsc_hz() / packets if packets else None,
            "idle_share": idle, "packets_per_burst": packets / busy_loops if busy_loops else None}


def drops_between(first, last):
    return {reason: packets - first["drops"].get(reason, 0)
            for reason, packets in last["drops"].items()
            if packets != first["drops"].get(reason, 0)}


def percent(share, digits=1):
    return "-" if share is None else f"{100 * share:.{digits}f} %"
