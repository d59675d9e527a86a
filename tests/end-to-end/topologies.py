# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""The two networks that most tests use."""

import itertools
import os
import signal

from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

import esp

_probes = itertools.count(1)


def probe(source, destination, size=100, **header):
    """A UDP packet of so many bytes in all, unlike any other."""
    kind = IPv6 if ":" in source else IP
    head = kind(src=source, dst=destination, **header) / UDP(sport=2000, dport=3000)
    payload = (b"probe %012d " % next(_probes)).ljust(size - len(head), b"x")
    return kind(bytes(head / Raw(payload[:max(size - len(head), 0)])))


def is_probe(packet):
    """A match for Wire: the IP packet with this probe's payload."""
    wanted = bytes(packet[UDP].payload)

    def match(frame):
        found = esp.is_ip(frame)
        return found if found is not None and UDP in found \
            and bytes(found[UDP].payload) == wanted else None
    return match


def _is_no_icmp_error(frame):
    """The IP packet of the frame, unless it is an ICMP error: test_sizes.py is about those."""
    packet = esp.is_ip(frame)
    if packet is None or ICMP in packet and packet[ICMP].type in (3, 11) \
            or isinstance(packet, IPv6) and packet.nh == 58 and bytes(packet.payload)[0] < 128:
        return None
    return packet


class Bench:
    """One gateway between two raw wires:

        inside wire ── lan [gateway] wan ── outside wire
        10.1.0.2                             203.0.113.11, .12, 2001:db8:f::6

    The far ends are what the tests play on the outside wire. All neighbours are configured, so
    nothing has to be asked for."""

    HOST, HOST6 = "10.1.0.2", "2001:db8:1::2"
    LAN, LAN6 = "10.1.0.1", "2001:db8:1::1"
    WAN, WAN6 = "203.0.113.1", "2001:db8:f::1"
    FAR = {"tunnel01": "203.0.113.11", "tunnel02": "203.0.113.12", "tunnel03": "203.0.113.13",
           "tunnel06": "2001:db8:f::6"}
    # An address behind each tunnel.
    BEHIND = {"tunnel01": "192.168.192.10", "tunnel02": "192.168.193.10",
              "tunnel03": "192.168.194.10", "tunnel06": "192.168.196.10"}
    BEHIND6 = "2001:db8:192::10"  # by tunnel01
    UNREACHABLE = "172.31.0.1"    # by a port route out of wan, in clear
    MTU = 1446  # of an SA without UDP, computed: 1500 less outer IP, ESP, IV, trailer and ICV

    def __init__(self, network):
        self.network = network
        gateway = network.namespace("gateway", ipv6=True)
        inside, outside = network.namespace("inside"), network.namespace("outside")
        network.link(gateway, "veth-lan", inside, "eth0")
        network.link(gateway, "veth-wan", outside, "eth0")
        network.give_to_espgw(gateway, "veth-lan", "veth-wan")
        for namespace in (inside, outside):
            namespace.ip("link", "set", "eth0", "arp", "off")
        self.inside = network.wire(inside, "eth0")
        self.outside = network.wire(outside, "eth0")
        self.lan_mac, self.wan_mac = gateway.mac("veth-lan"), gateway.mac("veth-wan")
        self.gateway = network.gateway(gateway, self.config())

    def config(self):
        far = [*self.FAR.values(), "203.0.113.99"]
        return {
            "ports": [
                {"name": "lan", "side": "inside", "device": "net_af_packet0,iface=veth-lan",
                 "addresses": [f"{self.LAN}/24", f"{self.LAN6}/64"]},
                {"name": "wan", "side": "outside", "device": "net_af_packet1,iface=veth-wan",
                 "addresses": [f"{self.WAN}/24", f"{self.WAN6}/64"]},
            ],
            "tunnels": [
                {"name": name, "customer_endpoint": address,
                 "gateway_endpoint": self.WAN6 if ":" in address else self.WAN,
                 "interface_address": f"169.254.244.{4 * i + 2}/30",
                 "replay_window": 1024, "health": {"enabled": False}}
                for i, (name, address) in enumerate(self.FAR.items())
            ],
            "routes": [
                {"prefix": "192.168.192.0/26", "tunnel": "tunnel01"},
                {"prefix": "2001:db8:192::/64", "tunnel": "tunnel01"},
                {"prefix": "192.168.193.0/24", "tunnel": "tunnel02"},
                {"prefix": "192.168.194.0/24", "tunnel": "tunnel03"},
                {"prefix": "192.168.196.0/24", "tunnel": "tunnel06"},
                {"prefix": "172.31.0.0/16", "port": "wan", "next_hop": "203.0.113.99"},
            ],
            "neighbours": [
                *({"port": "lan", "address": address, "mac": self.inside.mac}
                  for address in (self.HOST, self.HOST6)),
                *({"port": "wan", "address": address, "mac": self.outside.mac} for address in far),
            ],
        }

    def start(self):
        self.gateway.start()
        return self

    def reset(self):
        """As after the start, but for the counters."""
        if not self.gateway.alive:
            self.gateway.disconnect()
            self.gateway.start()
        self.gateway.call("sa.flush")
        self.gateway.disconnect()  # events of the test before
        self.inside.flush()
        self.outside.flush()

    # ---- SAs ----

    def _ends(self, tunnel):
        far = self.FAR[tunnel]
        return (self.WAN6 if ":" in far else self.WAN), far

    def sa_in(self, tunnel="tunnel01", add=None, **options):
        """A new SA from the far end to the gateway."""
        gateway, far = self._ends(tunnel)
        sa = esp.Sa(far, gateway, **options)
        self.gateway.call("sa.add", tunnel=tunnel, direction="in", **sa.parameters(), **add or {})
        return sa

    def sa_out(self, tunnel="tunnel01", add=None, **options):
        """A new SA from the gateway to the far end."""
        gateway, far = self._ends(tunnel)
        sa = esp.Sa(gateway, far, **options)
        self.gateway.call("sa.add", tunnel=tunnel, direction="out", **sa.parameters(), **add or {})
        return sa

    # ---- Packets ----

    def send_inside(self, *packets):
        """From the host inside to the gateway."""
        self.inside.send(*self.inside_frames(packets))

    def inside_frames(self, packets):
        return [esp.frame(self.lan_mac, self.inside.mac, packet) for packet in packets]

    def send_outside(self, *packets):
        """From the far end to the gateway."""
        self.outside.send(*self.outside_frames(packets))

    def outside_frames(self, packets):
        return [esp.frame(self.wan_mac, self.outside.mac, packet) for packet in packets]

    def send_at_once(self, **frames):
        """Frames, by the name of their wire, that the gateway finds waiting when it goes on."""
        self.gateway.process.send_signal(signal.SIGSTOP)
        try:
            for wire, list_of_frames in frames.items():
                getattr(self, wire).send(*list_of_frames)
        finally:
            self.gateway.process.send_signal(signal.SIGCONT)

    def esp_of(self, packet):
        """Sends the packet from inside; returns the ESP packet that leaves outside for it."""
        self.send_inside(packet)
        return self.outside.receive(esp.is_esp, what="ESP")

    def arrives_inside(self, packet):
        """Waits for the probe at the inside wire; returns it."""
        return self.inside.receive(is_probe(packet), what="the decapsulated packet")

    def nothing_inside(self, seconds=0.2):
        self.inside.nothing(_is_no_icmp_error, seconds)

    def nothing_outside(self, seconds=0.2):
        self.outside.nothing(esp.is_ip, seconds)


