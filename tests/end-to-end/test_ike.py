# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Two tunnels to AWS-like endpoints, negotiated by strongSwan."""

import itertools
import socket
import time

import pytest

from ike import AwsNetwork, IkePair, Pinger, echo
from testbed import wait_until


@pytest.fixture(scope="module")
def world(module_network):
    """AWS starts; the gateway answers. Shared by the tests that leave both tunnels up."""
    made = AwsNetwork(module_network, gateway={"dpd_delay": "2s"}, aws={"dpd_delay": "60s"}).start()
    for tunnel in made.tunnels:
        made.use(tunnel.number)
    return made


def both_tunnels_carry(world):
    for tunnel in world.tunnels:
        world.use(tunnel.number)
        before = world.gateway.espgw.tunnel(tunnel.name)
        echo(world.site, world.VPC)
        echo(world.vpc, world.SITE)
        after = world.gateway.espgw.tunnel(tunnel.name)
        assert after["state"] == "up" and after["if_id"] == tunnel.if_id
        assert after["out_packets"] - before["out_packets"] >= 20
        assert after["in_packets"] - before["in_packets"] >= 20


@pytest.mark.parametrize("aws_starts, dh", ((True, 14), (False, 14), (True, 20), (False, 20)),
                         ids=("responder", "initiator", "responder-dh20", "initiator-dh20"))
def test_both_tunnels_come_up(network, aws_starts, dh):
    """In both roles of the gateway, with both groups; both tunnels and their inside addresses
    answer."""
    world = AwsNetwork(network, aws_starts, dh,
                       gateway_start="none" if aws_starts else "start").start()
    both_tunnels_carry(world)
    for tunnel, endpoint in zip(world.tunnels, world.aws):
        sa, = world.gateway.charon.sas(tunnel.name)
        assert sa["version"] == "2" and (sa.get("initiator") == "yes") == (not aws_starts)
        assert sa["dh-group"] == {14: "MODP_2048", 20: "ECP_384"}[dh]
        assert (sa["encr-alg"], sa["encr-keysize"]) == ("AES_GCM_16", "256")
        child = world.gateway.charon.child(tunnel.name)
        assert child["encap"] == "yes"  # libipsec has it no other way
        added, = world.gateway.sas(tunnel.name, "in")
        assert added["udp_encapsulation"] == {"source_port": 4500, "destination_port": 4500}
        assert int(added["spi"], 16) == int(child["spi-in"], 16)
        world.gateway.namespace.wait_for(tunnel.aws_inside)
        echo(world.gateway.namespace, tunnel.aws_inside, 5)
        echo(endpoint.namespace, tunnel.gateway_inside, source=tunnel.aws_inside)
    # The group of the child SA counts from its first rekeying on.
    before = world.aws[0].charon.child("tunnel01")
    world.aws[0].charon.rekey("tunnel01")
    child = world.aws[0].charon.wait_rekeyed("tunnel01", before)
    assert child["dh-group"] == {14: "MODP_2048", 20: "ECP_384"}[dh]
    assert "key_seen" not in world.gateway.charon.text()


def test_plain_esp_between_two_gateways(network):
    """No NAT on the way, so no UDP; two espgw, each with charon."""
    pair = IkePair(network).start()
    echo(pair.site_a, pair.SITE_B, 20)
    echo(pair.site_b, pair.SITE_A, 20)
    for side, tunnel in itertools.product((pair.a, pair.b), pair.tunnels):
        for direction in ("in", "out"):
            sa, = side.sas(tunnel.name, direction)
            assert sa["udp_encapsulation"] is None
    before = pair.a.charon.child("tunnel01")
    with Pinger(pair.site_a, pair.SITE_B, 0.01) as pinger:
        pinger.wait_answers(20)
        pair.b.charon.rekey("tunnel01")
        pair.a.charon.wait_rekeyed("tunnel01", before)
        pinger.wait_answers(20)
    assert not pinger.lost and not pinger.duplicates


