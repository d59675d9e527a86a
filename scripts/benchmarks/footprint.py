# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Memory of the real daemon, and the time from its start to the first packet that it forwards.

It runs without hugepages between two veth cables in namespaces of its own, made by what the
end-to-end tests use. Memory per tunnel, SA and route is the difference between many and few,
divided."""

import ipaddress
import json
import os
import pathlib
import secrets
import statistics
import struct
import sys
import tempfile
import threading
import time

from .arguments import mode_parser
from .common import ROOT, BenchError, Progress, built, need_root

sys.path.insert(0, str(ROOT / "tests/end-to-end"))
import testbed  # noqa: E402

LAN, WAN, HOST = "10.1.0.1", "203.0.113.1", "10.1.0.2"
FAR_NETWORK = ipaddress.ip_network("198.18.0.0/15")       # far ends of the tunnels
INTERFACES = ipaddress.ip_network("100.64.0.0/10")        # the tunnels' interface addresses
BEHIND = ipaddress.ip_network("172.16.0.0/12")            # behind the tunnels, a /28 each
ADDED_ROUTES = {"route, IPv4 /24": ("32.0.0.0/4", 24), "route, IPv6 /48": ("2001:d00::/24", 48)}
ESP = 50
WARM_UP_PACKETS = 20000
KB = 1024

HELP = """\
Measures the real daemon without hugepages, in network namespaces: resident memory with two tunnels,
and what each tunnel, SA and route adds; the time from exec to "ready", and to the first packet that
comes out as ESP. An agent that is started with the daemon adds the SA over the control socket as
soon as that can be reached, and a packet arrives every millisecond from the beginning."""

EPILOGUE = """\
Examples:
  sudo scripts/bench footprint
  sudo scripts/bench footprint --only start --starts 20
  sudo scripts/bench footprint --json

