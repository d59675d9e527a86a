# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""The MTU of the outer path, learnt from a router that is really there; and from nobody else."""

import time

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.ipsec import ESP
from scapy.packet import Raw

import esp
from testbed import wait_until, write_config
from topologies import Bench, probe

PATH = 1300
FAR6 = "2001:db8:e::6"


class RouterBench(Bench):
    """The far ends are behind a router, whose next link takes 1,300 bytes:

        inside wire ── lan [gateway] wan ── 203.0.113.254 [router] ── far wire

    The outside wire is the router's end of the first cable: who sends by it is on the path."""

    FAR = {"tunnel01": "198.51.100.21", "tunnel02": "198.51.100.22", "tunnel03": "198.51.100.23",
           "tunnel06": FAR6}
    ROUTER, ROUTER6 = "203.0.113.254", "2001:db8:f::fe"

    def __init__(self, network):
        super().__init__(network)
        router = self.outside.namespace
        far = network.namespace("far", ipv6=True)
        network.link(router, "eth1", far, "eth0")
        far.ip("link", "set", "eth0", "arp", "off")
        self.far = network.wire(far, "eth0")
        router.ip("link", "set", "eth0", "arp", "on")
        for key in ("eth0", "eth1", "all"):
            router.sysctl(f"net.ipv6.conf.{key}.disable_ipv6", 0)
        router.sysctl("net.ipv4.ip_forward", 1)
        router.sysctl("net.ipv6.conf.all.forwarding", 1)
        router.sysctl("net.ipv4.icmp_ratelimit", 0)
        for address, device in ((f"{self.ROUTER}/24", "eth0"), ("198.51.100.1/24", "eth1"),
                                (f"{self.ROUTER6}/64", "eth0"), ("2001:db8:e::1/64", "eth1")):
            router.ip("address", "add", address, "dev", device, *(["nodad"] * (":" in address)))
        for address in self.FAR.values():
            router.ip("neighbour", "replace", address, "lladdr", self.far.mac, "dev", "eth1")
        for address in (self.WAN, self.WAN6):
            router.ip("neighbour", "replace", address, "lladdr", self.wan_mac, "dev", "eth0")
        router.ip("link", "set", "eth1", "mtu", PATH)

    def config(self):
        config = super().config()
        for tunnel in config["tunnels"]:
            tunnel["pmtu"] = tunnel["name"] != "tunnel02"
        config["neighbours"] = [
            *(neighbour for neighbour in config["neighbours"] if neighbour["port"] == "lan"),
            *({"port": "wan", "address": address, "mac": self.outside.mac}
              for address in (self.ROUTER, self.ROUTER6, "203.0.113.99"))]
        config["routes"] += [{"prefix": "198.51.100.0/24", "port": "wan", "next_hop": self.ROUTER},
                             {"prefix": "2001:db8:e::/64", "port": "wan",
                              "next_hop": self.ROUTER6}]
        return config

    def large_esp(self, tunnel, size):
        """ESP of an inner packet of this size, as it passes the first cable."""
        self.send_inside(probe(self.HOST, self.BEHIND[tunnel], size=size))
        return self.outside.receive(esp.is_esp, what="ESP")


@pytest.fixture(scope="module")
def module_bench(module_network):
    return RouterBench(module_network).start()


def forge(bench, quoted, mtu, **changes):
    """ICMP that quotes an ESP packet, or what it is changed to be."""
    quoted = quoted.copy()
    for layer, field, value in changes.get("change", ()):
        setattr(quoted[layer], field, value)
        if isinstance(quoted, IP):
            del quoted.chksum
    if isinstance(quoted, IP):
        return IP(src=bench.ROUTER, dst=bench.WAN) / ICMP(type=3, code=4, nexthopmtu=mtu) / Raw(
            bytes(quoted)[:changes.get("quote", 548)])
    return IPv6(src=bench.ROUTER6, dst=bench.WAN6) / ICMPv6PacketTooBig(mtu=mtu) / Raw(
        bytes(quoted)[:1200])


@pytest.mark.parametrize("tunnel, nat_t, inner", (
    ("tunnel01", False, 1246), ("tunnel03", True, 1238), ("tunnel06", False, 1226)))
def test_a_router_on_the_path_is_believed(bench, tunnel, nat_t, inner):
    """The MTU is computed with room for UDP, as that of the port is."""
    sa = bench.sa_out(tunnel, nat_t=nat_t)
    control = bench.gateway.control
    control.call("events.subscribe", events=["tunnel.mtu"])
    before = bench.gateway.tunnel(tunnel)
    assert before["path_mtu"] is None and before["path_mtu_believed"] == 0
    to_host = bench.gateway.source("port", "wan")["to_host"]
    sent = bench.large_esp(tunnel, before["mtu"])
    assert len(bytes(sent)) > PATH
    event = control.event("tunnel.mtu")
    router = bench.ROUTER6 if tunnel == "tunnel06" else bench.ROUTER
    assert event == {"event": "tunnel.mtu", "tunnel": tunnel, "mtu": inner, "path_mtu": PATH,
                     "sender": router} | {key: event[key] for key in event.keys() - {
                         "event", "tunnel", "mtu", "path_mtu", "sender"}}
    after = bench.gateway.tunnel(tunnel)
    assert (after["mtu"], after["path_mtu"], after["path_mtu_believed"]) == (inner, PATH, 1)
    # The kernel has heard of it too.
    wait_until(lambda: bench.gateway.source("port", "wan")["to_host"] > to_host, "ICMP to host")
    bench.outside.flush()
    bench.far.flush()
    packet = probe(Bench.HOST, Bench.BEHIND[tunnel], size=inner)
    bench.send_inside(packet)
    arrived = bench.far.receive(esp.is_esp, what="ESP behind the router")
    assert len(bytes(arrived)) <= PATH
    assert bytes(sa.decrypt(arrived).payload) == bytes(packet.payload)
    assert "says " + router in bench.gateway.tail()


