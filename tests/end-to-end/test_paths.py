# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""What hosts see of the path's size: kernels talk through two gateways."""

import contextlib
import re
import socket
import threading

import pytest

from testbed import PATIENCE, wait_until
from topologies import Pair

ROOM = 1400  # bytes of a packet that the way between the gateways takes
INNER = 1346  # of which ESP takes 54


class Narrow(Pair):
    """The way between the gateways drops what is over ROOM without a word, as some providers' does.
    Gateway b is AWS's: it lowers no MSS, splits nothing that has DF and knows of no smaller MTU."""

    def __init__(self, network):
        super().__init__(network)
        middle = network.namespace("middle")
        self.a.namespace.ip("link", "del", "veth-wan")
        # The bridges drop it: net_af_packet would try for ever what its own link refuses.
        network.link(middle, "narrow-a", middle, "narrow-b", mtu=ROOM)
        for gateway, side in ((self.a, "a"), (self.b, "b")):
            network.link(gateway.namespace, "veth-wan", middle, f"wan-{side}")
            network.give_to_espgw(gateway.namespace, "veth-wan")
            middle.ip("link", "add", f"bridge-{side}", "type", "bridge")
            for device in (f"wan-{side}", f"narrow-{side}"):
                middle.ip("link", "set", device, "master", f"bridge-{side}")
            middle.ip("link", "set", f"bridge-{side}", "up")
        for tunnel in self.b.config["tunnels"]:
            tunnel["mss"] = "off"
        self.forget()
        self.b.start()

    def start(self, **settings):
        """A new start of gateway a with these settings of its tunnels."""
        self.site_a.sysctl("net.ipv4.conf.eth0.rp_filter", 0)
        self.site_a.ip("route", "delete", "blackhole", "10.1.0.1/32", check=False)
        self.a.stop()
        for tunnel in self.a.config["tunnels"]:
            for name in ("mtu", "mss", "clear_df"):
                tunnel.pop(name, None)
            tunnel.update(settings)
        self.a.start()
        self.b.call("sa.flush")
        for tunnel in self.TUNNELS:
            self.add_sas(tunnel)
        self.forget()
        self.site_a.wait_for(self.SITE_B, 15)


    def forget(self):
        """What the sites' kernels learnt of the path belongs to the route, and goes with it."""
        for site, prefix, by in ((self.site_a, "192.168.192.0/26", "10.1.0.1"),
                                 (self.site_b, "10.1.0.0/24", "192.168.192.1")):
            site.ip("route", "delete", prefix, "via", by)
            site.ip("route", "add", prefix, "via", by)

    def deafen(self):
        """site_a hears no ICMP of its gateway: with rp_filter the kernel takes nothing from an
        address that it has no way to."""
        self.site_a.sysctl("net.ipv4.conf.eth0.rp_filter", 1)
        self.forget()
        self.site_a.ip("route", "add", "blackhole", "10.1.0.1/32")


@contextlib.contextmanager
def connected(pair):
    """A TCP connection from site_a to site_b: both ends."""
    with pair.site_b.entered(), socket.create_server((Pair.SITE_B, 8000)) as listener:
        with pair.site_a.entered():
            here = socket.socket()
        with here:
            here.settimeout(10 * PATIENCE)
            here.connect((Pair.SITE_B, 8000))
            there, _ = listener.accept()
            with there:
                yield here, there


def arrives(sender, receiver, size, seconds):
    """How much of so many bytes arrives in time."""
    sender.settimeout(0.5)
    receiver.settimeout(seconds * PATIENCE)

    def send():
        with contextlib.suppress(OSError):  # what does not leave in time is not waited for
            sender.sendall(bytes(size))
    thread = threading.Thread(target=send)
    thread.start()
    got = 0
    with contextlib.suppress(TimeoutError):
        while got < size:
            got += len(receiver.recv(1 << 16))
    thread.join()
    return got


@pytest.fixture(scope="module")
def narrow(module_network):
    return Narrow(module_network)


