# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Networks for the tests: namespaces, cables, raw wires, gateways. Each Network takes away what it
made: processes by their id, namespaces by their name, which nobody else uses."""

import contextlib
import copy
import ctypes
import errno
import itertools
import json
import math
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("ESPGW_BUILD", ROOT / "build")).resolve()
ESPGW = BUILD / "app/espgw/espgw"
ESPCTL = BUILD / "app/espctl/espctl"
# Sanitizers and emulation are slower: all waiting is multiplied by this.
PATIENCE = float(os.environ.get("ESPGW_TEST_PATIENCE", "1"))

CLONE_NEWNET = 0x40000000

networks = []  # those that exist now, for the logs of a failed test
_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


def wait_until(condition, what, seconds=5.0, interval=0.02):
    """Returns the condition's first true result."""
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds * PATIENCE} s: {what}")
        time.sleep(interval)


def can_burst():
    """Whether this CPU can run a burst cipher, by AVX-512 or AVX2."""
    flags = next(line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                 if line.startswith("flags"))
    return {"vaes", "vpclmulqdq", "avx2", "bmi2"} <= set(flags.split())


def run(*command, check=True, timeout=60, preexec_fn=None):
    done = subprocess.run([str(word) for word in command], text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                          preexec_fn=preexec_fn)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit status {done.returncode}\n"
                             f"{done.stdout}{done.stderr}")
    return done


class Namespace:
    """A network namespace without IPv6, unless asked for: no stray multicast."""

    def __init__(self, label, ipv6=False):
        self.label = label
        self.name = f"espgw{os.getpid()}-{next(_numbers)}-{label}"
        run("ip", "netns", "add", self.name)
        self.sysctl("net.ipv4.ip_forward", 0)
        self.sysctl("net.ipv4.conf.all.rp_filter", 0)
        self.sysctl("net.ipv4.conf.default.rp_filter", 0)
        for which in ("all", "default"):
            self.sysctl(f"net.ipv6.conf.{which}.disable_ipv6", 0 if ipv6 else 1)
            self.sysctl(f"net.ipv6.conf.{which}.accept_dad", 0)
        self.ip("link", "set", "lo", "up")

    def sysctl(self, key, value):
        with self.entered():
            pathlib.Path("/proc/sys", *key.split(".")).write_text(f"{value}\n")

    def ip(self, *arguments, check=True):
        return run("ip", "-n", self.name, *arguments, check=check).stdout

    # Programs enter by setns alone: `ip netns exec` would mount /sys anew, and unmounting waits
    # for whoever is busy in the kernel.
    def run(self, *command, **options):
        return run(*command, preexec_fn=self._enter, **options)

    def popen(self, *command, **options):
        return subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                                preexec_fn=self._enter, **options)

    def _enter(self):
        with open(f"/run/netns/{self.name}") as there:
            if _libc.setns(there.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"setns {self.name}")

    @contextlib.contextmanager
    def entered(self):
        """This thread is in the namespace; sockets made meanwhile stay there."""
        with open("/proc/thread-self/ns/net") as home:
            self._enter()
            try:
                yield
            finally:
                _libc.setns(home.fileno(), CLONE_NEWNET)

    def mac(self, device):
        with self.entered():
            # /sys shows the namespace of whoever mounted it; this asks the present one.
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as packet:
                packet.bind((device, 0))
                return ":".join(f"{byte:02x}" for byte in packet.getsockname()[4])

    def ping(self, address, count=5, interval=0.02, size=56, check=True, *more):
        """Pings and returns (answers, their round trips in milliseconds)."""
        # -W alone would wait two round trips for the last answer. With -w, ping waits until all are
        # answered, or so long.
        seconds = math.ceil(count * float(interval)) + max(1, int(2 * PATIENCE))
        done = self.run("ping", "-c", count, "-i", interval, "-w", seconds, "-s", size, *more,
                        address, check=False, timeout=120)
        times = [float(line.split("time=")[1].split()[0])
                 for line in done.stdout.splitlines() if "time=" in line]
        if check:
            seen = [int(line.split("icmp_seq=")[1].split()[0])
                    for line in done.stdout.splitlines() if "time=" in line]
            odd = [number for number in range(1, count + 1) if seen.count(number) != 1]
            assert not odd, (f"ping from {self.label} to {address}: not answered just once: {odd}"
                             f"\n{done.stdout[-300:]}{done.stderr}")
        return len(times), times

    def wait_for(self, address, seconds=5):
        """Until the address answers a ping: neighbours on the way are resolved then."""
        wait_until(lambda: self.run("ping", "-q", "-c", 1, "-W", 0.3, address,
                                    check=False).returncode == 0,
                   f"a ping from {self.label} to {address} is answered", seconds)

    def close(self):
        run("ip", "netns", "delete", self.name, check=False)


