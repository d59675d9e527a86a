# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""espctl against a running gateway."""

import json
import re

from testbed import wait_until
from topologies import Bench, probe

LIFETIME = {"soft": {"seconds": 3000}, "hard": {"seconds": 3600}}


def test_tunnel_list(bench):
    def columns(line):
        return re.split(r"  +", line.strip())

    gateway = bench.gateway
    before = {name: gateway.tunnel(name) for name in Bench.FAR}
    bench.sa_out(add={"lifetime": LIFETIME})
    into = bench.sa_in(add={"lifetime": {"soft": {"seconds": 1500}}})
    for _ in range(3):
        bench.esp_of(probe(Bench.HOST, Bench.BEHIND["tunnel01"]))
    for _ in range(2):
        sent = probe(Bench.BEHIND["tunnel01"], Bench.HOST)
        packet = into.encrypt(sent)
        bench.send_outside(packet)
        bench.arrives_inside(sent)
    with gateway.dropping(replay=1):
        bench.send_outside(packet)
    lines = gateway.espctl("tunnel", "list").stdout.splitlines()
    assert len(lines) == 2 + 2 * len(Bench.FAR) and max(map(len, lines)) <= 132
    drops = before["tunnel01"]["drop_total"] + 1
    assert columns(lines[1]) == ["ADDRESS", "HEALTH", "LOSS", "RTT"]
    out = columns(lines[2])
    assert out[:2] == ["tunnel01", "up"] and out[4:6] == [str(drops), "out"]
    assert out[2] in ("25 min", "24 min") and out[3] in ("1 h 00 min", "59 min")
    assert out[6] == Bench.WAN
    assert int(out[8]) == before["tunnel01"]["out_packets"] + 3
    into = columns(lines[3])
    assert into[:6] == ["169.254.244.2/30", "-", "-", "-", "in", Bench.FAR["tunnel01"]]
    assert int(into[7]) == before["tunnel01"]["in_packets"] + 2
    assert all(re.fullmatch(r"\d s", words[-1]) for words in (out, into))
    down = columns(lines[4])
    assert down[:4] == ["tunnel02", "down", "-", "-"] and down[-1] == "never"
    listed = json.loads(gateway.espctl("--json", "tunnel", "list").stdout)["tunnels"]
    assert [tunnel["if_id"] for tunnel in listed] == [1, 2, 3, 4]
    assert listed[0]["rekey_in_seconds"] in range(1490, 1501)
    assert listed[0]["expiry_in_seconds"] in range(3590, 3601)
    assert listed[1]["rekey_in_seconds"] is None and listed[1]["in_age_seconds"] is None


def test_an_event_that_there_is_not(bench):
    refused = bench.gateway.espctl("events", "--event", "sa.foo", check=False)
    assert refused.returncode == 1
    assert 'there is no event "sa.foo"; there are sa.soft_expired, ' in refused.stderr
    assert refused.stderr.strip().endswith("config.applied, events.lost")
    refused = bench.gateway.espctl("events", "--event", "sa.soft_expird", check=False)
    assert 'did you mean "sa.soft_expired"?' in refused.stderr
    refused = bench.gateway.espctl("events", "--event", "x" * 40, check=False)
    assert "give the name of an event: sa.soft_expired, " in refused.stderr
    assert "xxx" not in refused.stderr


def test_ages_count(bench):
    bench.sa_out()
    wait_until(lambda: bench.gateway.tunnel("tunnel01")["out_age_seconds"] >= 1,
               "the SA is a second old", 3)
    assert bench.gateway.tunnel("tunnel01")["in_age_seconds"] is None
    bench.sa_out()  # replaces the other
    assert bench.gateway.tunnel("tunnel01")["out_age_seconds"] == 0
