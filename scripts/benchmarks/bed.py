# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Programs side by side, joined by memif: the generator (dpdk-testpmd, source and sink), and what
is measured: espgw, plain forwarding (another testpmd), or DPDK's ipsec-secgw.

                 port 0          port 1   memif "inside"
    clear.pcap ─ net_pcap ───────────────────────────────┐
                 [generator]                             [measured program]
    esp.pcap ─── net_pcap ───────────────────────────────┘
                 port 2          port 3   memif "outside"

The generator forwards 0 to 1 and 2 to 3, and throws away what comes back. Where nothing is to be
sent, a net_null that gives nothing stands in place of the net_pcap.

The measured program is memif's client with zero-copy: it works on its own buffers, as with a NIC,
and the generator copies."""

import glob
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

from .common import BenchError, built

# Small rings stay in the caches: 256 descriptors did better than 1,024.
RING_LOG2 = 8
DESCRIPTORS = 1 << RING_LOG2
MEMORY_MB = 512   # of each program
START_SECONDS = 20
LINK_SECONDS, LINK_TRIES = 3, 5
GENERATOR_BUFFERS = 16384


def testpmd():
    path = shutil.which("dpdk-testpmd")
    if path is None:
        raise BenchError("dpdk-testpmd is missing, which is source and sink of the packets: "
                         "scripts/setup --for test, or apt-get install dpdk-dev")
    return path


class Telemetry:
    """DPDK's telemetry socket of a program."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self.size = json.loads(self.socket.recv(1024))["max_output_len"]

    def ask(self, command):
        self.socket.send(command.encode())
        return json.loads(self.socket.recv(self.size))[command.split(",")[0]]

    def close(self):
        self.socket.close()


class Program:
    """A process with a directory for its log and sockets."""

    def __init__(self, bed, name):
        self.bed, self.name = bed, name
        self.log = bed.directory / f"{name}.log"
        self.process = None

    def spawn(self, command, stdin=subprocess.DEVNULL):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([str(word) for word in command], stdin=stdin,
                                            stdout=log, stderr=log, env=self.bed.environment)

    def fail(self, what):
        words = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        raise BenchError(f"{self.name}: {what}\n{words}")

    def expect_running(self):
        if self.process.poll() is not None:
            self.fail(f"it ended with status {self.process.returncode}")

    def wait_until(self, condition, what):
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            self.expect_running()
            if time.monotonic() > deadline:
                self.fail(f"{what}: not in {START_SECONDS} s")
            time.sleep(0.02)

    def end(self):
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def _prefix(self):
        return f"{self.bed.prefix}-{self.name}"

    def _telemetry(self):
        """Connects, once the program answers."""
        path = self.bed.directory / "dpdk" / self._prefix() / "dpdk_telemetry.v2"

        def connect():
            try:
                return Telemetry(path)
            except OSError:
                return None
        found = []
        self.wait_until(lambda: found or found.extend(filter(None, [connect()])) or found,
                        "answers on its telemetry socket")
        return found[0]

    def _eal(self, lcores):
        memory = ["-m", MEMORY_MB] if self.bed.hugepages else ["--no-huge", "-m", MEMORY_MB]
        return ["--lcores", lcores, *memory, "--no-pci", "--file-prefix", self._prefix()]


class Source(Program):
    """Source and sink of the packets, and memif's server on both links."""

    INSIDE, OUTSIDE = 0, 1   # its ports at the links

    def __init__(self, bed, name, cores):
        super().__init__(bed, name)
        self.cores = cores
        self.telemetry = None

    def linked(self):
        return all(self.telemetry.ask(f"/ethdev/link_status,{port}")["status"] == "UP"
                   for port in (self.INSIDE, self.OUTSIDE))

    def end(self):
        if self.telemetry is not None:
            self.telemetry.close()
        super().end()