def test_wrong_psk(network):
    """No SA and no traffic by that tunnel; the other one is not harmed."""
    world = AwsNetwork(network)
    made, secret = world.aws[0].charon.connections["tunnel01"]
    world.aws[0].charon.connections["tunnel01"] = (made, {**secret, "secret": '"another"'})
    world.start(up=False)
    world.aws[0].charon.wait_log("AUTHENTICATION_FAILED", 10)
    world.gateway.wait_up("tunnel02")
    assert world.gateway.charon.sas("tunnel01") == []
    assert world.gateway.espgw.call("sa.list", tunnel="tunnel01")["sas"] == []
    assert world.gateway.espgw.tunnel("tunnel01")["state"] == "down"
    world.use(2)
    echo(world.site, world.VPC, 5)


def test_unknown_if_id(network):
    """swanctl.conf names a tunnel that espgw.conf does not have: the log says so."""
    world = AwsNetwork(network, endpoints=1, gateway_child={"if_id_in": 77, "if_id_out": 77})
    world.start(up=False)
    line = world.gateway.charon.wait_log(r"if_id.*77", 10)
    assert "KNL" in line, line
    wait_until(lambda: not world.gateway.charon.children("tunnel01"), "no child SA is left", 5)
    assert world.gateway.espgw.call("sa.list")["sas"] == []


def test_without_if_id(network):
    """The tunnel whose endpoints are the SA's addresses is taken."""
    world = AwsNetwork(network, gateway_child={"if_id_in": None, "if_id_out": None}).start()
    both_tunnels_carry(world)


def test_selectors_with_protocol_and_ports(network):
    """What charon negotiated holds for each packet: pings, and UDP to ports 7000 to 7999."""
    narrow = {"local_ts": "10.1.0.0/24", "remote_ts": "0.0.0.0/0[icmp], 0.0.0.0/0[udp/7000-7999]"}
    world = AwsNetwork(network, endpoints=1, gateway_child=narrow).start()
    echo(world.site, world.VPC, 5)
    espgw = world.gateway.espgw
    for direction in ("in", "out"):
        sa, = world.gateway.sas("tunnel01", direction)
        assert sa["selectors"] == [
            {"local": "10.1.0.0/24", "remote": "0.0.0.0/0", "protocol": 1},
            {"local": "10.1.0.0/24", "remote": "0.0.0.0/0", "protocol": 17,
             "remote_ports": {"first": 7000, "last": 7999}}]
    before = espgw.tunnel("tunnel01")["out_packets"]
    with world.site.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        with espgw.dropping(selector=3):
            for port in (6999, 7000, 7999, 8000, 53):
                udp.sendto(b"selected?", (world.VPC, port))
        assert espgw.tunnel("tunnel01")["out_packets"] - before >= 2


def test_trap_brings_the_tunnel_up(network):
    """start_action = trap: nothing is negotiated until traffic asks for it."""
    world = AwsNetwork(network, aws_starts=False, gateway_start="trap", endpoints=1)
    world.start(up=False)
    world.gateway.charon.wait_log("CHILD_SA net.*ROUTED")
    assert world.gateway.charon.sas() == []
    began = time.monotonic()
    world.site.wait_for(world.VPC, 5)
    assert time.monotonic() - began < 5
    echo(world.site, world.VPC)
    assert "acquire" in world.gateway.charon.text()
    # Once is enough: traffic meanwhile did not ask again.
    assert len(world.gateway.charon.sas()) == 1
    assert len(world.gateway.charon.children("tunnel01")) == 1
    # The trap stays when the tunnel goes.
    world.gateway.charon.terminate("tunnel01")
    wait_until(lambda: world.gateway.espgw.tunnel("tunnel01")["state"] == "down", "down")
    world.site.wait_for(world.VPC, 5)
    echo(world.site, world.VPC)


REKEYS = {
    "gateway": lambda world: world.gateway.charon.rekey("tunnel01"),
    "aws": lambda world: world.aws[0].charon.rekey("tunnel01"),
    "both": lambda world: (world.gateway.charon.rekey("tunnel01"),
                           world.aws[0].charon.rekey("tunnel01")),
}


