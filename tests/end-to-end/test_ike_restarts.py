# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Any of the parts ends, stalls or comes back: gateway, charon, AWS."""

import shutil
import signal
import time

from ike import AwsNetwork, IkePair, Pinger, Relay, echo, is_esp
from testbed import PATIENCE, wait_until


def spis(world, name, direction):
    return {sa["spi"] for sa in world.gateway.sas(name, direction)}


def one_pair_each(world):
    """Until every tunnel has one SA each way, those that charon has."""
    def settled():
        for tunnel in world.tunnels:
            children = world.gateway.charon.children(tunnel.name)
            if len(children) != 1:
                return False
            for direction in ("in", "out"):
                wanted = {f"0x{int(children[0][f'spi-{direction}'], 16):08x}"}
                if spis(world, tunnel.name, direction) != wanted:
                    return False
        return True
    # 20: strangers are kept for 10 s, for packets by them that are on their way.
    wait_until(settled, "one SA each way and tunnel, known to charon", 20, 0.1)


def both_carry(world):
    for tunnel in world.tunnels:
        world.use(tunnel.number)
        echo(world.site, world.VPC)


def network_of(network, gateway_settings=None, **options):
    """Rekeyed SAs of the gateway's side go after 1 s instead of 5."""
    return AwsNetwork(network, gateway_settings={"delete_rekeyed_delay": 1,
                                                 **(gateway_settings or {})}, **options)


def tap(world):
    """What the plugin asks of the gateway, from the start on."""
    gateway = world.gateway
    relay = world.network.keep(Relay(gateway.espgw.directory / "relay.sock",
                                     gateway.espgw.config["gateway"]["control_socket"]))
    gateway.charon.settings["plugins"]["kernel-espgw"]["socket"] = relay.path
    return relay


def back_within(pinger, seconds):
    """Traffic is back so soon after now."""
    now = time.time()
    wait_until(lambda: pinger.first_after(now), "traffic is back", seconds, 0.01)
    assert pinger.first_after(now) - now < seconds * PATIENCE


def test_gateway_killed_and_started(network):
    """Inbound SAs come back; outbound keys never come again but are replaced; traffic is back
    within 3 s."""
    world = network_of(network)
    relay = tap(world)
    world.start()
    both_carry(world)
    world.use(1)
    inbound = {spi for tunnel in world.tunnels for spi in spis(world, tunnel.name, "in")}
    with Pinger(world.site, world.VPC, 0.01) as pinger:
        pinger.wait_answers(50)
        world.gateway.espgw.kill()
        before = {direction: relay.added(direction) for direction in ("in", "out")}
        world.gateway.espgw.start()
        back_within(pinger, 3)
        pinger.wait_answers(20)
    assert pinger.lost  # it was away
    again = relay.added("in")[len(before["in"]):]
    keys = {sa["spi"]: sa["key"] for sa in before["in"]}
    assert {sa["spi"] for sa in again if keys.get(sa["spi"]) == sa["key"]} == inbound
    one_pair_each(world)
    both_carry(world)
    keys = [sa["key"] for sa in relay.added("out")]
    assert len(keys) >= 4 and len(keys) == len(set(keys))


def test_gateway_away_for_longer_than_ike(network):
    """charon has given its peers up meanwhile; traffic is back within 3 s of the gateway being
    ready nevertheless."""
    # Only one side restarts, or there would be two IKE SAs.
    world = network_of(network, aws_starts=False, aws={"dpd_delay": "60s"}, gateway_start="start",
                       gateway={"dpd_delay": "1s"})
    relay = tap(world)
    world.start()
    both_carry(world)
    world.use(1)
    with Pinger(world.site, world.VPC, 0.01) as pinger:
        pinger.wait_answers(20)
        since = len(world.gateway.charon.text())
        world.gateway.espgw.kill()
        for tunnel in world.tunnels:
            world.gateway.charon.wait_log(rf"<{tunnel.name}\|.*giving up after", 15, since)
        world.gateway.espgw.start()
        back_within(pinger, 3)
    one_pair_each(world)
    both_carry(world)
    keys = [sa["key"] for sa in relay.added("out")]
    assert len(keys) == len(set(keys))


def test_gateway_without_replay_records(network):
    """As after a reboot of the machine's /run alone: inbound keys are refused, and replaced."""
    world = network_of(network).start()
    both_carry(world)
    world.use(1)
    old = spis(world, "tunnel01", "in")
    with Pinger(world.site, world.VPC, 0.01) as pinger:
        pinger.wait_answers(20)
        world.gateway.espgw.kill()
        shutil.rmtree(world.gateway.espgw.directory / "run")
        world.gateway.espgw.start()
        back_within(pinger, 3)
        assert not spis(world, "tunnel01", "in") & old
    assert "no_record" in world.gateway.charon.text()
    one_pair_each(world)
    both_carry(world)