def test_forged_messages_change_nothing(bench):
    bench.sa_out("tunnel02")  # pmtu = false
    refused_by_setting = forge(bench, bench.large_esp("tunnel02", 1400), 1200)
    bench.sa_out("tunnel01")
    sent = bench.large_esp("tunnel01", 1200)
    size = len(bytes(sent))
    before = [bench.gateway.tunnel(name) for name in ("tunnel01", "tunnel02")]
    unknown = bench.gateway.call("stats")["path_mtu_unknown"]
    spi, sequence = sent[ESP].spi, sent[ESP].seq
    named = [  # they name an SA
        refused_by_setting,
        forge(bench, sent, 1100, change=[(IP, "src", "203.0.113.77")]),
        forge(bench, sent, 1100, change=[(ESP, "seq", sequence + 1)]),
        forge(bench, sent, 1100, change=[(ESP, "seq", 0)]),
        forge(bench, sent, 575), forge(bench, sent, 68), forge(bench, sent, 0),
        forge(bench, sent, size),
    ]
    unnamed = [forge(bench, sent, 1100, change=[(ESP, "spi", spi ^ 1)]),
               forge(bench, sent, 1100, change=[(IP, "dst", "198.51.100.22")])]
    damaged = forge(bench, sent, 1100)
    damaged[ICMP].chksum = 1
    others = [damaged, forge(bench, sent, 1100, quote=27),
              forge(bench, sent, 1100, change=[(IP, "proto", 6)])]

    def counted():
        now = [bench.gateway.tunnel(name) for name in ("tunnel01", "tunnel02")]
        return (sum(tunnel["path_mtu_refused"] for tunnel in now)
                - sum(tunnel["path_mtu_refused"] for tunnel in before),
                bench.gateway.call("stats")["path_mtu_unknown"] - unknown)
    # One after the other: a worker tells control of one in a millisecond.
    for count, message in enumerate(named, 1):
        time.sleep(0.005)
        bench.send_outside(message)
        wait_until(lambda: counted() == (count, 0), f"message {count} is refused: {counted()}")
    for count, message in enumerate(unnamed, 1):
        time.sleep(0.005)
        bench.send_outside(message)
        wait_until(lambda: counted() == (len(named), count), f"message {count} names no SA")
    time.sleep(0.005)
    for message in others:
        bench.send_outside(message)
        time.sleep(0.005)
    for old, name in zip(before, ("tunnel01", "tunnel02")):
        now = bench.gateway.tunnel(name)
        assert (now["mtu"], now["path_mtu"], now["path_mtu_believed"]) == (
            old["mtu"], old["path_mtu"], old["path_mtu_believed"])
    assert counted() == (len(named), len(unnamed))
    # The same in the right way is believed.
    bench.send_outside(forge(bench, sent, 1100))
    wait_until(lambda: bench.gateway.tunnel("tunnel01")["path_mtu"] == 1100, "it is believed")
    assert bench.gateway.tunnel("tunnel01")["mtu"] == 1046


def test_what_the_host_itself_sends_fits_the_path(network):
    """The kernel of the gateway sends by tunnel01's interface, which nobody tells by ICMP."""
    bench = RouterBench(network).start()
    gateway = bench.gateway
    bench.outside.namespace.ip("link", "set", "eth1", "mtu", 1500)  # the router has nothing to say
    sa = bench.sa_out()
    peer = "169.254.244.1"

    def wait_for(mtu):
        wait_until(lambda: f"mtu {mtu} " in gateway.namespace.ip("link", "show", "tunnel01"),
                   f"the interface has MTU {mtu}")

    def ping(size):
        """With DF; says whether the kernel takes it, which it does for what fits the interface."""
        done = gateway.namespace.run("ping", "-c", 1, "-W", 0.1, "-M", "do", "-s", size - 28, peer,
                                     check=False)
        return "too long" not in done.stdout + done.stderr
    assert ping(1438)
    bench.send_outside(forge(bench, bench.large_esp("tunnel01", 1438), 1400))
    wait_for(1338)
    assert not ping(1339)
    with gateway.dropping():
        bench.outside.flush()
        assert ping(1338)
        assert len(sa.decrypt(bench.outside.receive(esp.is_esp, what="a ping"))) == 1338
    # Another configuration changes nothing of the path; what the path takes is the least of both.
    for mtu, offered in ((1430, 1338), (1300, 1300), (0, 1338)):
        next(tunnel for tunnel in gateway.config["tunnels"]
             if tunnel["name"] == "tunnel01")["mtu"] = mtu
        write_config(gateway.file, gateway.config)
        gateway.call("config.apply", file=str(gateway.file))
        wait_for(offered)
    # Less than IPv6 needs, it does not become.
    bench.outside.flush()
    bench.send_outside(forge(bench, bench.large_esp("tunnel01", 1338), 700))
    wait_for(1280)
    # The far end moves, and nothing is known any more.
    gateway.call("sa.update", direction="out", spi=sa.spi, new_destination=bench.FAR["tunnel02"])
    wait_for(1438)
