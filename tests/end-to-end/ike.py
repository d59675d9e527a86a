# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""IKE for the tests: strongSwan's charon, Debian's own, on either side of a tunnel.

Charon      one daemon in a namespace. Its /run, its plugins and its configuration are private.
AwsEndpoint what AWS puts at the far end of one tunnel: charon with kernel-libipsec, which does
            ESP in user space and always in UDP 4500.
AwsNetwork  a site, an espgw with charon and the kernel-espgw plugin, two AwsEndpoints, and what
            lies behind them.
IkePair     two espgw, each with a charon, without NAT: plain ESP.
Pinger      a ping in the background.
Relay       between plugin and gateway: what was asked of the gateway."""

import contextlib
import json
import os
import pathlib
import re
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

from scapy.layers.inet import UDP

import esp
from testbed import BUILD, PATIENCE, ROOT, Daemon, run, wait_until
from topologies import Pair

CHARON = pathlib.Path("/usr/lib/ipsec/charon")
SWANCTL = pathlib.Path("/usr/sbin/swanctl")
PLUGINS = pathlib.Path("/usr/lib/ipsec/plugins")
PLUGIN = "libstrongswan-kernel-espgw.so"

# What every charon loads; "kernel" is the plugin that carries ESP.
COMMON_PLUGINS = ("random", "nonce", "openssl", "pem", "pkcs1", "pubkey", "kdf", "gcm", "aesni",
                  "aes", "sha2", "hmac", "drbg", "{kernel}", "kernel-netlink", "socket-default",
                  "updown", "counters", "vici")

PROPOSALS = {14: ("aes256gcm16-prfsha256-modp2048", "aes256gcm16-modp2048"),
             20: ("aes256gcm16-prfsha256-ecp384", "aes256gcm16-ecp384")}

# A dead peer is noticed within about 3 s: 0.5 + 0.7 + 0.98 + ... seconds of retransmission. A busy
# machine may deliver several of a starting peer's messages at once, which is no attack.
SETTINGS = {"retransmit_tries": 3, "retransmit_timeout": 0.5 * PATIENCE, "retransmit_base": 1.4,
            "retry_initiate_interval": 1, "make_before_break": True, "dos_protection": False}


def plugin_file():
    """The kernel-espgw plugin: ESPGW_PLUGIN, or meson's, or built now by scripts/setup-strongswan
    into the build directory (when its sources changed)."""
    if "ESPGW_PLUGIN" in os.environ:
        return pathlib.Path(os.environ["ESPGW_PLUGIN"]).resolve()
    meson = BUILD / "app/charon-espgw" / PLUGIN
    if meson.exists():
        return meson
    cache = BUILD / "kernel-espgw"
    built = cache / PLUGIN
    sources = [path for folder in ("app/charon-espgw", "lib/client")
               for path in (ROOT / folder).glob("*.[ch]")]
    newest = max(path.stat().st_mtime for path in sources)
    if not built.exists() or built.stat().st_mtime < newest:
        cache.mkdir(exist_ok=True)
        run(ROOT / "scripts/setup-strongswan", "--build-only", cache, timeout=300)
        built.touch()
    return built


def braces(value, indent=0):
    """A Python dict as text for strongswan.conf and swanctl.conf."""
    pad = "\t" * indent
    lines = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines.append(f"{pad}{key} {{\n{braces(item, indent + 1)}{pad}}}\n")
        elif isinstance(item, bool):
            lines.append(f"{pad}{key} = {'yes' if item else 'no'}\n")
        elif isinstance(item, (list, tuple)):
            lines.append(f"{pad}{key} = {','.join(map(str, item))}\n")
        else:
            lines.append(f"{pad}{key} = {item}\n")
    return "".join(lines)


def merge(base, more):
    """The dict `base` with what `more` sets, at any depth; None removes."""
    result = dict(base)
    for key, value in more.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        else:
            result[key] = value
    return result


def connection(local, remote, psk, dh=14, child=None, **options):
    """A connection as the guides configure it: (connection, secret). `local` and `remote` are
    addresses and, unless local_id and remote_id are given, identities. `child` and the other
    options overwrite settings of swanctl.conf."""
    ike_proposal, esp_proposal = PROPOSALS[dh]
    local_id, remote_id = options.pop("local_id", local), options.pop("remote_id", remote)
    made = {
        "version": 2, "local_addrs": local, "remote_addrs": remote, "proposals": ike_proposal,
        "mobike": False, "keyingtries": 0, "dpd_delay": "10s", "rekey_time": "8h",
        "local": {"auth": "psk", "id": local_id}, "remote": {"auth": "psk", "id": remote_id},
        "children": {"net": {
            "local_ts": "0.0.0.0/0", "remote_ts": "0.0.0.0/0", "esp_proposals": esp_proposal,
            "rekey_time": "1h", "dpd_action": "restart", "start_action": "none",
        }},
    }
    if child:
        made["children"]["net"] = merge(made["children"]["net"], child)
    # Both identities: one secret per tunnel, though the gateway's end is the same for both.
    secret = {"id-a": local_id, "id-b": remote_id, "secret": f'"{psk}"'}
    return merge(made, options), secret


def parse_raw(text):
    """What `swanctl --raw` prints: a list of (name, message)."""
    tokens = re.findall(r"[{}\[\]]|[^\s{}\[\]]+", text)
    position = 0

    def section():
        nonlocal position
        result = {}
        while position < len(tokens) and tokens[position] != "}":
            word = tokens[position]
            position += 1
            if position < len(tokens) and tokens[position] == "{":
                position += 1
                result[word] = section()
                position += 1
            elif word.endswith("=") and tokens[position] == "[":
                end = tokens.index("]", position)
                result[word[:-1]] = tokens[position + 1:end]
                position = end + 1
            elif "=" in word:
                key, _, value = word.partition("=")
                result[key] = last = value
                while position < len(tokens) and "=" not in tokens[position] \
                        and tokens[position] not in "{}[]" \
                        and tokens[position + 1:position + 2] != ["{"]:
                    last += " " + tokens[position]
                    result[key] = last
                    position += 1
        return result

    messages = []
    while position < len(tokens):
        words = []
        while position < len(tokens) and tokens[position] != "{":
            words.append(tokens[position])
            position += 1
        position += 1
        messages.append((" ".join(words), section()))
        position += 1
    return messages


class Charon(Daemon):
    """A charon of its own in a namespace. `connections` (name to connection() result) and
    `settings` (those of strongswan.conf's section charon) may be changed until start; connections
    also later, followed by load()."""

    def __init__(self, namespace, label, kernel="kernel-libipsec", plugin_settings=None,
                 settings=None, connections=None):
        self.namespace, self.label, self.kernel = namespace, label, kernel
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="espgw-ike-"))
        self.plugins = [name.format(kernel=kernel) for name in COMMON_PLUGINS]
        self.log = self.directory / "log"
        self.vici = self.directory / "vici"
        self.connections = connections or {}
        self.process = None
        plugin = {"vici": {"socket": f"unix://{self.vici}"}}
        if plugin_settings:
            plugin[kernel] = plugin_settings
        levels = {"default": 1, "knl": 2, "chd": 2}  # what is done to each SA
        self.settings = merge({
            **SETTINGS, "threads": 16, "install_virtual_ip": False, "plugins": plugin,
            "filelog": {"log": {"path": str(self.log), "time_format": "%H:%M:%S",
                                "time_add_ms": True, "flush_line": True,
                                "ike_name": True, **levels}},
        }, settings or {})

    def _write(self):
        settings = {"load": " ".join(self.plugins), **self.settings}
        (self.directory / "strongswan.conf").write_text(
            braces({"charon": settings, "swanctl": {"load": "random pem pkcs1 pubkey openssl"}}))
        private = self.directory / "plugins"
        private.mkdir(exist_ok=True)
        for name in self.plugins:
            file = f"libstrongswan-{name}.so"
            shutil.copy(plugin_file() if file == PLUGIN else PLUGINS / file, private / file)

    @property
    def environment(self):
        return {**os.environ, "STRONGSWAN_CONF": str(self.directory / "strongswan.conf"),
                "SWANCTL_DIR": str(self.directory)}

    def start(self, load=True):
        """Until it listens to swanctl; then its connections are loaded, and those with
        start_action = start set out."""
        self._write()
        self.vici.unlink(missing_ok=True)
        # Each has a /run of its own, since the name of the pid file is compiled in, and so is the
        # plugins' folder.
        private = ("mount -t tmpfs tmpfs /run && mount --bind \"$0\" \"$1\" && exec \"$2\"")
        with open(self.directory / "output", "a") as output:
            self.process = self.namespace.popen(
                "unshare", "-m", "--propagation", "private", "sh", "-c", private,
                self.directory / "plugins", PLUGINS, CHARON, env=self.environment, stdout=output,
                stderr=output)
        wait_until(self._listens, f"charon of {self.label} listens", 10)
        if load:
            self.load()
        return self

    def _listens(self):
        assert self.alive, f"charon of {self.label} ended at its start:\n{self.tail()}"
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(str(self.vici))
            return True
        return False

    def swanctl(self, *arguments, check=True, timeout=30):
        done = subprocess.run([str(SWANCTL), *map(str, arguments), "--uri", f"unix://{self.vici}"],
                              env=self.environment, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"swanctl {' '.join(map(str, arguments))} of {self.label}: exit "
                                 f"status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def load(self):
        config = {"connections": {name: made for name, (made, _) in self.connections.items()},
                  "secrets": {f"ike-{name}": secret
                              for name, (_, secret) in self.connections.items()}}
        (self.directory / "swanctl.conf").write_text(braces(config))
        self.swanctl("--load-all", "--noprompt", "--file", self.directory / "swanctl.conf")

    def initiate(self, name, seconds=10, check=True):
        """Until the child SA of the connection is up; returns whether it is."""
        return self.swanctl("--initiate", "--ike", name, "--child", "net", "--timeout",
                            int(seconds * PATIENCE), check=check).returncode == 0

    def rekey(self, name, ike=False):
        """Sets out to rekey the connection's child SA, or its IKE SA."""
        if ike:
            return self.swanctl("--rekey", "--ike", name)
        child = self.child(name)
        return self.swanctl("--rekey", "--child-id", child["uniqueid"])

    def terminate(self, name, force=False, check=True):
        return self.swanctl("--terminate", "--ike", name, *(["--force"] if force else []),
                            "--timeout", 10, check=check)

    def sas(self, name=None):
        """IKE SAs of a connection, or of all; each with its name, its child SAs as `children`."""
        found = []
        for _, message in parse_raw(self.swanctl("--list-sas", "--raw").stdout):
            for connection_name, sa in message.items():
                if not isinstance(sa, dict):
                    continue
                sa = {**sa, "name": connection_name,
                      "children": list(sa.get("child-sas", {}).values())}
                if name in (None, connection_name):
                    found.append(sa)
        return found

    def children(self, name, state="INSTALLED"):
        return [child for sa in self.sas(name) for child in sa["children"]
                if state in (None, child["state"])]

    def child(self, name):
        """The newest installed child SA of the connection."""
        found = self.children(name)
        assert found, f"{self.label} has no child SA of {name}"
        return max(found, key=lambda child: int(child["uniqueid"]))

    def wait_up(self, name, seconds=10):
        wait_until(lambda: self.children(name), f"{self.label} has a child SA of {name}", seconds,
                   0.05)

    def wait_rekeyed(self, name, before, seconds=10):
        """Until another child SA than `before` (as child() gave it) is the only one that is
        installed. The old one is listed as DELETED for 5 s more."""
        def only():
            found = self.children(name)
            return len(found) == 1 and found[0]["spi-in"] != before["spi-in"] and found[0]
        return wait_until(only, f"{self.label} has a new child SA of {name}", seconds, 0.05)

    def text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_log(self, words, seconds=5, since=0):
        """Until the log has a line that matches the expression after so many bytes; returns it."""
        def line():
            return next((line for line in self.text()[since:].splitlines()
                         if re.search(words, line)), None)
        return wait_until(line, f"the log of {self.label} says {words!r}", seconds)

    def stop(self):
        """In good order: it tells its peers."""
        self.end()

    def tail(self, lines=60):
        output = self.directory / "output"
        text = self.text() + (output.read_text(errors="replace") if output.exists() else "")
        return "\n".join(text.splitlines()[-lines:])

    def logs(self):
        return [(f"charon of {self.label}", self.tail(120))]

    def close(self):
        if self.alive:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class AwsEndpoint:
    """One of AWS's two ends: stock charon with kernel-libipsec in a namespace of its own, an inside
    address, and a device `inside` to what is behind it."""

    def __init__(self, network, label, address, inside_address, behind):
        self.network, self.label, self.address = network, label, address
        self.inside_address, self.behind = inside_address, behind
        self.namespace = network.namespace(label)
        self.namespace.sysctl("net.ipv4.ip_forward", 1)
        self.charon = network.keep(Charon(self.namespace, label))
        # charon's routes (table 220) send everything into the tunnel, also what came out of it.
        self.namespace.ip("rule", "add", "pref", "100", "to", behind, "lookup", "main")
        self.namespace.ip("address", "add", f"{inside_address}/32", "dev", "lo")

    def connect(self, name, gateway, psk, start=True, **options):
        """The connection to the gateway. AWS is told to start, or only answers; a DPD timeout
        restarts."""
        child = merge({"start_action": "start" if start else "none"}, options.pop("child", {}))
        self.charon.connections[name] = connection(self.address, gateway, psk, child=child,
                                                   **options)

    def start(self):
        self.charon.start(load=False)
        # No fragments outside: as large as the gateway's tunnels.
        self.namespace.ip("link", "set", "ipsec0", "mtu", "1438")
        self.charon.load()
        return self

    def kill(self):
        self.charon.kill()


class Tunnel:
    """What both ends agree upon."""

    def __init__(self, number, address):
        self.number, self.name, self.if_id = number, f"tunnel{number:02}", number
        self.address = address  # AWS's outside address
        self.aws_inside = f"169.254.244.{4 * number - 3}"
        self.gateway_inside = f"169.254.244.{4 * number - 2}"
        self.psk = secrets.token_hex(16)


class IkeGateway:
    """An espgw (testbed.Gateway), and charon with the kernel-espgw plugin beside it."""

    def __init__(self, network, espgw, settings=None):
        self.namespace, self.espgw = espgw.namespace, espgw
        self.charon = Charon(
            espgw.namespace, espgw.label, "kernel-espgw",
            {"load": True, "socket": espgw.config["gateway"]["control_socket"], "timeout": "2s"},
            settings)
        network.keep(self)
        network.keep(self.charon)

    def connect(self, tunnel, local, remote, start="none", child=None, **options):
        child = merge({"if_id_in": tunnel.if_id, "if_id_out": tunnel.if_id, "start_action": start},
                      child or {})
        self.charon.connections[tunnel.name] = connection(local, remote, tunnel.psk, child=child,
                                                          **options)

    def start(self):
        self.espgw.start()
        self.charon.start()
        return self

    def logs(self):
        """What a failed test should show: the SAs and drops as they are."""
        if not self.espgw.alive:
            return []
        shown = [self.espgw.espctl(*words, check=False).stdout
                 for words in (("tunnel", "list"), ("sa", "list"), ("drops",))]
        return [(f"state of {self.namespace.label}", "\n".join(shown))]

    def close(self):
        pass  # the network closes both parts

    def wait_up(self, name, seconds=10):
        wait_until(lambda: self.espgw.tunnel(name)["state"] == "up", f"{name} is up", seconds)
        self.charon.wait_up(name, seconds)

    def sas(self, name, direction):
        return [sa for sa in self.espgw.call("sa.list", tunnel=name)["sas"]
                if sa["direction"] == direction]


class AwsNetwork:
    """A VPN connection as AWS makes it, two tunnels:

        site ── lan [gateway] wan ──┬── aws1 203.0.113.11 ──┬── vpc
        10.1.0.2    203.0.113.1  internet                   │   192.168.192.10
                                    └── aws2 203.0.113.12 ──┘

    internet is a bridge; its device to-gateway, to-aws1, to-aws2 are where to listen. aws1 is
    192.168.192.1 inside, aws2 192.168.192.2."""

    SITE, VPC, GATEWAY = "10.1.0.2", "192.168.192.10", "203.0.113.1"
    BEHIND = "192.168.192.0/26"

    def __init__(self, network, aws_starts=True, dh=14, gateway_start="none", gateway=None,
                 gateway_child=None, gateway_settings=None, aws=None, aws_child=None,
                 endpoints=2, config=None):
        self.network, self.aws_starts = network, aws_starts
        self.tunnels = [Tunnel(i, f"203.0.113.{10 + i}") for i in range(1, endpoints + 1)]
        self.site = network.namespace("site")
        self.internet = network.namespace("internet")
        self.vpc = network.namespace("vpc")
        namespace = network.namespace("gateway")
        network.link(self.site, "eth0", namespace, "veth-lan")
        network.link(namespace, "veth-wan", self.internet, "to-gateway")
        network.give_to_espgw(namespace, "veth-lan", "veth-wan")
        self._bridge(self.internet, "to-gateway")
        self._bridge(self.vpc)
        self.vpc.ip("address", "add", f"{self.VPC}/26", "dev", "bridge")
        self.site.ip("address", "add", f"{self.SITE}/24", "dev", "eth0")
        self.site.ip("route", "add", "default", "via", "10.1.0.1", "mtu", "1438")
        espgw = network.gateway(namespace, merge(self._config(), config or {}))
        self.gateway = IkeGateway(network, espgw, gateway_settings)
        self.aws = [self._endpoint(tunnel) for tunnel in self.tunnels]
        for tunnel, endpoint in zip(self.tunnels, self.aws):
            self.gateway.connect(tunnel, self.GATEWAY, tunnel.address, gateway_start,
                                 gateway_child, dh=dh, **gateway or {})
            endpoint.connect(tunnel.name, self.GATEWAY, tunnel.psk, aws_starts,
                             child=aws_child or {}, dh=dh, **aws or {})

    @staticmethod
    def _bridge(namespace, *devices):
        namespace.ip("link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
        namespace.ip("link", "set", "bridge", "up")
        for device in devices:
            namespace.ip("link", "set", device, "master", "bridge")

    def _endpoint(self, tunnel):
        label = f"aws{tunnel.number}"
        endpoint = AwsEndpoint(self.network, label, tunnel.address, tunnel.aws_inside, self.BEHIND)
        self.network.link(endpoint.namespace, "eth0", self.internet, f"to-{label}")
        self.internet.ip("link", "set", f"to-{label}", "master", "bridge")
        self.network.link(endpoint.namespace, "inside", self.vpc, f"to-{label}")
        self.vpc.ip("link", "set", f"to-{label}", "master", "bridge")
        endpoint.namespace.ip("address", "add", f"{tunnel.address}/24", "dev", "eth0")
        endpoint.namespace.ip("address", "add", f"192.168.192.{tunnel.number}/26", "dev", "inside")
        return endpoint

    def _config(self):
        return {
            "workers": {"cores": [os.cpu_count() - 1]},
            "ports": [
                {"name": "lan", "side": "inside", "device": "net_af_packet0,iface=veth-lan",
                 "addresses": ["10.1.0.1/24"]},
                {"name": "wan", "side": "outside", "device": "net_af_packet1,iface=veth-wan",
                 "addresses": [f"{self.GATEWAY}/24"]},
            ],
            "tunnels": [
                {"name": tunnel.name, "gateway_endpoint": self.GATEWAY, "if_id": tunnel.if_id,
                 "customer_endpoint": tunnel.address, "replay_window": 1024,
                 "interface_address": f"{tunnel.gateway_inside}/30",
                 "health": {"enabled": False}}
                for tunnel in self.tunnels
            ],
            "routes": [
                {"prefix": self.BEHIND, "tunnel": tunnel.name, "priority": 100 * tunnel.number}
                for tunnel in self.tunnels
            ],
        }

    def start(self, up=True):
        """Whoever starts comes last: a charon that listens but has no connections yet answers
        NO_PROPOSAL_CHOSEN, and the other one gives up. `up` waits for both tunnels."""
        parts = [*self.aws, self.gateway]
        for part in reversed(parts) if self.aws_starts else parts:
            part.start()
        self.answer_by(1)
        if up:
            self.wait_up()
        return self

    def wait_up(self, seconds=10):
        for tunnel in self.tunnels:
            self.gateway.wait_up(tunnel.name, seconds)

    def answer_by(self, number):
        """By which tunnel the VPC sends to the site."""
        self.vpc.ip("route", "replace", "default", "via", f"192.168.192.{number}")

    def send_by(self, number):
        """By which tunnel the gateway sends to the VPC."""
        for tunnel in self.tunnels:
            self.gateway.espgw.call("route.add", prefix=self.BEHIND, tunnel=tunnel.name,
                                    priority=10 if tunnel.number == number else 20)

    def use(self, number):
        """Both ways by this tunnel. Everybody on the way knows his neighbours afterwards."""
        self.answer_by(number)
        self.send_by(number)
        self.site.wait_for(self.VPC)


def is_esp(frame):
    """The IP packet of a frame that is ESP, in UDP or plain, and not IKE on port 4500."""
    packet = esp.is_esp(frame)
    if packet is not None and UDP in packet and not any(bytes(packet[UDP].payload)[:4]):
        return None
    return packet


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff


def echo(namespace, address, count=10, interval=0.005, size=56, source=None):
    """So many pings are answered just once each. (ping -c does not wait for late answers, which
    there are when the machine is busy.)"""
    with namespace.entered():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with raw:
        if source is not None:
            raw.bind((source, 0))
        raw.connect((address, 0))
        identifier = secrets.randbits(16)
        answers, sent, due = [], 0, time.monotonic()
        deadline = due + count * interval + 3 * PATIENCE
        while len(set(answers)) < count and time.monotonic() < deadline:
            if sent < count and time.monotonic() >= due:
                sent, due = sent + 1, due + interval
                rest = struct.pack("!HH", identifier, sent) + bytes(size - size % 2)
                raw.send(struct.pack("!BBH", 8, 0, checksum(b"\x08\0\0\0" + rest)) + rest)
            wait = (due if sent < count else deadline) - time.monotonic()
            if not select.select([raw], [], [], max(0, wait))[0]:
                continue
            kind, _, _, whose, number = struct.unpack_from("!BBHHH", raw.recv(65536), 20)
            if kind == 0 and whose == identifier:
                answers.append(number)
    odd = [number for number in range(1, count + 1) if answers.count(number) != 1]
    assert not odd, f"pings from {namespace.label} to {address} not answered just once: {odd}"


class Pinger:
    """A ping that goes on in the background, within `with`, and knows what was not answered."""

    def __init__(self, namespace, address, interval=0.02):
        self.namespace, self.address, self.interval = namespace, address, interval
        self.answers = {}  # number to the time of its answer

    def __enter__(self):
        self.output = tempfile.TemporaryFile("w+")
        self.process = self.namespace.popen("ping", "-n", "-D", "-i", self.interval, self.address,
                                            stdout=self.output, stderr=subprocess.STDOUT)
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        self.read()
        self.output.close()

    def read(self):
        # Not by seek: ping writes by the same position.
        text = os.pread(self.output.fileno(), 1 << 26, 0).decode()
        answer = r"^\[([\d.]+)\] \d+ bytes from .* icmp_seq=(\d+)"
        for when, number in re.findall(answer, text, re.M):
            self.answers.setdefault(int(number), float(when))
        self.duplicates = text.count("(DUP!)")
        return self

    def wait_answers(self, count, seconds=5):
        """Until so many more have been answered than now."""
        wanted = len(self.read().answers) + count
        wait_until(lambda: len(self.read().answers) >= wanted,
                   f"{count} more pings to {self.address} are answered", seconds)

    def first_after(self, when):
        """The time of the first answer after this time (time.time())."""
        return min((at for at in self.read().answers.values() if at > when), default=None)

    @property
    def lost(self):
        """Numbers that were not answered, up to the last one answered."""
        answers = self.answers
        return [number for number in range(1, max(answers, default=0)) if number not in answers]


class Relay:
    """Between charon's plugin and the gateway's socket: it keeps the requests that passed."""

    def __init__(self, path, upstream):
        self.path, self.upstream = str(path), str(upstream)
        self.requests = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(8)
        self.sockets = {}  # each with its other end
        self.unread = {}
        self.orders = os.pipe()
        self.held = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while True:
            passing = [] if self.held else [self.listener, *self.sockets]
            ready = select.select([self.orders[0], *passing], [], [])[0]
            if self.orders[0] in ready:
                order = os.read(self.orders[0], 1)
                if order == b"x":
                    return
                self.held = order == b"h"
                continue
            for one in ready:
                if one is self.listener:
                    self._accept()
                elif one in self.sockets:
                    self._pass(one)

    def _accept(self):
        client, server = self.listener.accept()[0], socket.socket(socket.AF_UNIX)
        try:
            server.connect(self.upstream)
        except OSError:  # the gateway is away
            client.close()
            server.close()
            return
        self.sockets.update({client: server, server: client})
        self.unread[client] = b""

    def _pass(self, one):
        other = self.sockets[one]
        try:
            data = one.recv(65536)
            other.sendall(data)
        except OSError:
            data = b""
        if not data:
            for each in (one, other):
                del self.sockets[each]
                self.unread.pop(each, None)
                each.close()
        elif one in self.unread:
            *lines, self.unread[one] = (self.unread[one] + data).split(b"\n")
            self.requests += [json.loads(line) for line in lines]

    def hold(self):
        """Nothing passes from now on; who writes and waits for an answer waits."""
        os.write(self.orders[1], b"h")

    def release(self):
        os.write(self.orders[1], b"r")

    def added(self, direction):
        """The parameters of each sa.add that was sent."""
        return [request["params"] for request in list(self.requests)
                if request["method"] == "sa.add" and request["params"]["direction"] == direction]

    def logs(self):
        return []

    def close(self):
        os.write(self.orders[1], b"x")
        self.thread.join()
        for one in (self.listener, *self.sockets):
            one.close()
        for one in self.orders:
            os.close(one)


class IkePair:
    """topologies.Pair with a charon beside each espgw. No NAT between them, so ESP is plain."""

    def __init__(self, network, **options):
        self.pair = pair = Pair(network)
        self.site_a, self.site_b = pair.site_a, pair.site_b
        self.SITE_A, self.SITE_B = pair.SITE_A, pair.SITE_B
        self.tunnels = [Tunnel(i, ends[1]) for i, ends in enumerate(pair.TUNNELS.values(), 1)]
        self.a, self.b = (IkeGateway(network, espgw) for espgw in (pair.a, pair.b))
        for tunnel, (a, b) in zip(self.tunnels, pair.TUNNELS.values()):
            self.a.connect(tunnel, a, b, **merge({"start": "start"}, options.get("a", {})))
            self.b.connect(tunnel, b, a, **merge({"start": "none"}, options.get("b", {})))

    def start(self):
        self.b.start()
        self.a.start()
        for side in (self.a, self.b):
            for tunnel in self.tunnels:
                side.wait_up(tunnel.name)
        self.site_a.wait_for(self.SITE_B, 10)
        return self
