# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Another configuration while the gateway runs: config.apply, config.reload, SIGHUP."""

import copy
import json
import signal
import time

import pytest
from scapy.layers.inet import ICMP

import esp
from probing import cross, enlarge_rings, second_addresses
from testbed import ControlError, wait_until, write_config
from topologies import Bench, Pair, probe

TUNNEL03 = {"name": "tunnel03", "gateway_endpoint": "203.0.113.1",
            "customer_endpoint": "203.0.113.4", "interface_address": "169.254.244.42/30"}


def apply(gateway, config, *options, outcome="applied"):
    """By espctl, from a file; returns the result."""
    path = gateway.directory / "new.conf"
    write_config(path, config)
    done = gateway.espctl("--json", "config", "apply", path, *options, check=False)
    result = json.loads(done.stdout)
    assert result["outcome"] == outcome, result
    assert (done.returncode == 0) == (outcome in ("applied", "checked", "unchanged"))
    return result


def state(gateway):
    """All that a failed change must leave as it is: of the gateway, and of its kernel."""
    tunnels = {tunnel["name"]: [tunnel[key] for key in (
        "if_id", "mtu", "interface_address", "customer_endpoint", "sas_in", "sas_out")]
        for tunnel in gateway.call("tunnel.list")["tunnels"]}
    # Of the neighbours' routes some come and go.
    routes = [route for route in gateway.routes() if route["origin"] != "neighbour"]
    links = {link["ifname"]: (link["mtu"], sorted(
        f"{address['local']}/{address['prefixlen']}" for address in link["addr_info"]))
        for link in json.loads(gateway.namespace.ip("-j", "address"))}
    return tunnels, routes, links, sorted(gateway.namespace.ip("-4", "route").splitlines())


@pytest.fixture(scope="module")
def bench(module_network):
    return Bench(module_network).start()


@pytest.fixture
def config(bench):
    """A copy of what runs, to be changed; afterwards the gateway is as before."""
    bench.reset()
    before = copy.deepcopy(bench.gateway.config)
    yield copy.deepcopy(before)
    apply(bench.gateway, before, outcome="applied" if bench.gateway.call(
        "config.apply", file=str(bench.gateway.file), check=True)["changes"] else "unchanged")


def find(config, name):
    return next(tunnel for tunnel in config["tunnels"] if tunnel["name"] == name)


def test_nothing_is_lost_of_what_does_not_change(network):
    pair = Pair(network)
    enlarge_rings(pair.a)
    enlarge_rings(pair.b)
    flows = second_addresses(pair)
    pair.start()
    pair.site_a.ping("192.168.192.40", 5, 0.02, 56, False, "-I", "10.1.0.130")  # neighbours
    before = copy.deepcopy(pair.a.config)
    larger = copy.deepcopy(before)
    larger["tunnels"] = [copy.deepcopy(TUNNEL03), *larger["tunnels"]]
    larger["routes"] += [{"prefix": f"10.{i}.0.0/16", "tunnel": "tunnel03"} for i in range(64, 96)]
    larger["routes"][1]["priority"] = 150  # by tunnel02, and still the second best
    find(larger, "tunnel02").update(mtu=1400, dscp=46, health={"rate": "high"})
    other_way = copy.deepcopy(before)
    other_way["routes"][0]["priority"] = 300  # what took tunnel01 takes tunnel02

    def action():
        for _ in range(4):
            for config in (larger, before, other_way, before):
                apply(pair.a, config)
                time.sleep(0.05)

    cross(network, (pair.a, pair.b), flows, 400, action)
    assert pair.a.tunnel("tunnel02")["out_packets"] > 0
    with pytest.raises(ControlError, match="no_such_tunnel"):
        pair.a.tunnel("tunnel03")


def test_a_tunnel_comes_with_all_and_goes_with_all(bench, config):
    gateway = bench.gateway
    before = state(gateway)
    without = {**copy.deepcopy(config), "tunnels": [find(config, name) for name in (
        "tunnel01", "tunnel03", "tunnel06")]}
    without["routes"] = [route for route in config["routes"] if route.get("tunnel") != "tunnel02"]
    bench.sa_in("tunnel02")
    sa = bench.sa_out("tunnel02")
    stays = bench.sa_out("tunnel03")
    gateway.call("route.add", prefix="10.77.0.0/16", tunnel="tunnel02")
    sent = probe(Bench.HOST, Bench.BEHIND["tunnel02"])
    assert sa.decrypt(bench.esp_of(sent))

    result = apply(gateway, without)
    assert result["counts"]["tunnel"]["removed"] == 1, result
    assert "tunnel02" not in gateway.namespace.ip("link")
    assert "tunnel02" not in gateway.namespace.ip("route")
    assert {sa["tunnel"] for sa in gateway.call("sa.list")["sas"]} == {"tunnel03"}
    assert gateway.routes(tunnel="tunnel02") == []
    with gateway.dropping(no_route=1):
        bench.send_inside(sent)
    # The other tunnels keep their indexes, and what goes by them.
    assert stays.decrypt(bench.esp_of(probe(Bench.HOST, Bench.BEHIND["tunnel03"])))

    apply(gateway, config)
    bench.gateway.call("sa.flush", tunnel="tunnel03")
    assert state(gateway) == before
    assert gateway.tunnel("tunnel02")["out_packets"] == 0
    again = bench.sa_out("tunnel02")
    assert again.decrypt(bench.esp_of(probe(Bench.HOST, Bench.BEHIND["tunnel02"])))
    assert gateway.tunnel("tunnel02")["out_packets"] == 1