@pytest.mark.parametrize("by", REKEYS)
def test_rekey_loses_no_ping(world, by):
    """Whoever starts it, and both at the same time."""
    world.use(1)
    with Pinger(world.site, world.VPC, 0.001) as pinger:
        pinger.wait_answers(50)
        for _ in range(3):
            before = world.gateway.charon.child("tunnel01")
            REKEYS[by](world)
            world.gateway.charon.wait_rekeyed("tunnel01", before)
            pinger.wait_answers(100)
    assert not pinger.lost and not pinger.duplicates
    out, = world.gateway.sas("tunnel01", "out")
    assert int(out["spi"], 16) == int(world.gateway.charon.child("tunnel01")["spi-out"], 16)


@pytest.mark.parametrize("side", ("gateway", "aws"))
def test_ike_rekey_loses_no_ping(world, side):
    """The IKE SA gets new keys; the child SAs move to it as they are."""
    charon = world.gateway.charon if side == "gateway" else world.aws[0].charon
    world.use(1)
    before, = charon.sas("tunnel01")
    with Pinger(world.site, world.VPC, 0.005) as pinger:
        pinger.wait_answers(20)
        charon.rekey("tunnel01", ike=True)
        wait_until(lambda: [sa["uniqueid"] for sa in charon.sas("tunnel01")
                            if sa["state"] == "ESTABLISHED"] not in ([], [before["uniqueid"]]),
                   "the new IKE SA", 10)
        pinger.wait_answers(50)
    assert not pinger.lost and not pinger.duplicates


def test_counters_reach_swanctl(world):
    """--list-sas shows the bytes and packets that the gateway counts."""
    world.use(2)
    before = world.gateway.charon.child("tunnel02")
    echo(world.site, world.VPC, 50, 0.005, 1000)
    child = world.gateway.charon.child("tunnel02")
    assert child["spi-in"] == before["spi-in"]
    for direction in ("in", "out"):
        sa, = world.gateway.sas("tunnel02", direction)
        assert int(child[f"packets-{direction}"]) - int(before[f"packets-{direction}"]) == 50
        assert int(child[f"bytes-{direction}"]) - int(before[f"bytes-{direction}"]) == 50 * 1028
        assert int(child[f"packets-{direction}"]) == sa["packets"]
        assert int(child[f"bytes-{direction}"]) == sa["bytes"]
        assert int(child[f"use-{direction}"]) <= 1  # seconds ago


def test_dpd_is_quiet_on_a_busy_tunnel(world):
    """The gateway's interval is 2 s. Traffic is proof of life; without it DPD asks."""
    charon = world.gateway.charon
    world.use(1)

    def asked(since):
        return [line for line in charon.text()[since:].splitlines() if "sending DPD request" in line
                and "<tunnel01|" in line]
    with Pinger(world.site, world.VPC, 0.05) as pinger:
        pinger.wait_answers(5)  # from here on there is proof
        since = len(charon.text())
        pinger.wait_answers(100, 15)
        assert asked(since) == []
    wait_until(lambda: asked(since), "DPD asks on an idle tunnel", 10)


def test_two_connections_do_not_share_a_tunnel(world):
    """Each tunnel's SAs have its own outer addresses."""
    for tunnel in world.tunnels:
        into, = world.gateway.sas(tunnel.name, "in")
        out, = world.gateway.sas(tunnel.name, "out")
        assert (into["source"], into["destination"]) == (tunnel.address, world.GATEWAY)
        assert (out["source"], out["destination"]) == (world.GATEWAY, tunnel.address)
        assert into["selectors"] == out["selectors"]


def test_terminate_removes_the_sas(world):
    """swanctl --terminate: AWS is told, the gateway's SAs go; AWS comes again when told."""
    world.gateway.charon.terminate("tunnel02")
    wait_until(lambda: world.gateway.espgw.tunnel("tunnel02")["sas_in"] == 0, "SAs are gone")
    assert world.gateway.espgw.tunnel("tunnel02")["state"] == "down"
    # AWS restarts on its own when its child SA was closed by the other end? No: only after DPD.
    world.aws[1].charon.initiate("tunnel02")
    world.gateway.wait_up("tunnel02")
    world.use(2)
    echo(world.site, world.VPC, 5)
