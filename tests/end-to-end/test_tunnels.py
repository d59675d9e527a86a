# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Two kernels talk through two gateways."""

import socket
import statistics
import threading
import time

import esp
from testbed import wait_until
from topologies import Pair


def test_ping_both_ways_and_tunnels_count(pair):
    before = pair.a.tunnel("tunnel01")
    pair.site_a.ping(Pair.SITE_B, count=20)
    pair.site_b.ping(Pair.SITE_A, count=20)
    after = pair.a.tunnel("tunnel01")
    assert after["state"] == "up"
    assert after["out_packets"] - before["out_packets"] == 40
    assert after["in_packets"] - before["in_packets"] == 40
    assert after["out_bytes"] - before["out_bytes"] == 40 * 84
    assert pair.a.drops().keys() <= {"neighbour_unresolved"}


def test_large_pings_fill_the_tunnel(pair):
    mtu = pair.a.tunnel("tunnel01")["mtu"]
    assert mtu == 1446  # 1500 less outer IP, ESP, IV, trailer and ICV
    pair.site_a.ip("route", "replace", "192.168.192.0/26", "via", "10.1.0.1")
    pair.site_b.ip("route", "replace", "10.1.0.0/24", "via", "192.168.192.1")
    pair.site_a.ping(Pair.SITE_B, 5, 0.02, mtu - 28, True, "-M", "do")


def test_ping_from_the_gateway_over_each_tunnel(pair):
    """Each tunnel has a TUN with its interface address."""
    for far in ("169.254.244.1", "169.254.244.5"):
        pair.a.namespace.wait_for(far)
        pair.a.namespace.ping(far, count=10)
    pair.b.namespace.ping("169.254.244.2", count=10)


def test_gateway_box_reaches_the_network_behind_the_tunnel(pair):
    """The kernel has the configured prefix on the TUN, so its own traffic goes encrypted."""
    assert "dev tunnel01" in pair.a.namespace.ip("route", "get", Pair.SITE_B)
    wait_until(lambda: pair.b.namespace.ping(Pair.SITE_A, 5, 0.02, 56, False, "-I", "192.168.192.1")[0]
               == 5, "site_a answers the far gateway's inside address")


def test_ping_to_the_box_is_quick(pair):
    """Through worker, ring, TAP and back: under 3 ms when idle (median; the machine is shared)."""
    pair.site_a.wait_for("10.1.0.1")
    _, times = pair.site_a.ping("10.1.0.1", count=50, interval=0.02)
    assert statistics.median(times) < 3.0, times


def test_ping_to_the_box_under_load(pair):
    """TCP as fast as it goes through the same worker; the kernel still answers in time."""
    server = pair.network.popen(pair.site_b, "iperf3", "-s", "-1", stdout=-3, stderr=-3)
    wait_until(lambda: pair.site_b.run("ss", "-Hltn", "sport = :5201").stdout, "iperf3 listens")
    client = pair.network.popen(pair.site_a, "iperf3", "-c", pair.SITE_B, "-t", "3",
                                stdout=-3, stderr=-3)
    time.sleep(0.5)
    _, times = pair.site_a.ping("10.1.0.1", 60, 0.02, 56, False)
    client.wait(20)
    server.wait(20)
    assert len(times) > 50 and statistics.median(times) < 10.0, times


def test_kernel_answers_arp_once(pair):
    wire = pair.network.wire(pair.site_a, "eth0")
    wanted = socket.inet_aton("10.1.0.1")
    request = (b"\xff" * 6 + bytes.fromhex(wire.mac.replace(":", "")) + b"\x08\x06"
               + bytes.fromhex("0001080006040001") + bytes.fromhex(wire.mac.replace(":", ""))
               + socket.inet_aton(Pair.SITE_A) + bytes(6) + wanted)
    wire.send(request)
    answers = wire.collect(lambda frame: frame if frame[12:14] == b"\x08\x06"
                           and frame[20:22] == b"\0\2" and frame[28:32] == wanted else None, 0.5)
    assert len(answers) == 1
    gateway_mac = bytes.fromhex(pair.a.namespace.mac("veth-lan").replace(":", ""))
    assert answers[0][22:28] == gateway_mac  # and the TAP has the port's MAC


def test_tcp_both_ways(pair):
    for reverse in (False, True):
        megabits, _ = pair.iperf(reverse=reverse)
        assert megabits > 5


def test_outside_link_carries_only_esp(pair):
    wire = pair.network.wire(pair.a.namespace, "veth-wan")
    pair.site_a.ping(Pair.SITE_B, count=50)
    packets = [packet for packet in map(esp.is_ip, wire.frames(0.1)) if packet is not None]
    assert len(packets) >= 50
    assert all(packet.proto == 50 for packet in packets)