def test_settings_of_a_tunnel_change_at_once(bench, config):
    gateway, namespace = bench.gateway, bench.gateway.namespace
    sa = bench.sa_out()
    find(config, "tunnel01")["mtu"] = 1300
    find(config, "tunnel01")["interface_address"] = "169.254.244.17/30"
    find(config, "tunnel01")["packets_per_key"] = 5000
    find(config, "tunnel02")["if_id"] = 77
    settings = {setting["name"]: (setting["before"], setting["after"], setting["effect"])
                for change in apply(gateway, config)["changes"]
                if change["name"] == "tunnel01" for setting in change["settings"]}
    assert settings == {"mtu": ("1438", "1300", "now"),
                        "interface_address": ("169.254.244.2/30", "169.254.244.17/30", "now"),
                        "packets_per_key": ("4294967295", "5000", "next_sa"),
                        "health.target": ("169.254.244.1", "169.254.244.18", "now")}
    assert gateway.tunnel("tunnel02")["if_id"] == 77
    shown = namespace.ip("address", "show", "dev", "tunnel01")
    assert "mtu 1300" in shown and "169.254.244.17/30" in shown and "169.254.244.2/" not in shown
    blocks = {route["prefix"] for route in gateway.routes(tunnel="tunnel01")}
    assert "169.254.244.16/30" in blocks and "169.254.244.0/30" not in blocks
    # The kernel's routes over it are still there.
    assert "192.168.192.0/26 dev tunnel01" in namespace.ip("route")
    sent = probe(Bench.HOST, Bench.BEHIND["tunnel01"], 1300)
    assert sa.decrypt(bench.esp_of(sent))
    bench.send_inside(probe(Bench.HOST, Bench.BEHIND["tunnel01"], 1301, flags="DF"))
    wait_until(lambda: gateway.tunnel("tunnel01")["drop_total"] > 0 or
               bench.gateway.drops().get("too_big"), "1301 bytes are too big")


def test_health_changes_at_once_and_dscp_with_the_next_sa(bench, config):
    gateway, tunnel = bench.gateway, find(config, "tunnel01")
    sa = bench.sa_out()
    assert gateway.tunnel("tunnel01")["health"] is None
    tunnel.update(dscp=46, health={"rate": "high", "down_window": 300})
    settings = {setting["name"]: setting["effect"] for change in apply(gateway, config)["changes"]
                for setting in change["settings"]}
    assert settings == {"dscp": "next_sa", "health.enabled": "now", "health.rate": "now",
                        "health.down_window": "now"}
    request = sa.decrypt(bench.outside.receive(esp.is_esp, what="a probe"))[ICMP]
    assert request.type == 8
    wait_until(lambda: gateway.tunnel("tunnel01")["health"]["state"] == "down", "nobody answers", 5)

    def priorities():
        return {(route["priority"], route["effective_priority"])
                for route in gateway.routes(tunnel="tunnel01") if route["origin"] == "config"}
    assert priorities() == {(100, 1_000_100)}
    tunnel["health"] = {"enabled": False}
    apply(gateway, config)
    assert gateway.tunnel("tunnel01")["health"] is None and priorities() == {(100, 100)}
    bench.outside.flush()
    assert bench.esp_of(probe(Bench.HOST, Bench.BEHIND["tunnel01"])).tos == 0
    bench.sa_out()
    assert bench.esp_of(probe(Bench.HOST, Bench.BEHIND["tunnel01"])).tos == 46 << 2


def test_neighbours_and_routes_by_ports_change(bench, config):
    gateway = bench.gateway
    for neighbour in config["neighbours"]:
        if neighbour["address"] == Bench.FAR["tunnel01"]:
            neighbour["mac"] = "02:00:00:00:00:99"
    config["routes"][-1]["next_hop"] = "203.0.113.98"
    config["routes"].append({"prefix": "172.30.0.0/16", "port": "lan", "next_hop": Bench.HOST})
    result = apply(gateway, config)
    assert result["counts"] == {"route": {"added": 2, "removed": 1}, "neighbour": {"changed": 1}}
    bench.sa_out()
    bench.send_inside(probe(Bench.HOST, Bench.BEHIND["tunnel01"]))
    frame = bench.outside.receive(lambda data: data[12:14] + data[23:24] == b"\x08\x00\x32" and data,
                                    what="ESP")
    assert frame[:6] == bytes.fromhex("020000000099")
    routes = gateway.namespace.ip("route")
    assert "172.31.0.0/16 via 203.0.113.98 dev wan" in routes
    assert "203.0.113.99" not in routes and "172.30.0.0/16 via 10.1.0.2 dev lan" in routes


