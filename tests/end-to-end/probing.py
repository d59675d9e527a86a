# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Numbered packets that cross a network while something happens, and where each of them went.
The packets are made and checked by tests/probes."""

import json
import select
import signal
import subprocess

from testbed import BUILD, PATIENCE, wait_until

PROBES = BUILD / "tests/probes/probes"
PORT = 7000
# net_af_packet's ring is 512 frames by default: too few for the moments when a worker that shares
# its core waits for its turn.
LARGE_RING = "framecnt=16384"


class Flow:
    """Probes from one namespace and address to another."""

    def __init__(self, source_namespace, source, destination_namespace, destination):
        self.source_namespace, self.source = source_namespace, source
        self.destination_namespace, self.destination = destination_namespace, destination
        self.id = self.sent = self.unsent = None
        self.seen = {}

    @property
    def received(self):
        return self.seen.get("received", 0)

    @property
    def lost(self):
        return self.sent - self.received

    @property
    def lost_at_end(self):
        """After the last one that came: the receiver cannot know of these."""
        return self.sent - 1 - self.seen.get("highest", -1)

    def __str__(self):
        return (f"{self.source} to {self.destination}: sent {self.sent}, unsent {self.unsent}, "
                f"lost {self.lost} (at the end {self.lost_at_end}), {self.seen}")


class Crossing:
    """`rate` probes a second on each flow, from now until stop(). One sender and one receiver per
    namespace."""

    def __init__(self, network, flows, rate, size=64):
        self.flows, self.senders, self.receivers = flows, [], []
        for number, flow in enumerate(flows, 1):
            flow.id = number
        for namespace in {flow.destination_namespace: None for flow in flows}:
            receiver = network.popen(
                namespace, PROBES, "receive", "--port", PORT, "--idle", 1.5 * PATIENCE,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.receivers.append(receiver)
            assert select.select([receiver.stderr], [], [], 10 * PATIENCE)[0]
            said = receiver.stderr.readline()
            assert "listening" in said, said
        for namespace in {flow.source_namespace: None for flow in flows}:
            words = []
            for flow in flows:
                if flow.source_namespace is namespace:
                    words += ["--to", f"{flow.destination}:{PORT}", "--stream", flow.id,
                              "--source", flow.source]
            self.senders.append(network.popen(
                namespace, PROBES, "send", "--rate", rate, "--size", size, *words,
                stdout=subprocess.PIPE, text=True))

    def stop(self):
        """Ends it, waits for what is on its way, and fills in the flows."""
        for sender in self.senders:
            sender.send_signal(signal.SIGINT)
        by_id = {flow.id: flow for flow in self.flows}
        for sender in self.senders:
            for stream in json.loads(sender.communicate(timeout=20 * PATIENCE)[0])["streams"]:
                by_id[stream["stream"]].sent = stream["sent"]
                by_id[stream["stream"]].unsent = stream["unsent"]
        self.lost_at_socket = 0
        for receiver in self.receivers:
            report = json.loads(receiver.communicate(timeout=20 * PATIENCE)[0])
            self.lost_at_socket += report["lost_at_socket"]
            assert report["foreign"] == 0, report
            for stream in report["streams"]:
                by_id[stream["stream"]].seen = stream

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def sent(self):
        return sum(flow.sent for flow in self.flows)

    @property
    def lost(self):
        return sum(flow.lost for flow in self.flows)

    @property
    def duplicated(self):
        return sum(flow.seen.get("duplicated", 0) for flow in self.flows)

    @property
    def rate(self):
        """Probes a second that came, all flows together."""
        return sum(flow.received / (flow.seen["last_time"] - flow.seen["first_time"])
                   for flow in self.flows)

    def __str__(self):
        return "\n".join([f"lost at sockets {self.lost_at_socket}", *map(str, self.flows)])


def _device_counter(namespace, device, name):
    """Of the kernel's netdev below a port."""
    links = json.loads(namespace.ip("-s", "-j", "link", "show", "dev", device))
    direction, what = name.split("_")
    return links[0]["stats64"][direction][what]


