# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Figures from a gateway's counters."""

import statistics


def spread(values):
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def worker_figures(before, after):
    """Busy cycles per packet, and the share of the time in which the workers had no packets."""
    cycles = after["cycles"] - before["cycles"]
    busy = after["busy_cycles"] - before["busy_cycles"]
    busy_loops = after["busy_loops"] - before["busy_loops"]
    packets = after["received"] - before["received"]
    return {"cycles_per_packet": busy / packets if packets else None,
            "idle_share": 1 - busy / cycles if cycles else None,
            "packets_per_burst": packets / busy_loops if busy_loops else None}


def drops_between(first, last):
    return {reason: packets - first["drops"].get(reason, 0)
            for reason, packets in last["drops"].items()
            if packets != first["drops"].get(reason, 0)}


def percent(share, digits=1):
    return "-" if share is None else f"{100 * share:.{digits}f} %"