class Stream:
    """UDP packets with numbers, from one site to the other, until stopped."""

    def __init__(self, pair, interval):
        self.interval, self.sent, self.received = interval, 0, []
        with pair.site_b.entered():
            self.receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.receiver.bind((Pair.SITE_B, 7000))
        self.receiver.settimeout(0.5)
        with pair.site_a.entered():
            self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sender.connect((Pair.SITE_B, 7000))
        self.stopping = False
        self.threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def _send(self):
        while not self.stopping:
            self.sender.send(self.sent.to_bytes(8, "big") + bytes(92))
            self.sent += 1
            time.sleep(self.interval)

    def _receive(self):
        while True:
            try:
                self.received.append(int.from_bytes(self.receiver.recv(2000)[:8], "big"))
            except TimeoutError:
                if self.stopping:
                    return

    def __exit__(self, *_):
        self.stopping = True
        for thread in self.threads:
            thread.join()
        self.sender.close()
        self.receiver.close()


def test_sa_replacement_under_traffic_loses_nothing(pair):
    def sas(gateway, direction):
        listed = gateway.call("sa.list", tunnel="tunnel01")["sas"]
        return [sa for sa in listed if sa["direction"] == direction]
    with Stream(pair, 0.0005) as stream:
        for _ in range(8):
            old = [sa["spi"] for sa in sas(pair.b, "in")]
            time.sleep(0.1)
            # The new inbound SA first, then the outbound one takes over (RFC 7296 2.8).
            new = pair.add_sa("tunnel01", pair.a, pair.b)
            time.sleep(0.1)
            for spi in old:
                pair.a.call("sa.delete", direction="out", spi=spi)
            time.sleep(0.05)
            for spi in old:
                pair.b.call("sa.delete", direction="in", spi=spi)
            assert [sa["current"] for sa in sas(pair.a, "out")] == [True]
            assert sas(pair.b, "in")[0]["spi"] == f"0x{new.spi:08x}"
    assert stream.sent > 1000
    assert sorted(stream.received) == list(range(stream.sent))


def test_deleting_the_current_sa_makes_the_older_one_current(pair):
    first = pair.add_sa("tunnel01", pair.a, pair.b)
    second = pair.add_sa("tunnel01", pair.a, pair.b)

    def current():
        return [sa["spi"] for sa in pair.a.call("sa.list", tunnel="tunnel01")["sas"]
                if sa["current"]]
    assert current() == [f"0x{second.spi:08x}"]
    pair.a.call("sa.delete", direction="out", spi=second.spi)
    assert current() == [f"0x{first.spi:08x}"]
    pair.site_a.ping(Pair.SITE_B)


def test_lifetimes_raise_events_and_the_hard_one_stops(pair):
    control = pair.a.connect()
    control.call("events.subscribe", events=["sa.soft_expired", "sa.hard_expired"])
    sa = esp.Sa(*Pair.TUNNELS["tunnel02"])
    pair.b.call("sa.add", tunnel="tunnel02", direction="in", **sa.parameters())
    pair.a.call("sa.add", tunnel="tunnel02", direction="out", **sa.parameters(),
                lifetime={"soft": {"packets": 5}, "hard": {"packets": 10}})
    pair.a.namespace.run("ping", "-q", "-c", 20, "-i", 0.02, "-W", 1, "169.254.244.5", check=False)
    for name in ("sa.soft_expired", "sa.hard_expired"):
        event = control.event(name)
        assert (event["tunnel"], event["spi"], event["limit"]) == (
            "tunnel02", f"0x{sa.spi:08x}", "packets")
    control.close()
    listed = pair.a.call("sa.show", direction="out", spi=sa.spi)["sa"]
    assert (listed["state"], listed["packets"]) == ("hard-expired", 10)
    pair.a.call("sa.delete", direction="out", spi=sa.spi)
    pair.b.call("sa.delete", direction="in", spi=sa.spi)
    pair.a.namespace.wait_for("169.254.244.5")


def test_every_packet_is_accounted_for_under_load(pair):
    """Per source: received = forwarded + to host + drops, nothing held once all is quiet."""
    flood = pair.network.popen(pair.site_a, "ping", "-q", "-f", "-w", 3, "10.1.0.1", stdout=-3)
    _, report = pair.iperf("-u", "-b", "300M", "-l", "1000", seconds=3)
    flood.wait(10)
    assert report["end"]["sum"]["packets"] > 1000

    def balanced(gateway):
        sources = gateway.call("stats")["sources"]
        for source in sources:
            assert source["dropped"] == sum(source["drops"].values())
        return all(source["held"] == 0 and source["received"] == source["forwarded"]
                   + source["to_host"] + source["dropped"] for source in sources)
    for gateway in (pair.a, pair.b):
        wait_until(lambda: balanced(gateway), f"{gateway.label} balances")
        port = gateway.port("lan")
        assert port["rx_packets"] == gateway.source("port", "lan")["received"]
        stats = gateway.call("stats")
        left = sum(source["forwarded"] for source in stats["sources"])
        assert left == sum(p["tx_packets"] for p in gateway.call("port.list")["ports"])


def test_ipv6_inside_the_tunnels(network):
    """Neighbour discovery on both sides, and IPv6 in ESP over IPv4."""
    pair = Pair(network, ipv6=True).start()
    pair.site_a.wait_for("2001:db8:192::10")
    pair.site_a.ping("2001:db8:192::10", count=20)
    pair.site_b.ping("2001:db8:1::2", count=20)