class Wire:
    """Raw frames at a device. What the device sends itself is not seen."""

    PACKET_IGNORE_OUTGOING = 23
    SOL_PACKET = 263
    SO_RCVBUFFORCE = 33

    def __init__(self, namespace, device):
        self.namespace, self.device = namespace, device
        self.mac = namespace.mac(device)
        with namespace.entered():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self.socket.setsockopt(self.SOL_PACKET, self.PACKET_IGNORE_OUTGOING, 1)
            self.socket.setsockopt(socket.SOL_SOCKET, self.SO_RCVBUFFORCE, 16 << 20)
            self.socket.bind((device, 3))  # ETH_P_ALL
        self.socket.setblocking(False)

    def send(self, *frames):
        for frame in frames:
            deadline = time.monotonic() + 2
            while True:
                try:
                    self.socket.send(bytes(frame))
                    break
                except OSError as error:
                    # ENETDOWN is told once after the link was down.
                    passing = (errno.EAGAIN, errno.ENOBUFS, errno.ENETDOWN)
                    if error.errno not in passing or time.monotonic() > deadline:
                        raise
                    time.sleep(0.0005)

    def sockets_ready(self, seconds):
        """The socket, as often as it has a frame, until so long has passed."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            ready = select.select([self.socket], [], [], max(0.0, left))[0]
            if ready:
                yield self.socket
            elif left <= 0:
                return

    def frames(self, seconds):
        """Frames as they come, until so long has passed."""
        for ready in self.sockets_ready(seconds):
            yield ready.recv(65536)

    def flush(self):
        for _ in self.frames(0):
            pass

    def receive(self, match, seconds=2.0, what="a matching frame"):
        """The first frame for which match(bytes) gives something true; that is returned."""
        for frame in self.frames(seconds * PATIENCE):
            result = match(frame)
            if result:
                return result
        raise AssertionError(f"{what} did not arrive at {self.device} within {seconds} s")

    def collect(self, match, seconds, count=None):
        """All that match(bytes) makes something of within the time, or the first `count`."""
        found = []
        for frame in self.frames(seconds * PATIENCE):
            result = match(frame)
            if result:
                found.append(result)
                if len(found) == count:
                    break
        return found

    def nothing(self, match, seconds=0.2):
        found = self.collect(match, seconds)
        assert not found, f"{len(found)} frames at {self.device} that should not be: {found[:3]}"

    def close(self):
        self.socket.close()


class ControlError(Exception):
    def __init__(self, error):
        super().__init__(f"{error.get('data', {}).get('name')}: {error['message']}")
        self.name = error.get("data", {}).get("name")
        self.code, self.message = error["code"], error["message"]


class Control:
    """A connection to the control socket, as docs/control-protocol.md describes it."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10 * PATIENCE)
        self.socket.connect(str(path))
        self.unread = b""
        self.numbers = itertools.count(1)
        self.events = []
        self.hello = self.call("hello", protocol=1, client="tests/1")

    def _read(self, seconds=10 * PATIENCE):
        """The next message, or None when there is none in time."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self.unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                return None
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError("the gateway closed the control connection")
            self.unread += data
        line, self.unread = self.unread.split(b"\n", 1)
        return json.loads(line)

    def call(self, method, **parameters):
        number = next(self.numbers)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": parameters}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            reply = self._read()
            assert reply is not None, f"no reply to {method}"
            if reply.get("method") == "event":
                self.events.append(reply["params"])
                continue
            assert reply["id"] == number, reply
            if "error" in reply:
                raise ControlError(reply["error"])
            return reply["result"]

    def event(self, name, seconds=5.0):
        """Waits for the next event of this name; those before it are kept."""
        deadline = time.monotonic() + seconds * PATIENCE
        while True:
            for i, event in enumerate(self.events):
                if event["event"] == name:
                    return self.events.pop(i)
            message = self._read(deadline - time.monotonic())
            assert message is not None, f"no event {name} within {seconds} s, but {self.events}"
            assert message.get("method") == "event", message
            self.events.append(message["params"])

    def close(self):
        self.socket.close()


def libconfig(value, indent=0):
    """A Python value as libconfig text: dict = group, list of dicts or lists = list, else array."""
    pad = "\t" * indent
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, dict):
        lines = [f"{pad}\t{key} = {libconfig(item, indent + 1)};\n" for key, item in value.items()]
        return "{\n" + "".join(lines) + pad + "}"
    items = ", ".join(libconfig(item, indent) for item in value)
    if value and isinstance(value[0], (dict, list)):
        return f"( {items} )"
    return f"[ {items} ]"


def write_config(path, config):
    path.write_text("".join(f"{key} = {libconfig(item)};\n" for key, item in config.items()))


class Daemon:
    """A program that a test starts and ends. Whoever derives from it sets `process` and `label`."""

    process = None

    def end(self, number=signal.SIGTERM, seconds=10):
        """Ends the process and returns its exit status; None when there was none."""
        if self.process is None:
            return None
        self.process.send_signal(number)
        try:
            return self.process.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.label} did not end within {seconds} s of "
                                 f"{signal.Signals(number).name}")

    def kill(self):
        self.end(signal.SIGKILL)

    @property
    def alive(self):
        return self.process is not None and self.process.poll() is None


class Gateway(Daemon):
    """An espgw of its own in a namespace. `config` may be changed until start."""

    def __init__(self, namespace, config, directory=None):
        self.namespace = namespace
        self.directory = directory or pathlib.Path(tempfile.mkdtemp(prefix="espgw-test-"))
        number = next(_numbers)
        self.config = {"gateway": {
            "name": f"t{os.getpid()}-{number}"[:15],
            "control_socket": str(self.directory / "control.sock"),
            "run_directory": str(self.directory / "run"),
            "state_directory": str(self.directory / "state"),
            "hugepages": False,
        }}
        config = copy.deepcopy(config)
        self.config["gateway"].update(config.pop("gateway", {}))
        self.config["workers"] = {"cores": [0]}
        self.config["workers"].update(config.pop("workers", {}))
        self.config.update(config)
        self.log = self.directory / "log"
        self.process = None
        self._control = None

    @property
    def label(self):
        return self.namespace.label

    @property
    def file(self):
        return self.directory / "espgw.conf"

    def spawn(self):
        """Starts the process without waiting for it to be ready."""
        write_config(self.file, self.config)
        with open(self.log, "a") as log:
            self.process = self.namespace.popen(ESPGW, "--config", self.file, stdout=log,
                                                stderr=log)
        return self

    def start(self):
        since = self.log.stat().st_size if self.log.exists() else 0
        self.spawn()

        def ready():
            assert self.process.poll() is None, \
                f"{self.label} ended with {self.process.returncode} at its start:\n{self.tail()}"
            with open(self.log, errors="replace") as log:
                log.seek(since)
                return "espgw: ready" in log.read()
        wait_until(ready, f"{self.label} is ready", 20)
        return self

    @property
    def control(self):
        if self._control is None:
            self._control = Control(self.config["gateway"]["control_socket"])
        return self._control

    def connect(self):
        """One more connection, which the caller closes."""
        return Control(self.config["gateway"]["control_socket"])

    def call(self, method, **parameters):
        return self.control.call(method, **parameters)

    def espctl(self, *arguments, check=True):
        return run(ESPCTL, "--socket", self.config["gateway"]["control_socket"], *arguments,
                   check=check)

    def disconnect(self):
        if self._control is not None:
            self._control.close()
            self._control = None

    def end(self, number=signal.SIGTERM, seconds=10):
        """Ends the process and returns its exit status."""
        self.disconnect()
        return super().end(number, seconds)

    def stop(self):
        status = self.end()
        assert status in (0, None), f"{self.label} stopped with {status}:\n{self.tail()}"

    def tail(self, lines=60):
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    # ---- counters ----

    def drops(self):
        """Reason to packets, of those that occurred."""
        return {entry["reason"]: entry["packets"] for entry in self.call("drops")["drops"]}

    def tunnel(self, name):
        return self.call("tunnel.show", tunnel=name)["tunnel"]

    def port(self, name):
        return next(port for port in self.call("port.list")["ports"] if port["name"] == name)

    def source(self, kind, port=None):
        return next(source for source in self.call("stats")["sources"]
                    if source["source"] == kind and source.get("port") == port)

    def routes(self, **wanted):
        """All routes whose members are as wanted."""
        found, after = [], {}
        while True:
            page = self.call("route.list", **after)
            found += [route for route in page["routes"]
                      if all(route.get(key) == value for key, value in wanted.items())]
            if "next" not in page:
                return found
            after = {"after": page["next"]}

    @contextlib.contextmanager
    def dropping(self, **expected):
        """What happens inside is dropped under exactly these reasons, so many packets each."""
        before = self.drops()
        yield

        def difference():
            now = self.drops()
            return {reason: now[reason] - before.get(reason, 0) for reason in now
                    if now[reason] != before.get(reason, 0)}
        with contextlib.suppress(AssertionError):
            wait_until(lambda: difference() == expected, "", 1.5)
            time.sleep(0.03)  # nothing else comes after it
        assert difference() == expected

    def close(self):
        self.disconnect()
        if self.alive:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class Network:
    """Everything that one test, or one module of tests, has set up."""

    def __init__(self):
        self.namespaces, self.gateways, self.wires, self.processes = [], [], [], []
        self.parts = []  # others that close, and have logs
        networks.append(self)

    def namespace(self, label, **options):
        self.namespaces.append(Namespace(label, **options))
        return self.namespaces[-1]

    def link(self, left, left_device, right, right_device, mtu=1500):
        """A cable between two namespaces, with all offloads off."""
        run("ip", "link", "add", left_device, "mtu", mtu, "netns", left.name, "type", "veth",
            "peer", "name", right_device, "mtu", mtu, "netns", right.name)
        for namespace, device in ((left, left_device), (right, right_device)):
            namespace.run("ethtool", "-K", device, "rx", "off", "tx", "off", "tso", "off", "gso",
                          "off", "gro", "off")
            namespace.ip("link", "set", device, "up")

    def give_to_espgw(self, namespace, *devices):
        """The kernel below net_af_packet receives every frame too: it shall not answer."""
        for device in devices:
            namespace.ip("link", "set", device, "arp", "off")
            namespace.sysctl(f"net.ipv4.conf.{device}.rp_filter", 1)
            namespace.sysctl(f"net.ipv6.conf.{device}.disable_ipv6", 1)

    def wire(self, namespace, device):
        self.wires.append(Wire(namespace, device))
        return self.wires[-1]

    def gateway(self, namespace, config, **options):
        self.gateways.append(Gateway(namespace, config, **options))
        return self.gateways[-1]

    def keep(self, part):
        self.parts.append(part)
        return part

    def popen(self, namespace, *command, **options):
        process = namespace.popen(*command, **options)
        self.processes.append(process)
        return process

    def logs(self):
        return [*((f"log of {gateway.label}", gateway.tail(100)) for gateway in self.gateways),
                *(log for part in self.parts for log in part.logs())]

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for part in (*self.wires, *self.parts, *self.gateways, *self.namespaces):
            part.close()
        networks.remove(self)