class Pair:
    """Two gateways between two kernels, joined by two tunnels:

        site_a ── lan [a] wan ═══ wan [b] lan ── site_b
        10.1.0.2                                 192.168.192.10
    """

    SITE_A, SITE_B = "10.1.0.2", "192.168.192.10"
    TUNNELS = {"tunnel01": ("203.0.113.1", "203.0.113.2"),
               "tunnel02": ("203.0.113.1", "203.0.113.3")}

    def __init__(self, network, queues=1, ipv6=False, gateway_options=None):
        self.network = network
        self.site_a = network.namespace("site-a", ipv6=ipv6)
        self.site_b = network.namespace("site-b", ipv6=ipv6)
        a = network.namespace("gateway-a", ipv6=ipv6)
        b = network.namespace("gateway-b", ipv6=ipv6)
        network.link(self.site_a, "eth0", a, "veth-lan")
        network.link(a, "veth-wan", b, "veth-wan")
        network.link(b, "veth-lan", self.site_b, "eth0")
        for namespace in (a, b):
            network.give_to_espgw(namespace, "veth-lan", "veth-wan")
        last = os.cpu_count() - 1
        cores = [[0], [min(1, last)]] if queues == 1 else [list(range(queues))] * 2
        lan_a, lan_b = ["10.1.0.1/24"], ["192.168.192.1/26"]
        behind_a, behind_b = ["10.1.0.0/24"], ["192.168.192.0/26"]
        if ipv6:
            lan_a.append("2001:db8:1::1/64")
            lan_b.append("2001:db8:192::1/64")
            behind_a.append("2001:db8:1::/64")
            behind_b.append("2001:db8:192::/64")
        options = gateway_options or {}
        self.a = network.gateway(a, {
            **self._config(lan_a, 0, behind_b, queues, cores[0]), **options})
        self.b = network.gateway(b, {
            **self._config(lan_b, 1, behind_a, queues, cores[1]), **options})
        self.site_a.ip("address", "add", f"{self.SITE_A}/24", "dev", "eth0")
        self.site_b.ip("address", "add", f"{self.SITE_B}/26", "dev", "eth0")
        self.site_a.ip("route", "add", "192.168.192.0/26", "via", "10.1.0.1", "mtu", "1438")
        self.site_b.ip("route", "add", "10.1.0.0/24", "via", "192.168.192.1", "mtu", "1438")
        if ipv6:
            self.site_a.ip("address", "add", "2001:db8:1::2/64", "dev", "eth0")
            self.site_b.ip("address", "add", "2001:db8:192::10/64", "dev", "eth0")
            self.site_a.ip("route", "add", "2001:db8:192::/64", "via", "2001:db8:1::1")
            self.site_b.ip("route", "add", "2001:db8:1::/64", "via", "2001:db8:192::1")

    def _config(self, lan, end, behind, queues, cores):
        tunnels = [(name, ends[end], ends[1 - end]) for name, ends in self.TUNNELS.items()]
        addresses = sorted({f"{here}/24" for _, here, _ in tunnels})
        suffix = f",qpairs={queues}" if queues > 1 else ""
        return {
            "workers": {"cores": cores},
            "ports": [
                {"name": "lan", "side": "inside", "addresses": lan,
                 "device": f"net_af_packet0,iface=veth-lan{suffix}"},
                {"name": "wan", "side": "outside", "addresses": addresses,
                 "device": f"net_af_packet1,iface=veth-wan{suffix}"},
            ],
            "tunnels": [
                {"name": name, "gateway_endpoint": here, "customer_endpoint": there,
                 "interface_address": f"169.254.244.{4 * i + 2 - end}/30",
                 "replay_window": 4096 if queues == 1 else 16384,
                 "health": {"enabled": False}}
                for i, (name, here, there) in enumerate(tunnels)
            ],
            "routes": [
                {"prefix": prefix, "tunnel": name, "priority": 100 * (i + 1)}
                for prefix in behind for i, (name, _, _) in enumerate(tunnels)
            ],
        }

    def start(self):
        self.a.start()
        self.b.start()
        for tunnel in self.TUNNELS:
            self.add_sas(tunnel)
        self.site_a.wait_for(self.SITE_B, 15)
        return self

    def add_sas(self, tunnel, **options):
        """A fresh SA each way; returns both (from a to b, from b to a)."""
        return (self.add_sa(tunnel, self.a, self.b, **options),
                self.add_sa(tunnel, self.b, self.a, **options))

    def add_sa(self, tunnel, sender, receiver, **options):
        ends = self.TUNNELS[tunnel]
        source, destination = ends if sender is self.a else ends[::-1]
        sa = esp.Sa(source, destination, **options)
        spi = receiver.call("spi.reserve", tunnel=tunnel)["spis"][0]
        sa.spi = int(spi, 16)
        receiver.call("sa.add", tunnel=tunnel, direction="in", **sa.parameters())
        sender.call("sa.add", tunnel=tunnel, direction="out", **sa.parameters())
        return sa

    def iperf(self, *arguments, reverse=False, seconds=2):
        """Megabits a second that arrived, and the whole report."""
        import json
        server = self.network.popen(self.site_b, "iperf3", "-s", "-1",
                                    stdout=-3, stderr=-3)  # DEVNULL
        from testbed import wait_until
        wait_until(lambda: self.site_b.run("ss", "-Hltn", "sport = :5201").stdout,
                   "the iperf3 server listens")
        done = self.site_a.run("iperf3", "-J", "-c", self.SITE_B, "-t", seconds,
                               *(["-R"] if reverse else []), *arguments, check=False)
        server.wait(20)
        report = json.loads(done.stdout)
        assert "error" not in report, report["error"]
        end = report["end"]
        total = end.get("sum_received") or end["sum"]
        return total["bits_per_second"] / 1e6, report