class Ledger:
    """What becomes of packets inside the gateways and between them, from its making to check().
    A packet that is lost is lost at a place: in a socket's ring below a port (the worker came too
    late; no gateway counter knows of it), for a named reason in a gateway, or between two."""

    def __init__(self, gateways):
        self.gateways = gateways
        # Packets may pass while this reads. The order of reading is such that a ring never seems to
        # have lost what only came in between.
        self.before = [self._ports(gateway) | self._devices(gateway) for gateway in gateways]

    @staticmethod
    def _ports(gateway):
        values = {f"drop {reason}": packets for reason, packets in gateway.drops().items()}
        for source in gateway.call("stats")["sources"]:
            where = f"{source['source']} {source.get('port', '')}".strip()
            for member in ("received", "forwarded", "to_host", "dropped", "held"):
                values[f"{member} {where}"] = source[member]
        for port in gateway.call("port.list")["ports"]:
            for member in ("rx_packets", "tx_packets", "rx_missed", "rx_no_buffer", "rx_errors",
                           "tx_errors"):
                values[f"{member} {port['name']}"] = port[member]
        return values

    @staticmethod
    def _devices(gateway):
        values = {}
        for port in gateway.config["ports"]:
            device = port["device"].split("iface=")[1].split(",")[0]
            for member in ("rx_packets", "tx_packets"):
                values[f"device {member} {port['name']}"] = _device_counter(
                    gateway.namespace, device, member)
        return values

    def changes(self):
        """One dictionary a gateway: counter to what it grew by, only those that did."""
        result = []
        for gateway, before in zip(self.gateways, self.before):
            now = self._devices(gateway)
            now |= self._ports(gateway)
            result.append({key: now[key] - before.get(key, 0) for key in now
                           if now[key] != before.get(key, 0)})
        return result

    def ring_overflows(self):
        """Packets that reached the netdev below a port, and no worker: lost for want of CPU."""
        return sum(max(0, change.get(f"device rx_packets {port}", 0)
                       - change.get(f"rx_packets {port}", 0))
                   for change in self.changes()
                   for port in ("lan", "wan"))

    def drops(self):
        """Reason to packets, all gateways together."""
        total = {}
        for change in self.changes():
            for key, packets in change.items():
                if key.startswith("drop "):
                    total[key[5:]] = total.get(key[5:], 0) + packets
        return total

    def check_balance(self):
        """Per source: received = forwarded + to the host + dropped, once all is quiet."""
        def balanced():
            return all(
                source["held"] == 0 and source["received"] == source["forwarded"]
                + source["to_host"] + source["dropped"]
                for gateway in self.gateways for source in gateway.call("stats")["sources"])
        wait_until(balanced, "every packet that the gateways received is accounted for")


def cross(network, gateways, flows, rate, action, elsewhere=lambda: 0):
    """Probes cross, so many a second on each flow, while action() runs; asserts that each came,
    once. On two idle cores all do. Where other programs take the CPU, a ring below a port overflows
    before a gateway has seen the packet: counters tell that apart, to the packet, and when it is
    much, all is done again at half the rate. `elsewhere` counts what is lost outside espgw."""
    for rate in (rate, rate / 2, rate / 4):
        ledger, elsewhere_before = Ledger(gateways), elsewhere()
        with Crossing(network, flows, rate) as crossing:
            action()
        starved = ledger.ring_overflows() + crossing.lost_at_socket + elsewhere() - elsewhere_before
        print(f"{rate} a second and flow: {crossing.sent} sent, {crossing.lost} lost, "
              f"{starved} of them for want of CPU; dropped {ledger.drops()}")
        story = f"{crossing}\n{ledger.changes()}"
        assert crossing.duplicated == 0, story
        if starved > crossing.sent / 100:
            continue  # it says little of rekeying; even ARP is lost then
        assert crossing.lost <= starved, story  # charon's own packets may starve, too
        assert ledger.drops() == {}, story
        ledger.check_balance()
        assert crossing.rate > 0.9 * rate * len(flows), crossing
        return
    raise AssertionError(f"this machine is too busy\n{story}")


def enlarge_rings(gateway):
    for port in gateway.config["ports"]:
        port["device"] += f",{LARGE_RING}"


def second_addresses(pair):
    """Gives each site of a Pair, before its start, an address whose traffic takes tunnel02, so
    that flows cross by both tunnels. Returns the flows: both ways, by each tunnel."""
    for gateway, site, prefix, address, length in (
            (pair.b, pair.site_a, "10.1.0.128/25", "10.1.0.130", 24),
            (pair.a, pair.site_b, "192.168.192.32/27", "192.168.192.40", 26)):
        site.ip("address", "add", f"{address}/{length}", "dev", "eth0")
        gateway.config["routes"].append({"prefix": prefix, "tunnel": "tunnel02", "priority": 50})
    return [flow for a, b in ((pair.SITE_A, pair.SITE_B), ("10.1.0.130", "192.168.192.40"))
            for flow in (Flow(pair.site_a, a, pair.site_b, b),
                         Flow(pair.site_b, b, pair.site_a, a))]
