# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""A restart reopens nothing: no captured packet is accepted, no nonce is used again."""

import shutil

import pytest

import esp
from testbed import ControlError, run, ESPCTL
from topologies import Bench, probe

INNER = (Bench.BEHIND["tunnel01"], Bench.HOST)


def add(bench, sa, direction="in"):
    return bench.gateway.call("sa.add", tunnel="tunnel01", direction=direction, **sa.parameters())


@pytest.mark.parametrize("esn", (False, True), ids=("", "esn"))
def test_capture_kill_start_and_replay(network, esn):
    bench = Bench(network).start()
    sa = bench.sa_in(esn=esn)
    captured = [sa.encrypt(probe(*INNER)) for _ in range(200)]
    bench.send_outside(*captured)
    assert len(bench.inside.collect(esp.is_ip, 3, count=200)) == 200
    bench.gateway.kill()
    bench.gateway.start()
    add(bench, sa)
    bench.send_outside(*captured, *captured)
    bench.nothing_inside(0.5)
    drops = bench.gateway.drops()
    assert drops.get("replay", 0) + drops.get("too_old", 0) == 400, drops
    sent = probe(*INNER)  # what comes after is welcome
    bench.send_outside(sa.encrypt(sent))
    bench.arrives_inside(sent)


def test_orderly_restart_and_delete_close_the_window_too(network):
    bench = Bench(network).start()
    sa = bench.sa_in()
    captured = [sa.encrypt(probe(*INNER)) for _ in range(20)]
    bench.send_outside(*captured)
    assert len(bench.inside.collect(esp.is_ip, 3, count=20)) == 20
    bench.gateway.call("sa.delete", direction="in", spi=sa.spi)
    add(bench, sa)
    with bench.gateway.dropping(replay=20):
        bench.send_outside(*captured)
    bench.gateway.stop()
    bench.gateway.start()
    add(bench, sa)
    with bench.gateway.dropping(replay=20):
        bench.send_outside(*captured)
    bench.nothing_inside()


def test_an_outbound_key_serves_once(network, tmp_path):
    bench = Bench(network).start()
    out, into = bench.sa_out(), bench.sa_in()
    assert add(bench, out, "out")["already"]  # an identical one that works: no error
    bench.gateway.call("sa.delete", direction="out", spi=out.spi)
    for restart in (False, True):
        if restart:
            bench.gateway.kill()
            bench.gateway.start()
        for key_of, source, destination, direction in (
                (out, out.source, out.destination, "out"),
                (out, out.destination, out.source, "in"),
                (into, into.destination, into.source, "out")):
            sa = esp.Sa(source, destination)
            sa.key, sa.salt = key_of.key, key_of.salt
            with pytest.raises(ControlError) as refused:
                add(bench, sa, direction)
            assert refused.value.name == "key_seen"
            assert out.key.hex() not in refused.value.message
    keys = tmp_path / "keys"
    run(ESPCTL, "key", "generate", keys)
    words = ("sa", "add", "tunnel01", "out", "0x0e000001", "--keys", keys)
    assert bench.gateway.espctl(*words).returncode == 0
    bench.gateway.espctl("sa", "delete", "out", "0x0e000001")
    refused = bench.gateway.espctl(*words, check=False)
    assert refused.returncode == 1 and "used before" in refused.stderr.replace("\n", " ")


def test_without_a_record_a_known_key_is_refused(network):
    """After a reboot of the machine /run is empty, but /var/lib remembers the key."""
    bench = Bench(network).start()
    sa = bench.sa_in()
    bench.send_outside(sa.encrypt(probe(*INNER)))
    bench.inside.receive(esp.is_ip)
    bench.gateway.stop()
    shutil.rmtree(bench.gateway.directory / "run")
    bench.gateway.start()
    control = bench.gateway.control
    control.call("events.subscribe", events=["sa.no_record"])
    with pytest.raises(ControlError) as refused:
        add(bench, sa)
    assert refused.value.name == "no_record"
    assert control.event("sa.no_record")["tunnel"] == "tunnel01"
    assert bench.sa_in()  # a new key is fine


def test_the_epoch_tells_of_a_restart(network):
    bench = Bench(network).start()
    before = bench.gateway.control.hello["epoch"]
    bench.gateway.stop()
    bench.gateway.start()
    assert bench.gateway.control.hello["epoch"] != before
    assert bench.gateway.call("sa.list")["sas"] == []