class Generator(Source):
    """dpdk-testpmd."""

    INSIDE, OUTSIDE = 1, 3   # each is fed by the one before

    def __init__(self, bed, cores):
        super().__init__(bed, "generator", cores)

    def start(self, clear, esp):
        """`clear` and `esp` are pcap files, or None where nothing is to be sent."""
        queues = len(self.cores)
        lcores = f"0@{self.cores[0]}," + ",".join(f"{i + 1}@{core}"
                                                  for i, core in enumerate(self.cores))
        devices = []
        for number, (file, link) in enumerate(((clear, "inside"), (esp, "outside"))):
            # As many files as queues: net_pcap has a queue for each.
            devices += [f"net_null{number},no-rx=1" if file is None else
                        f"net_pcap{number},infinite_rx=1" + f",rx_pcap={file}" * queues,
                        f"net_memif{number},role=server,{self.bed.link(link)}"]
        self.spawn([testpmd(), *self._eal(lcores), "--in-memory" if self.bed.hugepages else
                    "--log-level=notice", *(f"--vdev={device}" for device in devices), "--", "-i",
                    "--forward-mode=io", "--port-topology=paired", "--no-flush-rx",
                    f"--rxq={queues}", f"--txq={queues}", f"--nb-cores={queues}",
                    f"--rxd={DESCRIPTORS}", f"--txd={DESCRIPTORS}",
                    f"--total-num-mbufs={GENERATOR_BUFFERS}"], stdin=subprocess.PIPE)
        self.telemetry = self._telemetry()
        self.wait_until(lambda: self._listens() and self._prompts(), "is ready")

    def _prompts(self):
        return "testpmd> " in self.log.read_text(errors="replace")

    def _listens(self):
        return all(self.bed.socket(link).exists() for link in ("inside", "outside"))

    def tell(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def counters(self):
        """Per link: when, packets offered to it, sent to it, and received from it."""
        result = {}
        for link, port in (("inside", self.INSIDE), ("outside", self.OUTSIDE)):
            fed = self.telemetry.ask(f"/ethdev/stats,{port - 1}")
            stats = self.telemetry.ask(f"/ethdev/stats,{port}")
            result[link] = {"time": time.monotonic(), "offered": fed["ipackets"],
                            "sent": stats["opackets"], "received": stats["ipackets"],
                            "received_bytes": stats["ibytes"]}
        return result

    def end(self):
        if self.process is not None and self.process.poll() is None:
            try:
                self.tell("quit")
                self.process.wait(10)
            except (OSError, subprocess.TimeoutExpired):
                pass
            self.process.stdin.close()
        super().end()


class Gateway(Program):
    """espgw itself, in a network namespace of its own, so that its TAPs meet nobody's."""

    TUNNEL = "tunnel01"

    def __init__(self, bed, cores):
        super().__init__(bed, "espgw")
        self.cores = cores
        self.control = bed.directory / "control.sock"

    def start(self, network, out_key, in_key):
        file = self.bed.directory / "espgw.conf"
        file.write_text(self._config(network))
        # As it connects, memif's client may close a descriptor that it has closed already, and
        # which is something else's by then: a control connection's, so none is made before the
        # links are up; or the other link's, which then never comes up.
        tries = 0
        while not self._start_and_link(file):
            self.end()
            tries += 1
            if tries == LINK_TRIES:
                self.fail(f"its links did not come up, {tries} times")
        self.add_sa("out", out_key)
        # The same packets come again and again, so the window is off.
        self.add_sa("in", in_key, "--replay-window", "0")

    def _start_and_link(self, file):
        # Without IPv6 the kernel sends nothing of its own from the TAPs.
        quiet = 'echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6; exec "$@"'
        self.log.unlink(missing_ok=True)
        self.spawn(["unshare", "--net", "--", "sh", "-c", quiet, "sh", built("espgw"), "--config",
                    file])
        self.wait_until(lambda: "espgw: ready" in self.log.read_text(errors="replace"), "is ready")
        deadline = time.monotonic() + LINK_SECONDS
        while time.monotonic() < deadline:
            self.expect_running()
            self.bed.generator.expect_running()
            if self.bed.generator.linked():
                return True
            time.sleep(0.02)
        return False

    def _config(self, network):
        hugepages = f"hugepages = {'true' if self.bed.hugepages else 'false'};"
        ports = ",\n".join(f"""  {{
    name = "{name}"; side = "{name}"; addresses = [ "{address}/24" ];
    device = "net_memif{i},role=client,zero-copy=yes,mac={mac},{self.bed.link(name)}";
    rx_descriptors = {1 << self.bed.ring_log2}; tx_descriptors = {1 << self.bed.ring_log2};
  }}""" for i, (name, address, mac) in enumerate((
            ("inside", network.inside, network.inside_mac),
            ("outside", network.outside, network.outside_mac))))
        return f"""gateway = {{
  name = "b{os.getpid()}";
  control_socket = "{self.control}";
  run_directory = "{self.bed.directory}/run";
  state_directory = "{self.bed.directory}/state";
  {hugepages} memory_mb = {MEMORY_MB};
}};
workers = {{ cores = [ {", ".join(map(str, self.cores))} ]; }};
ports = (
{ports}
);
tunnels = ( {{
  name = "{self.TUNNEL}"; interface_address = "169.254.244.2/30";
  gateway_endpoint = "{network.outside}"; customer_endpoint = "{network.far}";
  udp_encapsulation = false; health = {{ enabled = false; }};
}} );
routes = ( {{ prefix = "{network.remote}"; tunnel = "{self.TUNNEL}"; }} );
neighbours = (
  {{ port = "inside"; address = "{network.host}"; mac = "{network.host_mac}"; }},
  {{ port = "outside"; address = "{network.far}"; mac = "{network.far_mac}"; }}
);
"""

    def espctl(self, *arguments, given=None):
        done = subprocess.run([built("espctl"), "--socket", self.control, "--json",
                               *map(str, arguments)], input=given, text=True, timeout=30,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode != 0:
            raise BenchError(f"espctl {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def add_sa(self, direction, key, *options, tunnel=TUNNEL):
        self.espctl("sa", "add", tunnel, direction, hex(key.spi), "--keys", "-", *options,
                    given=f"key = {key.key[:32].hex()}\nsalt = {key.key[32:].hex()}\n")

    def state(self):
        """Counters now: time, what came by the ports, where it went, drops, the workers' loops."""
        before = time.monotonic()
        stats = self.espctl("stats")
        now = (before + time.monotonic()) / 2
        ports = [source for source in stats["sources"] if source["source"] == "port"]
        drops = {}
        for source in ports:
            for reason, packets in source["drops"].items():
                drops[reason] = drops.get(reason, 0) + packets
        return {"time": now, "drops": drops, "crypto": stats["crypto"],
                "received": sum(source["received"] for source in ports),
                "received_bytes": sum(source["received_bytes"] for source in ports),
                "forwarded": sum(source["forwarded"] for source in ports),
                "busy_loops": sum(worker["busy_loops"] for worker in stats["workers"]),
                "busy_cycles": sum(worker["busy_cycles"] for worker in stats["workers"]),
                "cycles": sum(worker["cycles"] for worker in stats["workers"])}


class Forwarder(Program):
    """Plain forwarding between the two links: the baseline."""

    def __init__(self, bed, cores):
        super().__init__(bed, "plain")
        self.cores = cores

    def start(self, _network, _out_key, _in_key):
        queues = len(self.cores)
        lcores = f"0@{self.bed.generator.cores[0]}," + ",".join(
            f"{i + 1}@{core}" for i, core in enumerate(self.cores))
        self.spawn([testpmd(), *self._eal(lcores), "--single-file-segments",
                    *self.bed.client_devices(), "--", "--forward-mode=io",
                    "--port-topology=paired", "--no-flush-rx", f"--rxq={queues}",
                    f"--txq={queues}", f"--nb-cores={queues}", f"--rxd={DESCRIPTORS}",
                    f"--txd={DESCRIPTORS}", f"--total-num-mbufs={GENERATOR_BUFFERS}"],
                   stdin=subprocess.PIPE)

    def end(self):
        if self.process is not None:
            self.process.stdin.close()
        super().end()


class Secgw(Program):
    """DPDK's example ipsec-secgw, built by the user, with the same two SAs."""

    def __init__(self, bed, cores, program):
        super().__init__(bed, "secgw")
        self.cores, self.program = cores, program

    def start(self, network, out_key, in_key):
        file = self.bed.directory / "secgw.cfg"
        file.write_text(self._config(network, out_key, in_key))
        lcores = ",".join(f"{i}@{core}" for i, core in enumerate(self.cores))
        queues = ",".join(f"({port},{queue},{queue})" for port in (0, 1)
                          for queue in range(len(self.cores)))
        # Line by line, so that its last words are in the log when it gives up.
        self.spawn(["stdbuf", "-oL", self.program, *self._eal(lcores), "--single-file-segments",
                    *self.bed.client_devices(network), "--vdev=crypto_aesni_gcm0",
                    "--", "-p", "0x3", "-P", "-u", "0x2", "-f", file, f"--config={queues}",
                    *self.bed.secgw_options])

    @staticmethod
    def _config(network, out_key, in_key):
        any_port = "sport 0:65535 dport 0:65535"

        def sa(direction, key, source, destination):
            return (f"sa {direction} {key.spi} aead_algo aes-256-gcm aead_key {key.key.hex(':')} "
                    f"mode ipv4-tunnel src {source} dst {destination}\n")
        host_prefix = network.host.rsplit(".", 1)[0] + ".0/24"
        return (f"sp ipv4 out esp protect {out_key.spi} pri 1 dst {network.remote} {any_port}\n"
                f"sp ipv4 in esp protect {in_key.spi} pri 1 dst {host_prefix} {any_port}\n"
                + sa("out", out_key, network.outside, network.far)
                + sa("in", in_key, network.far, network.outside)
                + f"rt ipv4 dst {host_prefix} port 0\nrt ipv4 dst {network.far}/32 port 1\n"
                f"neigh port 0 {network.host_mac}\nneigh port 1 {network.far_mac}\n")


class Bed:
    """A directory, the generator, and one program that is measured. Takes away what it made."""

    def __init__(self, directory, hugepages, generator_cores, secgw_options=()):
        self.directory, self.hugepages = pathlib.Path(directory), hugepages
        self.ring_log2 = RING_LOG2
        self.secgw_options = secgw_options
        self.prefix = f"espgw-bench-{os.getpid()}"
        self.environment = {**os.environ, "RUNTIME_DIRECTORY": str(self.directory)}
        self.generator = Generator(self, generator_cores)
        self.measured = None

    def socket(self, link):
        return self.directory / f"{link}.sock"

    def link(self, name):
        return f"socket={self.socket(name)},socket-abstract=no,rsize={self.ring_log2}"

    def client_devices(self, network=None):
        macs = ("", "") if network is None else (f",mac={network.inside_mac}",
                                                 f",mac={network.outside_mac}")
        return [f"--vdev=net_memif{i},role=client,zero-copy=yes,{self.link(name)}{macs[i]}"
                for i, name in enumerate(("inside", "outside"))]

    def close(self):
        for program in (self.measured, self.generator):
            if program is not None:
                program.end()
        for link in ("inside", "outside"):
            self.socket(link).unlink(missing_ok=True)
        for file in self._hugepage_files():
            os.unlink(file)

    def _hugepage_files(self):
        """Files of the measured program's memory: memif's server needs them while it runs."""
        mounts = [line.split()[1] for line in open("/proc/mounts", encoding="utf-8")
                  if line.split()[2] == "hugetlbfs"]
        names = (f"{self.prefix}-*map_*", f"espgw-b{os.getpid()}map_*")
        return [file for mount in mounts for name in names
                for file in glob.glob(f"{glob.escape(mount)}/{name}")]