def test_what_needs_a_restart_is_refused_by_name_and_all_at_once(bench, config):
    gateway = bench.gateway
    before = state(gateway)
    config["tunnels"].append({**TUNNEL03, "name": "tunnel09"})
    config["gateway"]["max_sas"] = 500
    config["ports"][0]["mtu"] = 1400
    config["workers"]["burst"] = 64
    path = gateway.directory / "new.conf"
    write_config(path, config)
    for options in ((), ("--check",)):
        done = gateway.espctl("config", "apply", path, *options, check=False)
        assert done.returncode == 1
        for words in ("gateway: max_sas from 1024 to 500 needs a restart",
                      "port lan: mtu from 1500 to 1400 needs a restart",
                      "workers: burst from 32 to 64 needs a restart", "nothing was changed"):
            assert words in done.stderr, done.stderr
        assert "+ tunnel tunnel09" in done.stdout
        assert "max_sas 1024 -> 500 (needs a restart)" in done.stdout
    assert state(gateway) == before


def test_a_failed_apply_leaves_all_as_it_was(bench, config):
    """The last of the new tunnels has the name of an interface that is no TUN."""
    gateway = bench.gateway
    bench.sa_in()
    before = state(gateway)
    find(config, "tunnel01")["mtu"] = 1300
    find(config, "tunnel02")["interface_address"] = "169.254.244.29/30"
    config["tunnels"].append({**TUNNEL03, "name": "tunnel08"})
    config["tunnels"].append({**TUNNEL03, "name": "veth-lan",
                              "interface_address": "169.254.244.25/30"})
    config["routes"].append({"prefix": "10.88.0.0/16", "tunnel": "tunnel08"})
    result = apply(gateway, config, outcome="failed")
    assert "veth-lan: exists, but is a veth" in result["errors"][0]
    wait_until(lambda: state(gateway) == before, "all is as it was")
    # Likewise when the kernel refuses a route, which comes after all tunnels.
    config["tunnels"].pop()
    config["routes"].append({"prefix": "172.30.0.0/16", "port": "lan", "next_hop": "10.1.0.200"})
    tunnels, routes, _, kernel_routes = before
    gateway.namespace.ip("link", "set", "lan", "down")
    result = apply(gateway, config, outcome="failed")
    assert "172.30.0.0/16: Network is down" in result["errors"][0]
    gateway.namespace.ip("link", "set", "lan", "up")

    def unchanged():
        now = state(gateway)
        return now[0] == tunnels and now[3] == kernel_routes and [
            route for route in now[1] if route["origin"] == "config"] == [
            route for route in routes if route["origin"] == "config"]
    wait_until(unchanged, "all is as it was")


def test_check_only_shows(bench, config):
    before = state(bench.gateway)
    config["tunnels"].append({**TUNNEL03, "name": "tunnel09"})
    config["routes"][0]["priority"] = 50
    path = bench.gateway.directory / "new.conf"
    write_config(path, config)
    shown = bench.gateway.espctl("config", "apply", "--check", path).stdout.splitlines()
    assert shown == ["+ tunnel tunnel09",
                     "~ route 192.168.192.0/26 by tunnel01: priority 100 -> 50",
                     "Would be applied: 1 tunnel added, 1 route changed."]
    assert state(bench.gateway) == before
    config["routes"][0]["priority"] = -1
    result = apply(bench.gateway, config, outcome="invalid")
    assert f"{path}:" in result["errors"][0] and "is too small" in result["errors"][0]


def test_sighup_reads_the_own_file_again(bench, config):
    gateway = bench.gateway
    gateway.call("events.subscribe", events=["config.applied"])
    config["routes"].append({"prefix": "10.66.0.0/16", "tunnel": "tunnel03"})
    text = gateway.file.read_text()
    try:
        write_config(gateway.file, config)
        gateway.process.send_signal(signal.SIGHUP)
        gateway.control.event("config.applied")
        assert gateway.routes(prefix="10.66.0.0/16")
        assert "configuration: route 10.66.0.0/16 by tunnel03 added" in gateway.tail()
        gateway.file.write_text("nonsense")
        gateway.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "not applied, nothing was changed" in gateway.tail(), "it is refused")
        assert gateway.routes(prefix="10.66.0.0/16")
    finally:
        gateway.file.write_text(text)
    assert "Applied: 1 route removed." in gateway.espctl("config", "reload").stdout


def test_an_index_is_used_again_only_after_the_packets_of_before(bench, config):
    """Tunnels that come and go, while the host sends into them and packets come out."""
    gateway = bench.gateway
    for i in range(30):
        apply(gateway, {**config, "tunnels": [*config["tunnels"], {
            **TUNNEL03, "name": f"new{i}"}]})
        gateway.namespace.run("ping", "-c", 3, "-i", "0.002", "-W", "0.01", "169.254.244.41",
                              check=False)
    # Not those of the tunnels that had the index before.
    assert sum(gateway.tunnel("new29")["drops"].values()) <= 3, gateway.tunnel("new29")
    names = [tunnel["name"] for tunnel in gateway.call("tunnel.list")["tunnels"]]
    assert sorted(names) == sorted([*Bench.FAR, "new29"])