def test_charon_starts_before_the_gateway(network):
    """The order of starting does not matter."""
    world = network_of(network, aws_starts=False, gateway_start="start")
    world.gateway.charon.start()
    world.gateway.charon.wait_log("no connection to espgw")
    for endpoint in world.aws:
        endpoint.start()
    world.answer_by(1)
    world.gateway.espgw.start()
    world.wait_up(15)
    both_carry(world)
    one_pair_each(world)


def test_hard_lifetime_ends_and_recreates(network):
    """Nobody rekeys: at the hard limit charon deletes the SAs, and negotiates new ones."""
    world = network_of(network, endpoints=1, gateway_child={"rekey_time": "0s", "life_time": "2s"})
    world.start()
    old = spis(world, "tunnel01", "in")
    world.use(1)
    with Pinger(world.site, world.VPC, 0.01) as pinger:
        wait_until(lambda: world.gateway.charon.children("tunnel01")
                   and not spis(world, "tunnel01", "in") & old, "other SAs", 15)
        pinger.wait_answers(20)


def test_aws_does_not_answer_a_rekeying(network):
    """AWS does not answer when it is time to rekey. At the hard limit nothing is sent any more;
    when AWS answers again, new SAs are there at once."""
    world = network_of(network, endpoints=1, gateway_settings={"retransmit_tries": 20,
                                                               "retransmit_limit": 1},
                       gateway_child={"rekey_time": "2s", "life_time": "4s", "rand_time": "0s"},
                       gateway={"dpd_delay": "60s"}).start()
    world.use(1)
    outside = network.wire(world.internet, "to-gateway")
    with Pinger(world.site, world.VPC, 0.02) as pinger:
        pinger.wait_answers(10)
        world.internet.ip("link", "set", "to-aws1", "down")
        wait_until(lambda: world.gateway.espgw.drops().get("no_sa")
                   or world.gateway.espgw.drops().get("sa_expired"), "the SA has ended", 8)
        outside.flush()
        outside.nothing(is_esp, 0.3)
        world.internet.ip("link", "set", "to-aws1", "up")
        back_within(pinger, 3)


def test_captured_packets_are_replays_after_a_restart(network):
    """What passed before the kill does not pass again, by the inbound SA that came back."""
    world = network_of(network, endpoints=1).start()
    world.use(1)
    outside, inside = network.wire(world.internet, "to-aws1"), network.wire(world.site, "eth0")
    gate = network.wire(world.internet, "to-gateway")
    echo(world.site, world.VPC, 50)
    captured = [frame for frame in outside.frames(0) if is_esp(frame)]
    assert len(captured) == 50
    world.internet.ip("link", "set", "to-aws1", "down")  # no rekeying meanwhile
    world.gateway.espgw.kill()
    world.gateway.espgw.start()
    wait_until(lambda: world.gateway.sas("tunnel01", "in"), "the inbound SA is back", 5)
    old, = world.gateway.sas("tunnel01", "in")
    assert old["sequence"] >= 50 and world.gateway.sas("tunnel01", "out") == []
    inside.flush()
    with world.gateway.espgw.dropping(replay=50):
        gate.send(*captured)
    assert not [frame for frame in inside.frames(0) if b"\x08\x00" == frame[12:14]]
    world.internet.ip("link", "set", "to-aws1", "up")
    world.site.wait_for(world.VPC, 10)
    one_pair_each(world)


def test_charon_killed_and_started(network):
    """Traffic goes on without charon. When it comes back it negotiates anew, and what it does not
    know is deleted after the new SAs are in."""
    world = network_of(network, aws_starts=False, gateway_start="start").start()
    both_carry(world)
    world.use(1)
    old = {tunnel.name: spis(world, tunnel.name, "in") for tunnel in world.tunnels}
    with Pinger(world.site, world.VPC, 0.01) as pinger:
        pinger.wait_answers(20)
        world.gateway.charon.kill()
        pinger.wait_answers(100)
        assert not pinger.lost
        world.gateway.charon.start()
        for tunnel in world.tunnels:
            wait_until(lambda: spis(world, tunnel.name, "in") - old[tunnel.name],
                       f"new SAs of {tunnel.name}", 10)
        pinger.wait_answers(50)
    one_pair_each(world)
    # INITIAL_CONTACT has AWS drop the old SAs a round trip before the gateway has the new ones.
    assert len(pinger.lost) <= 10, pinger.lost
    assert not pinger.duplicates
    for tunnel in world.tunnels:
        assert not spis(world, tunnel.name, "in") & old[tunnel.name]
    both_carry(world)


def test_charon_restarts_where_aws_starts(network):
    """charon comes back and knows nothing, and it is not the one that starts. The old SAs carry
    traffic until AWS wants to rekey, gets no answer and starts anew."""
    world = network_of(network, endpoints=1).start()
    world.use(1)
    old = spis(world, "tunnel01", "in")
    with Pinger(world.site, world.VPC, 0.01) as pinger:
        pinger.wait_answers(20)
        world.gateway.charon.kill()
        world.gateway.charon.start()
        pinger.wait_answers(100)
        assert not pinger.lost
        assert spis(world, "tunnel01", "in") == old
        world.aws[0].charon.rekey("tunnel01")
        wait_until(lambda: spis(world, "tunnel01", "in") - old, "new SAs", 15)
        pinger.wait_answers(20)
    wait_until(lambda: len(spis(world, "tunnel01", "out")) == 1, "the old outbound SA is gone")