def test_a_black_hole_and_the_settings_that_avoid_it(narrow):
    size = 100_000
    # Nothing set: TCP's handshake passes, its data does not.
    narrow.start(mss="off")
    with connected(narrow) as (here, there):
        assert arrives(here, there, size, 0.8) == 0
    # A lower MSS suffices for TCP, in both directions, though the other end does nothing.
    narrow.start(mss=INNER - 40)
    with connected(narrow) as (here, there):
        assert arrives(here, there, size, 10) == size
        assert arrives(there, here, size, 10) == size
    # The tunnel's MTU lowers it as well ...
    narrow.start(mtu=INNER)
    with connected(narrow) as (here, there):
        assert arrives(here, there, size, 10) == size
        assert arrives(there, here, size, 10) == size
    # ... and is told to who sends more, or it is split without DF.
    narrow.start(mtu=INNER, mss="off")
    with connected(narrow) as (here, there):
        assert arrives(here, there, size, 10) == size
    assert f"mtu {INNER}" in narrow.site_a.ip("route", "get", Pair.SITE_B)
    answers, _ = narrow.site_a.ping(Pair.SITE_B, 3, 0.02, 1472, False, "-M", "dont")
    assert answers == 0  # AWS's end sends the answer whole, into the hole
    before = narrow.b.tunnel("tunnel01")["in_packets"]
    assert narrow.a.drops().get("too_big", 0) > 0
    # Behind a firewall that eats ICMP even that is a black hole, unless DF is ignored.
    narrow.deafen()
    with connected(narrow) as (here, there):
        assert arrives(here, there, size, 0.8) == 0
    narrow.start(mtu=INNER, mss="off", clear_df=True)
    narrow.deafen()
    with connected(narrow) as (here, there):
        assert arrives(here, there, size, 10) == size
    assert narrow.a.source("port", "lan")["split"] > size / 1500
    assert narrow.b.tunnel("tunnel01")["in_packets"] > before


def test_kernels_see_the_gateways_on_the_way(narrow):
    """Traceroute: the inside port of the near gateway, the tunnel's address of the far one."""
    narrow.start()
    hops = []
    for ttl in (1, 2, 3):
        shown = narrow.site_a.run("ping", "-n", "-c", 1, "-W", 2, "-t", ttl, Pair.SITE_B,
                                  check=False).stdout
        hops.append(re.search(r"From (\S+) .*Time to live exceeded|bytes from (\S+):", shown))
        assert hops[-1], shown
    assert [hop[1] or hop[2] for hop in hops] == ["10.1.0.1", "169.254.244.1", Pair.SITE_B]
    shown = narrow.site_a.run("ping", "-n", "-c", 1, "-W", 2, "198.18.0.1", check=False).stdout
    assert "Unreachable" not in shown  # site_a itself has no way
    narrow.site_a.ip("route", "add", "198.18.0.0/24", "via", "10.1.0.1")
    shown = narrow.site_a.run("ping", "-n", "-c", 1, "-W", 2, "198.18.0.1", check=False).stdout
    assert "From 10.1.0.1 icmp_seq=1 Destination Net Unreachable" in shown
    narrow.site_a.ping(Pair.SITE_B, 1, 0.02, 1472, False, "-M", "do")
    assert "mtu 1446" in narrow.site_a.ip("route", "get", Pair.SITE_B)


def test_jumbo_frames(network):
    """Ports of 9000 bytes, inside and outside."""
    pair = Pair(network)
    for gateway in (pair.a, pair.b):
        for i, port in enumerate(gateway.config["ports"]):
            device = f"veth-{port['name']}"
            gateway.namespace.ip("link", "set", device, "mtu", "9000")
            # net_af_packet takes no jumbo frames; this driver looks at the same netdev.
            port.update(mtu=9000, device=f"net_pcap{i},rx_iface_in={device},tx_iface={device}")
    for site, prefix, by in ((pair.site_a, "192.168.192.0/26", "10.1.0.1"),
                             (pair.site_b, "10.1.0.0/24", "192.168.192.1")):
        site.ip("link", "set", "eth0", "mtu", "9000")
        site.ip("route", "replace", prefix, "via", by)
    pair.start()
    mtu = pair.a.tunnel("tunnel01")["mtu"]
    assert mtu == 8946
    pair.site_a.ping(Pair.SITE_B, 5, 0.02, mtu - 28, True, "-M", "do")
    pair.site_a.ping("10.1.0.1", 5, 0.02, 9000 - 28, True, "-M", "do")  # and to the host
    pair.site_a.ping(Pair.SITE_B, 5, 0.02, 9000 - 28, True, "-M", "dont")  # split both ways
    with connected(pair) as (here, there):
        assert here.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == mtu - 40 - 12
        assert arrives(here, there, 1_000_000, 20) == 1_000_000
        assert arrives(there, here, 1_000_000, 20) == 1_000_000
    for gateway in (pair.a, pair.b):
        assert gateway.drops().keys() <= {"neighbour_unresolved"}
        wait_until(lambda g=gateway: all(s["held"] == 0 for s in g.call("stats")["sources"]),
                   f"{gateway.label} balances")


def test_a_device_that_takes_no_jumbo_frames_is_named(network):
    pair = Pair(network)
    pair.a.config["ports"][1]["mtu"] = 9000
    process = pair.a.spawn().process
    assert process.wait(20 * PATIENCE) == 1
    assert 'port "wan": mtu = 9000, but the device takes at most 1500' in pair.a.tail()