Exit status: 0 measured; 1 not; 2 the command line is wrong."""


# ---- A gateway between two cables ----

def nth(network, index, prefix_length=32):
    """The address that the index-th subnet of this length begins with."""
    return network.network_address + (index << (network.max_prefixlen - prefix_length))


def far_end(index):
    return str(nth(FAR_NETWORK, index + 1))


def configuration(tunnels, neighbour_macs, limits):
    """Neighbours are given, so that the first packet needs no ARP."""
    inside, outside = neighbour_macs
    return {
        "gateway": limits,
        "workers": {"cores": [max(os.sched_getaffinity(0))]},
        "ports": [
            {"name": "lan", "side": "inside", "addresses": [f"{LAN}/24"],
             "device": "net_af_packet0,iface=veth-lan"},
            {"name": "wan", "side": "outside", "addresses": [f"{WAN}/24"],
             "device": "net_af_packet1,iface=veth-wan"},
        ],
        "tunnels": [
            {"name": f"t{i}", "gateway_endpoint": WAN, "customer_endpoint": far_end(i),
             "interface_address": f"{nth(INTERFACES, i, 30) + 2}/30", "replay_window": 1024}
            for i in range(tunnels)
        ],
        "routes": [
            *({"prefix": f"{nth(BEHIND, i, 28)}/28", "tunnel": f"t{i}"} for i in range(tunnels)),
            {"prefix": str(FAR_NETWORK), "port": "wan", "next_hop": "203.0.113.2"},
        ],
        "neighbours": [
            {"port": "lan", "address": HOST, "mac": inside},
            {"port": "wan", "address": "203.0.113.2", "mac": outside},
        ],
    }


class Site(testbed.Network):
    """One gateway, a wire at each side of it. Its files are in memory, as /run is, and their pages
    do not count as files; or in the directory for temporary files, where writing takes time."""

    def __init__(self, tunnels=2, directory="/dev/shm", **limits):
        super().__init__()
        gateway = self.namespace("gateway", ipv6=True)
        ends = [self.namespace(label) for label in ("inside", "outside")]
        for device, end in zip(("veth-lan", "veth-wan"), ends):
            self.link(gateway, device, end, "eth0")
            end.ip("link", "set", "eth0", "arp", "off")
        self.give_to_espgw(gateway, "veth-lan", "veth-wan")
        self.inside, self.outside = (self.wire(end, "eth0") for end in ends)
        macs = self.inside.mac, self.outside.mac
        self.daemon = self.gateway(
            gateway, configuration(tunnels, macs, limits),
            directory=pathlib.Path(tempfile.mkdtemp(prefix="espgw-footprint-", dir=directory)))
        self.lan_mac = gateway.mac("veth-lan")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def memory(self):
        """Bytes of the daemon's resident memory: all, and what is no file's."""
        with open(f"/proc/{self.daemon.process.pid}/status") as status:
            lines = dict(line.split(":", 1) for line in status)
        total, files = (int(lines[name].split()[0]) * KB for name in ("VmRSS", "RssFile"))
        return {"resident": total, "of files": files, "own": total - files}

    def frame(self, index=0):
        """An Ethernet frame with a UDP packet from inside to behind the index-th tunnel."""
        return make_frame(self.lan_mac, self.inside.mac, HOST, str(nth(BEHIND, index, 28) + 1))

    def pass_packets(self, index, count):
        """Sends until so many more have come through the index-th tunnel, or ten seconds."""
        def forwarded():
            return self.daemon.source("port", "lan")["forwarded"]
        burst = [self.frame(index)] * 100
        wanted, deadline = forwarded() + count, time.monotonic() + 10
        while forwarded() < wanted:
            if time.monotonic() > deadline:
                raise BenchError(f"{count} packets did not pass within 10 s: "
                                 f"{self.daemon.drops()}")
            self.inside.send(*burst)

    def add_sa(self, direction, index=0):
        self.daemon.call("sa.add", **sa_parameters(direction, index))


def sa_parameters(direction, index=0):
    ends = (WAN, far_end(index)) if direction == "out" else (far_end(index), WAN)
    return {"tunnel": f"t{index}", "direction": direction,
            "spi": f"0x{secrets.randbelow((1 << 32) - 256) + 256:08x}",
            "key": secrets.token_hex(32), "salt": secrets.token_hex(4),
            "source": ends[0], "destination": ends[1]}


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total ^ 0xffff


def make_frame(to_mac, from_mac, source, destination, size=64):
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    udp = struct.pack("!HHHH", 2000, 3000, size - 20, 0)
    start = struct.pack("!BBHHHBB", 0x45, 0, size, 1, 0, 64, 17)
    header = start + struct.pack("!H", checksum(start + b"\0\0" + addresses)) + addresses
    ethernet = bytes.fromhex((to_mac + from_mac).replace(":", "")) + b"\x08\x00"
    return ethernet + header + udp + bytes(size - 28)


def is_esp(frame):
    return frame[12:14] == b"\x08\x00" and frame[14 + 9] == ESP


# ---- Memory ----

def memory_of_two_tunnels():
    """After the start, and when packets have passed through each tunnel."""
    with Site() as site:
        site.daemon.start()
        idle = site.memory()
        for index in range(2):
            site.add_sa("in", index)
            site.add_sa("out", index)
            site.pass_packets(index, WARM_UP_PACKETS)
        return {"idle": idle, "in use": site.memory()}


def memory_at_start(tunnels=2, **limits):
    with Site(tunnels, **limits) as site:
        site.daemon.start()
        return site.memory()["own"]


def memory_per_tunnel(count):
    return (memory_at_start(2 + count) - memory_at_start(2)) / count


def memory_per_unit_of_limit(name, few, many):
    """What room costs, whether it is used or not."""
    return (memory_at_start(**{name: many}) - memory_at_start(**{name: few})) / (many - few)


def memory_per_sa(direction, count):
    with Site(max_sas=count + 16) as site:
        site.daemon.start()
        site.add_sa(direction)  # whatever the first one takes for all
        before = site.memory()["own"]
        for _ in range(count):
            site.add_sa(direction)
        return (site.memory()["own"] - before) / count


def memory_per_route(network, length, count):
    """Prefixes at random places of the network."""
    network = ipaddress.ip_network(network)
    places = secrets.SystemRandom().sample(range(1 << (length - network.prefixlen)), count + 1)
    with Site(max_routes=count + 64) as site:
        site.daemon.start()
        before = None
        for place in places:
            site.daemon.call("route.add", tunnel="t0",
                             prefix=f"{nth(network, place, length)}/{length}")
            before = before or site.memory()["own"]
        return (site.memory()["own"] - before) / count


def measure_memory(options, progress):
    count = options.count
    result = memory_of_two_tunnels()
    each = {}

    def put(what, function, *arguments):
        progress.step(f"memory per {what}")
        each[what] = function(*arguments)
    put("tunnel", memory_per_tunnel, options.tunnels)
    put("SA in, window 1024", memory_per_sa, "in", count)
    put("SA out", memory_per_sa, "out", count)
    for what, (network, length) in ADDED_ROUTES.items():
        put(what, memory_per_route, network, length, count)
    put("SA of room (max_sas)", memory_per_unit_of_limit, "max_sas", 1024, 65536)
    put("route of room (max_routes)", memory_per_unit_of_limit, "max_routes", 4096, 65536)
    return {**result, "each": each}


# ---- Start ----

class Start:
    """One start with everything that happens beside it; `times` are seconds since exec."""

    def __init__(self, site):
        self.site, self.times, self.error = site, {}, None
        self.stop = threading.Event()

    def note(self, what):
        self.times[what] = time.monotonic() - self.began

    def send(self):
        """A packet every millisecond, from before the start."""
        frame = self.site.frame()
        while not self.stop.is_set():
            self.site.inside.send(frame)
            time.sleep(0.001)

    def act_as_agent(self):
        """Connects as soon as the socket is there, and adds the outbound SA."""
        path = self.site.daemon.config["gateway"]["control_socket"]
        while not self.stop.is_set():
            try:
                control = testbed.Control(path)
            except OSError:
                time.sleep(0.001)
                continue
            try:
                self.note("socket")
                control.call("sa.add", **sa_parameters("out"))
                self.note("sa")
            except Exception as error:  # told by the main thread
                self.error = error
            control.close()
            return

    def watch_log(self):
        while not self.stop.is_set():
            if "espgw: ready" in self.site.daemon.tail():
                self.note("ready")
                return
            time.sleep(0.001)

    def run(self):
        threads = [threading.Thread(target=target)
                   for target in (self.send, self.act_as_agent, self.watch_log)]
        self.began = time.monotonic()
        self.site.daemon.spawn()
        for thread in threads:
            thread.start()
        try:
            self.site.outside.receive(is_esp, 20, "ESP")
            self.note("first packet")
            testbed.wait_until(lambda: "ready" in self.times, "espgw is ready")
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()
        if self.error is not None:
            raise self.error
        return self.times


def measure_starts(options, progress):
    runs = []
    for number in range(options.starts):
        progress.step(f"start {number + 1} of {options.starts}")
        with Site(directory=None) as site:
            runs.append(Start(site).run())
    return {what: {"median": statistics.median(run[what] for run in runs),
                   "longest": max(run[what] for run in runs)} for what in runs[0]}


# ---- Telling ----

START_WORDS = {
    "socket": "until the control socket took the agent's connection",
    "sa": "until the agent had the reply to sa.add",
    "ready": "until it said \"ready\"",
    "first packet": "until the first ESP packet was on the outside wire",
}


def print_result(result):
    if "memory" in result:
        memory = result["memory"]
        print("Resident memory, two tunnels, limits as by default (max_sas 1024, max_routes 4096)")
        for state, words in (("idle", "after the start"),
                             ("in use", "SAs each way, packets passed")):
            figures = memory[state]
            print(f"  {words:34} {figures['resident'] / 1e6:8.1f} MB, of it program and "
                  f"libraries {figures['of files'] / 1e6:.1f} MB")
        print("\nMore of it, for each")
        for what, size in memory["each"].items():
            print(f"  {what:34} {size / 1000:8.2f} kB")
    if "start" in result:
        print("\nSeconds from exec, without hugepages: median, longest")
        for what, words in START_WORDS.items():
            times = result["start"][what]
            print(f"  {words:54} {times['median']:6.3f} {times['longest']:6.3f}")


def parse(arguments):
    parser = mode_parser("footprint", HELP, EPILOGUE, add_help=False)
    parser.add_argument("--only", choices=("memory", "start"), help="one of the two only")
    parser.add_argument("--starts", type=int, default=7, metavar="N",
                        help="starts that are timed (default: 7)")
    parser.add_argument("--count", type=int, default=2000, metavar="N",
                        help="SAs and routes to divide by (default: 2000)")
    parser.add_argument("--tunnels", type=int, default=200, metavar="N",
                        help="tunnels to divide by (default: 200)")
    parser.add_argument("--json", action="store_true", help="print JSON: bytes and seconds")
    parser.add_argument("-h", "--help", action="help", help="this text")
    options = parser.parse_args(arguments)
    for name, most in (("starts", 1000), ("count", 100000), ("tunnels", 4000)):
        if not 1 <= getattr(options, name) <= most:
            parser.error(f"--{name} {getattr(options, name)}: it must be from 1 to {most}")
    return options


def measure(options):
    need_root("it makes network namespaces")
    built("espgw")
    progress, result = Progress(8 + options.starts), {}
    try:
        if options.only != "start":
            progress.step("memory of two tunnels")
            result["memory"] = measure_memory(options, progress)
        if options.only != "memory":
            result["start"] = measure_starts(options, progress)
    except (AssertionError, testbed.ControlError) as error:
        raise BenchError(str(error)) from error
    finally:
        progress.end()
    return result


def main(arguments):
    options = parse(arguments)
    try:
        result = measure(options)
    except BenchError as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        print_result(result)
    return 0