def test_charon_stopped_in_good_order(network):
    """It tells AWS, and takes its SAs with it: nothing is left behind that works by itself."""
    world = network_of(network, endpoints=1).start()
    world.use(1)
    world.gateway.charon.stop()
    wait_until(lambda: world.gateway.espgw.call("sa.list")["sas"] == [], "no SA is left", 5)
    world.aws[0].charon.wait_log("received DELETE for IKE_SA")


def test_everything_restarts(network):
    """The machine is switched off and on: /run is empty, the key store is not."""
    world = network_of(network, aws_starts=False, gateway_start="start").start()
    both_carry(world)
    world.gateway.charon.kill()
    world.gateway.espgw.kill()
    shutil.rmtree(world.gateway.espgw.directory / "run")
    world.gateway.start()
    world.wait_up(10)
    both_carry(world)
    one_pair_each(world)


def test_gateway_killed_between_two_gateways(network):
    """The far side is an espgw too, and ESP is plain."""
    pair = IkePair(network).start()
    for side, site, far in ((pair.a, pair.site_a, pair.SITE_B), (pair.b, pair.site_b, pair.SITE_A)):
        with Pinger(site, far, 0.01) as pinger:
            pinger.wait_answers(20)
            side.espgw.kill()
            side.espgw.start()
            back_within(pinger, 3)
            pinger.wait_answers(20)
        assert pinger.lost


def test_gateway_stalls_during_a_rekey(network):
    """The socket does not answer for some seconds, while AWS rekeys; all is well afterwards."""
    world = network_of(network).start()
    both_carry(world)
    world.use(1)
    process = world.gateway.espgw.process
    since = len(world.aws[0].charon.text())
    process.send_signal(signal.SIGSTOP)
    try:
        # IKE passes the gateway's host path, so nothing arrives while it stands still.
        world.aws[0].charon.rekey("tunnel01")
        world.gateway.charon.rekey("tunnel02")
        world.aws[0].charon.wait_log("retransmit 1 of request", 5, since)
        time.sleep(1)  # the stall itself: longer than the plugin waits
    finally:
        process.send_signal(signal.SIGCONT)
    world.wait_up(10)
    world.site.wait_for(world.VPC, 10)
    one_pair_each(world)
    both_carry(world)
    assert "key_seen" not in world.gateway.charon.text()


def test_socket_stalls_during_a_rekey(network):
    """IKE goes on while the gateway's socket hangs for longer than the plugin waits, so AWS has
    SAs that the gateway lacks. Afterwards both have the same again, and no outbound key was
    written twice though nobody knew whether it had arrived."""
    world = network_of(network)
    relay = tap(world)
    world.start()
    both_carry(world)
    world.use(1)
    with Pinger(world.site, world.VPC, 0.01) as pinger:
        pinger.wait_answers(20)
        relay.hold()
        world.aws[0].charon.rekey("tunnel01")
        time.sleep(3)  # the stall itself
        relay.release()
        world.site.wait_for(world.VPC, 10)
        pinger.wait_answers(20)
    one_pair_each(world)
    both_carry(world)
    keys = [sa["key"] for sa in relay.added("out")]
    assert len(keys) == len(set(keys))


def test_aws_disappears_and_returns(network):
    """The gateway notices by DPD, and restarts: as soon as AWS is back, so is the tunnel."""
    world = network_of(network, aws_starts=False, gateway_start="start",
                       gateway={"dpd_delay": "1s"}).start()
    both_carry(world)
    since = len(world.gateway.charon.text())
    world.aws[0].kill()
    world.gateway.charon.wait_log(r"<tunnel01\|.*(giving up after|restarting CHILD_SA)", 15, since)
    # Not to be asked between listening and having its connection: it would refuse for good.
    world.internet.ip("link", "set", "to-aws1", "down")
    world.aws[0].start()
    world.internet.ip("link", "set", "to-aws1", "up")
    world.gateway.wait_up("tunnel01", 20)
    world.use(1)
    echo(world.site, world.VPC)
    one_pair_each(world)
    both_carry(world)


def test_aws_returns_and_starts(network):
    """AWS's end is replaced, and the new one starts: its INITIAL_CONTACT clears the old SAs."""
    world = network_of(network, endpoints=1).start()
    world.use(1)
    old = spis(world, "tunnel01", "in")
    world.aws[0].kill()
    world.aws[0].start()
    wait_until(lambda: spis(world, "tunnel01", "in") - old, "a new inbound SA", 10)
    one_pair_each(world)
    world.site.wait_for(world.VPC, 5)
    echo(world.site, world.VPC)
