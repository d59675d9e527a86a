# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""The end of a key's packets: with an agent that replaces the SA in time nothing is lost, without
one the gateway stops exactly there."""

import re
import struct

import pytest

from testbed import wait_until
from topologies import Bench, probe

LIMIT = 1024
CHUNK = 128
SOFT = LIMIT - LIMIT // 8


@pytest.fixture(scope="module")
def module_bench(module_network):
    """As everywhere, but tunnel01 and tunnel02 have few packets to a key."""
    bench = Bench(module_network)
    for tunnel in bench.gateway.config["tunnels"][:2]:
        tunnel["packets_per_key"] = LIMIT
    return bench.start()


@pytest.fixture
def control(bench):
    connection = bench.gateway.connect()
    connection.call("events.subscribe")
    yield connection
    connection.close()


def esp_numbers(frame):
    """SPI and sequence number of plain ESP over IPv4."""
    if frame[12:14] != b"\x08\x00" or frame[23] != 50:
        return None
    return struct.unpack("!II", frame[34:42])


def dealt_with(bench):
    tunnel = bench.gateway.tunnel("tunnel01")
    return tunnel["out_packets"] + tunnel["drop_total"]


def send(bench, count):
    """Sends so many packets into tunnel01, no more at a time than net_af_packet's ring holds; all
    have been dealt with when it returns. The numbers of those that left as ESP."""
    wanted = dealt_with(bench)
    packets = [probe(Bench.HOST, Bench.BEHIND["tunnel01"]) for _ in range(count)]
    for first in range(0, count, CHUNK):
        some = packets[first:first + CHUNK]
        wanted += len(some)
        bench.send_inside(*some)
        wait_until(lambda: dealt_with(bench) == wanted,
                   "the packets are sent or dropped")
    return bench.outside.collect(esp_numbers, 0.1)


def show(bench, sa):
    return bench.gateway.call("sa.show", direction="out", spi=sa.spi)["sa"]


def test_replaced_in_time_nothing_is_lost(bench, control):
    before = bench.gateway.drops()
    sas, found, since = [bench.sa_out()], [], 0
    for _ in range(64):
        found += send(bench, 64)
        since += 64
        if since < SOFT:
            continue
        event = control.event("sa.soft_expired")
        assert (event["spi"], event["limit"]) == (f"0x{sas[-1].spi:08x}", "packets")
        assert show(bench, sas[-1])["state"] == "soft-expired"
        sas.append(bench.sa_out())
        bench.gateway.call("sa.delete", direction="out", spi=sas[-2].spi)
        since = 0
    assert len(sas) == 5 and control.events == []
    used = [[number for spi, number in found if spi == sa.spi] for sa in sas]
    assert [len(numbers) for numbers in used] == [SOFT] * 4 + [64 * 64 - 4 * SOFT]
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in used)
    assert bench.gateway.drops() == before


@pytest.mark.parametrize("esn", (False, True))
def test_without_an_agent_it_stops_exactly(bench, control, esn):
    sa = bench.sa_out(esn=esn)
    before = bench.gateway.drops()
    found = send(bench, SOFT - 1)
    assert show(bench, sa)["state"] == "active" and control.events == []
    found += send(bench, 1)
    assert control.event("sa.soft_expired")["spi"] == f"0x{sa.spi:08x}"
    found += send(bench, LIMIT - SOFT - 1)
    assert show(bench, sa)["state"] == "soft-expired"
    found += send(bench, 300)
    event = control.event("sa.sequence_exhausted")
    assert event["spi"] == f"0x{sa.spi:08x}" and "limit" not in event
    assert found == [(sa.spi, number) for number in range(1, LIMIT + 1)]
    listed = show(bench, sa)
    assert (listed["state"], listed["sequence"], listed["packets"]) == \
        ("hard-expired", LIMIT, LIMIT)
    assert bench.gateway.tunnel("tunnel01")["state"] == "down"
    lines = bench.gateway.espctl("sa", "list").stdout.splitlines()
    assert re.match(rf"tunnel01 +out +0x{sa.spi:08x} +hard-expired .* {LIMIT} ", lines[1]), lines
    # Each that came too late is accounted for; once the SA is stopped, as without any.
    now = bench.gateway.drops()
    late = {reason: now[reason] - before.get(reason, 0) for reason in now
            if now[reason] != before.get(reason, 0)}
    assert set(late) <= {"sequence_exhausted", "no_sa"} and sum(late.values()) == 299, late
    assert control.event("tunnel.no_sa")["tunnel"] == "tunnel01" if "no_sa" in late else True
    with bench.gateway.dropping(no_sa=1):
        bench.send_inside(probe(Bench.HOST, Bench.BEHIND["tunnel01"]))
    # A new SA starts anew.
    new = bench.sa_out(esn=esn)
    assert send(bench, 3) == [(new.spi, number) for number in (1, 2, 3)]


def test_dropped_for_the_end_of_the_sequence(bench):
    """In the moment before control stops the SA the reason is the SA's."""
    sa = bench.sa_out()
    wanted = bench.gateway.drops().get("sequence_exhausted", 0) + 1
    send(bench, LIMIT - 20)
    bench.send_inside(*(probe(Bench.HOST, Bench.BEHIND["tunnel01"]) for _ in range(40)))
    wait_until(lambda: bench.gateway.drops().get("sequence_exhausted", 0) >= wanted,
               "sequence_exhausted is counted")
    wait_until(lambda: show(bench, sa)["state"] == "hard-expired", "the SA is stopped")


def test_the_agents_smaller_limit_wins(bench, control):
    sa = bench.sa_out(add={"lifetime": {"soft": {"packets": 100}, "hard": {"packets": 200}}})
    assert len(send(bench, 100)) == 100
    assert control.event("sa.soft_expired")["limit"] == "packets"
    assert send(bench, 300) == [(sa.spi, number) for number in range(101, 201)]
    assert control.event("sa.hard_expired")["limit"] == "packets"


def test_the_agents_larger_limit_does_not(bench, control):
    sa = bench.sa_out(add={"lifetime": {"soft": {"packets": 5000}, "hard": {"packets": 9000}}})
    assert show(bench, sa)["lifetime"] == {"soft": {"packets": SOFT}, "hard": {"packets": LIMIT}}
    assert len(send(bench, SOFT)) == SOFT
    assert control.event("sa.soft_expired")["limit"] == "packets"
    assert len(send(bench, 400)) == LIMIT - SOFT
    assert control.event("sa.hard_expired")["limit"] == "packets"


def test_other_tunnels_have_the_default(bench):
    sa = bench.sa_out("tunnel03")
    assert show(bench, sa)["lifetime"] == {"soft": {"packets": 3758096384}, "hard": {}}
    assert show(bench, bench.sa_out("tunnel03", esn=True))["lifetime"] == {"soft": {}, "hard": {}}
