# SPDX-License-Identifier: BSD-3-Clause
"""espctl without a gateway: its arguments, help, key files and exit codes; and what it prints, from
a gateway of a few lines that answers what the test says. ESPGW_BUILD is the build directory."""

import json
import os
import pathlib
import re
import shutil
import socket
import stat
import subprocess
import threading

import pytest

BUILD = pathlib.Path(os.environ.get("ESPGW_BUILD", "build"))
ESPCTL = BUILD / "app/espctl/espctl"
ROOT = pathlib.Path(__file__).resolve().parents[2]
KEY = "00112233445566778899aabbccddeeff" * 2
SALT = "deadbeef"
KEY_FILE = f"# a comment\n\n key = {KEY.upper()}\nsalt={SALT}\r\n"

DONE, REFUSED, USAGE, UNREACHABLE = range(4)


def espctl(*arguments, text=None, socket_path="/nonexistent/socket"):
    return subprocess.run([ESPCTL, *map(str, arguments)], input=text or "", text=True,
                          capture_output=True, timeout=30,
                          env={"ESPGW_SOCKET": str(socket_path), "TZ": "UTC"})


class Gateway:
    """Answers requests by method: with a result, with a list of results one after the other, with
    an error when it has "code", or by closing when it is None."""

    def __init__(self, path, answers, events=()):
        self.path, self.answers, self.events = path, answers, events
        self.requests = []
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rw", encoding="utf-8") as stream:
            for line in stream:
                request = json.loads(line)
                self.requests.append(request)
                if not self.answer(stream, request):
                    return

    def answer(self, stream, request):
        hello = {"protocol": 1, "server": "espgw", "version": "0.1.0", "name": "gw1",
                 "epoch": "0123456789abcdef"}
        result = self.answers.get(request["method"], hello)
        if isinstance(result, list):
            result = result.pop(0)
        if result is None:
            return False
        kind = "error" if "code" in result else "result"
        reply = {"jsonrpc": "2.0", "id": request["id"], kind: result}
        notifications = [{"jsonrpc": "2.0", "method": "event", "params": e} for e in self.events]
        messages = [reply] + (notifications if request["method"] == "events.subscribe" else [])
        stream.write("".join(json.dumps(m) + "\n" for m in messages))
        stream.flush()
        return True

    def params(self, method):
        return [r["params"] for r in self.requests if r["method"] == method]


@pytest.fixture
def gateway(tmp_path):
    gateways = []

    def start(answers=None, events=()):
        gateways.append(Gateway(tmp_path / "socket", answers or {}, events))
        return gateways[-1]

    yield start
    for started in gateways:
        started.listener.close()


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "the.key"
    path.write_text(KEY_FILE)
    path.chmod(0o600)
    return path


# ---- help ----

def all_commands():
    section = espctl("--help").stdout.split("more):\n")[1].split("\n\n")[0]
    return [re.split(r"  +", line.strip())[0] for line in section.splitlines()]


def test_overview():
    overview = espctl("--help")
    assert overview.returncode == DONE and overview.stderr == ""
    commands = all_commands()
    assert len(commands) >= 20 and "sa add" in commands and "stats" in commands
    bare = espctl()
    assert bare.returncode == USAGE and bare.stdout == "" and "sa add" in bare.stderr


def test_every_command_has_help_with_examples():
    for command in all_commands():
        for flag in "--help", "-h":
            shown = espctl(*command.split(), flag)
            assert shown.returncode == DONE, command
            assert shown.stdout.startswith(f"Usage: espctl {command}")
            assert "Examples:\n  " in shown.stdout
            assert f"espctl {command}" in shown.stdout.split("Examples:")[1].replace(
                "espctl --json", "espctl")
            assert max(map(len, shown.stdout.splitlines())) <= 100


def test_manual_names_every_command():
    roff = (ROOT / "docs/espctl.1").read_text()
    text = re.sub(r'^\.[A-Z]+ |"', "", roff, flags=re.M)
    for command in all_commands():
        assert re.search(rf"^{command}\b", text, re.M), command


def test_group_lists_its_commands():
    for line in (("sa", "--help"), ("help", "sa"), ("-h", "sa")):
        group = espctl(*line)
        assert group.returncode == DONE and group.stderr == ""
        lines = group.stdout.splitlines()
        assert lines[0] == "Commands:" and len(lines) > 5
        assert all(line.startswith("  sa ") for line in lines[1:])
    alone = espctl("sa")
    assert alone.returncode == USAGE and "sa flush" in alone.stderr


def test_version_needs_no_gateway():
    assert re.fullmatch(r"espctl \d+\.\d+\.\d+, control protocol 1\n", espctl("version").stdout)
    assert json.loads(espctl("--json", "version").stdout)["protocol"] == 1
    for flag in "--version", "-V":
        assert espctl(flag).stdout == espctl("version").stdout
        assert espctl(flag).returncode == DONE


def test_help_is_a_word_too():
    assert espctl("help").stdout == espctl("--help").stdout
    assert espctl("help").returncode == DONE
    assert espctl("help", "sa", "add").stdout == espctl("sa", "add", "--help").stdout
    assert espctl("help", "nonsense").returncode == USAGE


def test_help_says_which_values_and_of_what():
    usage = espctl("route", "delete", "--help").stdout
    assert "(--tunnel NAME | --port NAME)" in usage and "send from" not in usage
    assert "(--tunnel NAME | --all)" in espctl("sa", "flush", "--help").stdout


# ---- misuse ----

@pytest.mark.parametrize("line, says", [
    ("nonsense", "there is no command `nonsense`"),
    ("tunel list", "did you mean `tunnel list`?"),
    ("tunnel lsit", "did you mean `tunnel list`?"),
    ("tunel", "did you mean `tunnel`?"),
    ("tunel --help", "did you mean `tunnel`?"),
    ("stat", "did you mean `stats`?"),
    (80 * "x" + " list", "there is no command `xxx"),
    ("sa nonsense", "no command `sa nonsense`"),
    ("--nonsense", "no option --nonsense"),
    ("sa list --nonsense 1", "no option --nonsense"),
    ("sa list extra", "`extra` is too much"),
    ("sa list --tunnel", "--tunnel needs a value: NAME"),
    ("sa list --tunnel a --tunnel b", "twice"),
    ("sa list --json=1", "takes no value"),
    ("sa delete", "DIRECTION is missing"),
    ("sa delete in", "SPI is missing"),
    ("sa delete inward 1", "has to be `in` or `out`"),
    ("sa delete in 0x1g", "has to be an SPI"),
    ("sa delete in 4294967296", "has to be an SPI"),
    ("sa delete in -5", "no option -5"),
    ("sa add t in 0x100", "--keys is missing"),
    ("sa add t in 0x100 --keys - --udp-encapsulation 4500", "4500:4500"),
    ("sa add t in 0x100 --keys - --udp-encapsulation 0:1", "4500:4500"),
    ("sa add t in 0x100 --keys - --udp-encapsulation 1:65536", "4500:4500"),
    ("sa add t in 0x100 --keys - --selector 10.0.0.0/8", "two prefixes"),
    ("sa add t in 0x100 --keys - --selector 10.0.0.0/8=::/0,tpc", "two prefixes"),
    ("sa add t in 0x100 --keys - --selector 10.0.0.0/8=::/0,0", "two prefixes"),
    ("sa add t in 0x100 --keys - --selector 10.0.0.0/8=::/0,tcp,443", "two prefixes"),
    ("sa add t in 0x100 --keys - --selector 10.0.0.0/8=::/0,tcp,*=1-", "two prefixes"),
    ("sa add t in 0x100 --keys - --selector 10.0.0.0/8=::/0,tcp,*=65536", "two prefixes"),
    ("sa add t in 0x100 --keys - --soft-seconds 1h", "a number"),
    ("sa add t in 0x100 --keys - --hard-bytes 99999999999999999999", "a number"),
    ("sa add t in 0x100 --keys - --replay-window 4294967296", "--replay-window is too large"),
    ("sa add t in 0x100 --keys -" + 17 * " --selector 10.0.0.0/8=::/0", "at most 16"),
    ("sa flush", "one of --tunnel and --all"),
    ("sa flush --tunnel a --all", "one of --tunnel and --all"),
    ("route add 10.0.0.0/8", "one of --tunnel and --port"),
    ("--timeout 0 hello", "--timeout"),
    ("--timeout soon hello", "--timeout"),
])
def test_misuse_is_explained(line, says):
    result = espctl(*line.split(), text=KEY_FILE)
    assert result.returncode == USAGE
    assert says in result.stderr
    assert result.stdout == ""


# ---- no gateway ----

def test_unreachable_tells_where_and_how_to_check(tmp_path):
    absent = tmp_path / "absent"
    for result in (espctl("tunnel", "list", socket_path=absent),
                   espctl("--socket", absent, "hello"), espctl("hello", f"--socket={absent}")):
        assert result.returncode == UNREACHABLE
        assert str(absent) in result.stderr and "systemctl status espgw" in result.stderr


def test_gateway_that_closes_or_stays_silent(tmp_path, gateway):
    started = gateway({"stats": None})
    assert espctl("stats", socket_path=started.path).returncode == UNREACHABLE
    silent = tmp_path / "silent"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(silent))
        listener.listen()
        result = espctl("--timeout", 1, "hello", socket_path=silent)
    assert result.returncode == UNREACHABLE and "in time" in result.stderr


# ---- keys ----

def test_generated_key_is_private_fresh_and_taken(tmp_path, gateway):
    one, two = tmp_path / "one.key", tmp_path / "two.key"
    for path in one, two:
        made = espctl("key", "generate", path)
        assert made.returncode == DONE and str(path) in made.stdout
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert re.search(r"^key = [0-9a-f]{64}\nsalt = [0-9a-f]{8}\n", path.read_text(), re.M)
    assert one.read_text() != two.read_text()
    before = one.read_text()
    again = espctl("key", "generate", one)
    assert again.returncode == USAGE and "exists" in again.stderr
    assert one.read_text() == before
    started = gateway({"sa.add": {"id": 1, "already": False}})
    added = espctl("sa", "add", "tunnel01", "out", "0x100", "--keys", one,
                   socket_path=started.path)
    assert added.returncode == DONE and added.stdout == "SA 1 added\n"
    assert f"key = {started.params('sa.add')[0]['key']}\n" in before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_key_file_that_others_can_use_is_refused(key_file, mode):
    key_file.chmod(mode)
    result = espctl("sa", "add", "t", "in", "0x100", "--keys", key_file)
    assert result.returncode == USAGE
    assert f"{mode:04o}" in result.stderr and "chmod 600" in result.stderr


@pytest.mark.parametrize("content, says", [
    ("", "no line `key = <64 hex digits>`"),
    (f"key = {KEY}\n", "no line `salt = <8 hex digits>`"),
    (f"salt = {SALT}\n", "no line `key"),
    (f"key = {KEY}{SALT}\nsalt = {SALT}\n",
     "line 1: `key` has to be 64 hex digits, and these are 72"),
    (f"key = {KEY[1:]}\nsalt = {SALT}\n", "these are 63"),
    (f"key = {KEY[1:]}g\nsalt = {SALT}\n", "no hex digit"),
    (f"key = {KEY}\nsalt = {SALT}\nkey = {KEY}\n", "line 3: a second `key`"),
    (f"key = {KEY}\nsalt: {SALT}\n", "line 2 is neither"),
    (f"key = {KEY}\nsalt = {SALT}\n" + "#" * 5000, "longer than 4096"),
])
def test_bad_key_file_is_explained_without_repeating_it(content, says):
    result = espctl("sa", "add", "t", "in", "0x100", "--keys", "-", text=content)
    assert result.returncode == USAGE
    assert says in result.stderr
    assert KEY[1:] not in result.stderr and SALT not in result.stderr
    assert "key file from stdin" in result.stderr


def test_absent_key_file(tmp_path):
    result = espctl("sa", "add", "t", "in", "0x100", "--keys", tmp_path / "absent.key")
    assert result.returncode == USAGE and "absent.key: No such file" in result.stderr


# ---- requests ----

def test_sa_add_sends_all_options(key_file, gateway):
    started = gateway({"sa.add": {"id": 7, "already": True}})
    result = espctl(
        *"sa add tunnel01 in 49 --esn --replay-window 0 --source 2001:db8::1 "
        "--destination 2001:db8::2 --udp-encapsulation 4500:61000 --soft-seconds 3000 "
        "--hard-seconds 3600 --hard-packets 4000000000 --selector 0.0.0.0/0=192.168.192.0/26 "
        "--selector ::/0=fd00::/8,tcp,*=443 --selector ::/0=::/0,17,1024-2000=53 "
        "--selector ::/0=::/0,50 --json --keys".split(), key_file, socket_path=started.path)
    assert result.returncode == DONE and json.loads(result.stdout) == {"id": 7, "already": True}
    assert started.params("hello")[0]["protocol"] == 1
    assert started.params("sa.add") == [{
        "tunnel": "tunnel01", "direction": "in", "spi": "0x00000031", "key": KEY, "salt": SALT,
        "esn": True, "replay_window": 0, "source": "2001:db8::1", "destination": "2001:db8::2",
        "udp_encapsulation": {"source_port": 4500, "destination_port": 61000},
        "lifetime": {"soft": {"seconds": 3000}, "hard": {"seconds": 3600, "packets": 4000000000}},
        "selectors": [{"local": "0.0.0.0/0", "remote": "192.168.192.0/26"},
                      {"local": "::/0", "remote": "fd00::/8", "protocol": 6,
                       "remote_ports": {"first": 443, "last": 443}},
                      {"local": "::/0", "remote": "::/0", "protocol": 17,
                       "local_ports": {"first": 1024, "last": 2000},
                       "remote_ports": {"first": 53, "last": 53}},
                      {"local": "::/0", "remote": "::/0", "protocol": 50}]}]


@pytest.mark.parametrize("line, method, params", [
    ("sa delete out 0x0e000001 --destination 198.51.100.1", "sa.delete",
     {"direction": "out", "spi": "0x0e000001", "destination": "198.51.100.1"}),
    ("sa update out 0x0e000001 --new-destination 198.51.100.9 --udp-encapsulation none",
     "sa.update", {"direction": "out", "spi": "0x0e000001", "new_destination": "198.51.100.9",
                   "udp_encapsulation": None}),
    ("sa flush --all", "sa.flush", {}),
    ("sa flush --tunnel tunnel01", "sa.flush", {"tunnel": "tunnel01"}),
    ("spi reserve tunnel01 --count=3", "spi.reserve", {"tunnel": "tunnel01", "count": 3}),
    ("spi release 3240314215", "spi.release", {"spi": "0xc1234567"}),
    ("route add --priority 5 10.0.0.0/8 --port lan --next-hop 10.1.1.1", "route.add",
     {"prefix": "10.0.0.0/8", "port": "lan", "next_hop": "10.1.1.1", "priority": 5}),
    ("route delete 10.0.0.0/8 --tunnel tunnel01", "route.delete",
     {"prefix": "10.0.0.0/8", "tunnel": "tunnel01"}),
    ("drops --all", "drops", {"all": True}),
    ("tunnel show -- --odd", "tunnel.show", {"tunnel": "--odd"}),
])
def test_commands_become_requests(gateway, line, method, params):
    started = gateway({method: {"id": 1, "deleted": 1, "spis": [], "drops": [], "tunnel": {}}})
    result = espctl(*line.split(), socket_path=started.path)
    assert result.returncode == DONE, result.stderr
    assert started.params(method) == [params]


@pytest.mark.parametrize("text, sent", [
    ("x = 1;\n", True), ('@include "other.conf"\n', False), ("# long\n" * 10000, False),
    ('"' * 40000, False), ("# \xff\n", False)],
    ids=["short", "includes", "long", "escaped", "bytes"])
def test_config_apply_sends_the_text_or_the_path(gateway, tmp_path, text, sent):
    """What does not fit into a request, or includes files, the gateway reads by itself."""
    file = tmp_path / "new.conf"
    file.write_bytes(text.encode("latin-1"))
    started = gateway({"config.apply": {"outcome": "unchanged", "errors": []}})
    result = subprocess.run([ESPCTL.resolve(), "--socket", started.path, "config", "apply", "--check",
                             "new.conf"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == DONE, result.stderr
    assert started.params("config.apply") == [
        {"check": True, "file": "new.conf", "text": text} if sent else
        {"check": True, "file": str(file)}]


def test_config_apply_without_a_file():
    result = espctl("config", "apply", "/nowhere/at.all")
    assert result.returncode == USAGE and "/nowhere/at.all: No such file" in result.stderr


def test_config_reload_tells_what_is_wrong(gateway):
    started = gateway({"config.apply": {"outcome": "invalid", "file": "/etc/a.conf",
                                        "errors": ["/etc/a.conf:1: wrong"]}})
    result = espctl("config", "reload", socket_path=started.path)
    assert result.returncode == REFUSED and result.stdout == ""
    assert result.stderr == "/etc/a.conf:1: wrong\nespctl: /etc/a.conf has errors; " \
        "nothing was changed\n"
    assert started.params("config.apply") == [{}]


def test_refusal(gateway):
    error = {"code": -32006, "message": "this key has been used before",
             "data": {"name": "key_seen"}}
    result = espctl("stats", socket_path=gateway({"stats": error}).path)
    assert result.returncode == REFUSED
    assert result.stderr == "espctl: the gateway refuses: this key has been used before\n"


def test_refusal_as_json(gateway):
    error = {"code": -32602, "message": "no", "data": {"name": "bad_parameter", "parameter": "a"}}
    result = espctl("--json", "stats", socket_path=gateway({"stats": error}).path)
    assert result.returncode == REFUSED
    assert json.loads(result.stdout) == {"error": {
        "code": -32602, "name": "bad_parameter", "parameter": "a", "message": "no"}}


# ---- what people see ----

def sa(number, **members):
    return {"id": number, "tunnel": "tunnel01", "direction": "in", "spi": f"0x{number:08x}",
            "source": "198.51.100.1", "destination": "203.0.113.1", "esn": False,
            "replay_window": 1024, "udp_encapsulation": None, "lifetime": {"soft": {}, "hard": {}},
            "selectors": [], "state": "active", "current": False, "age_seconds": 3725,
            "idle_seconds": None, "packets": 12345678901, "bytes": 1234567890123, "sequence": 5,
            **members}


def test_lists_join_pages_and_fit(gateway):
    started = gateway({"sa.list": [
        {"sas": [sa(256), sa(257, tunnel="tunnel-of-15-ch", state="hard-expired")], "next": 257},
        {"sas": [sa(258, direction="out", current=True, idle_seconds=3)]}]})
    result = espctl("sa", "list", socket_path=started.path)
    lines = result.stdout.splitlines()
    assert [p.get("after") for p in started.params("sa.list")] == [None, 257]
    assert len(lines) == 4 and max(map(len, lines)) <= 100
    assert lines[0].split() == ["TUNNEL", "DIR", "SPI", "STATE", "CURRENT", "AGE", "IDLE",
                                "PACKETS", "BYTES"]
    assert "1 h 02 min" in lines[1] and "never" in lines[1]
    assert "12.3 G" in lines[1] and "1.2 TB" in lines[1]
    assert "yes" in lines[3] and " 3 s " in lines[3]


def test_json_list_holds_all_pages(gateway):
    started = gateway({"sa.list": [{"sas": [sa(1)], "next": 1}, {"sas": [sa(2)]}]})
    result = espctl("--json", "sa", "list", "--tunnel", "tunnel01", socket_path=started.path)
    assert [s["id"] for s in json.loads(result.stdout)["sas"]] == [1, 2]
    assert started.params("sa.list") == [{"tunnel": "tunnel01"},
                                         {"tunnel": "tunnel01", "after": 1}]


def test_empty_list(gateway):
    started = gateway({"sa.list": {"sas": []}})
    assert espctl("sa", "list", socket_path=started.path).stdout == "none\n"


def test_show_names_every_member(gateway):
    shown = sa(256, lifetime={"soft": {"seconds": 3000}, "hard": {}},
               selectors=[{"local": "0.0.0.0/0", "remote": "192.168.192.0/26"}])
    started = gateway({"sa.show": {"sa": shown}})
    result = espctl("sa", "show", "in", "0x100", socket_path=started.path)
    values = dict(re.split(r"  +", line, maxsplit=1) for line in result.stdout.splitlines())
    assert values["lifetime.soft.seconds"] == "3000 (50 min)"
    assert values["lifetime.hard"] == "none"
    assert values["selectors[0].remote"] == "192.168.192.0/26"
    assert values["idle_seconds"] == "never"
    assert values["bytes"] == "1234567890123 (1.2 TB)"
    assert values["esn"] == "no" and values["udp_encapsulation"] == "none"


def tunnel(**members):
    return {"name": "tunnel01", "if_id": 1, "gateway_endpoint": "203.0.113.10",
            "customer_endpoint": "198.51.100.21", "interface_address": "169.254.244.2/30",
            "far_side": "aws", "mtu": 1438, "state": "up", "sas_in": 1, "sas_out": 1,
            "in_age_seconds": 730, "out_age_seconds": 45, "rekey_in_seconds": 2270,
            "expiry_in_seconds": 3600, "out_packets": 714094, "out_bytes": 1004000000,
            "in_packets": 65967, "in_bytes": 3500000, "drops": {"replay": 2}, "drop_total": 2,
            "last_out_seconds": 0, "last_in_seconds": 3,
            "health": {"state": "degraded", "loss": 0.0123, "rtt_us": 900,
                       "rtt_smoothed_us": 1234}, **members}


def test_tunnel_list_shows_both_directions(gateway):
    tunnels = [tunnel(), tunnel(name="tunnel02", state="down", in_age_seconds=None,
                                out_age_seconds=None, rekey_in_seconds=None,
                                expiry_in_seconds=0, last_in_seconds=None, health=None)]
    started = gateway({"tunnel.list": [{"tunnels": tunnels[:1], "next": 1},
                                       {"tunnels": tunnels[1:]}]})
    result = espctl("tunnel", "list", socket_path=started.path)
    assert result.stdout == """\
TUNNEL            STATE     REKEY IN     EXPIRES  DROPS  DIR  FROM           SA AGE  PACKETS   BYTES   LAST
ADDRESS           HEALTH        LOSS         RTT
tunnel01          up          37 min  1 h 00 min      2  out  203.0.113.10     45 s   714094  1.0 GB    0 s
169.254.244.2/30  degraded    1.23 %     1.23 ms         in   198.51.100.21  12 min    65967  3.5 MB    3 s
tunnel02          down             -         now      2  out  203.0.113.10        -   714094  1.0 GB    0 s
169.254.244.2/30  -                -           -         in   198.51.100.21       -    65967  3.5 MB  never
"""


def test_wide_tunnel_table_fits(gateway):
    wide = tunnel(name="tunnel-of-15-ch", state="half", interface_address="169.254.244.200/30",
                  gateway_endpoint="2001:db8:1111:2222:3333:4444:5555:6666",
                  customer_endpoint="255.255.255.255", in_age_seconds=3725, out_age_seconds=90000,
                  rekey_in_seconds=3725, expiry_in_seconds=90000, out_packets=9999999,
                  out_bytes=999949, in_packets=0, in_bytes=10 ** 17, drop_total=9999999,
                  last_in_seconds=90000, last_out_seconds=None)
    result = espctl("tunnel", "list",
                    socket_path=gateway({"tunnel.list": {"tunnels": [wide]}}).path)
    header, _, out, into = result.stdout.splitlines()
    assert max(map(len, (header, out, into))) == 132
    assert "2001:db8:1111:" in out and "~" in out
    for shown in "9999999", "999.9 kB", "1 h 02 min", "1 d 01 h", "never":
        assert shown in out
    for shown in "169.254.244.200/30", "255.255.255.255", "100.0 PB", "1 h 02 min", "1 d 01 h":
        assert shown in into


def test_tunnel_list_as_json_has_all(gateway):
    started = gateway({"tunnel.list": {"tunnels": [tunnel()]}})
    result = espctl("--json", "tunnel", "list", socket_path=started.path)
    assert json.loads(result.stdout)["tunnels"] == [tunnel()]


def test_tunnel_show(gateway):
    shown = tunnel(in_age_seconds=None, rekey_in_seconds=None, last_in_seconds=None)
    result = espctl("tunnel", "show", "tunnel01",
                    socket_path=gateway({"tunnel.show": {"tunnel": shown}}).path)
    values = dict(re.split(r"  +", line, maxsplit=1) for line in result.stdout.splitlines())
    assert values["if_id"] == "1" and values["expiry_in_seconds"] == "3600 (1 h 00 min)"
    assert values["in_age_seconds"] == "none" and values["last_in_seconds"] == "never"
    assert values["rekey_in_seconds"] == "never" and values["drops.replay"] == "2"


def test_ports_and_their_queues(gateway):
    port = {"name": "wan", "device": "d", "side": "outside", "mtu": 1500, "addresses": [],
            "present": True, "link_up": False, "rx_packets": 240, "rx_bytes": 30000,
            "tx_packets": 238, "tx_bytes": 29800, "rx_missed": 1, "rx_errors": 2,
            "rx_no_buffer": 3, "tx_errors": 4,
            "queues": [{"worker": w, "rx_packets": 120, "rx_bytes": 15000, "tx_packets": 119,
                        "tx_bytes": 14900} for w in range(2)]}
    started = gateway({"port.list": {"ports": [port, {**port, "name": "lan", "present": False}]}})
    result = espctl("port", "list", "--queues", socket_path=started.path)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1] == "wan outside - down 1500 240 30.0 kB 238 29.8 kB 1 9".split()
    assert lines[2][:4] == ["lan", "outside", "-", "removed"]
    assert lines[-1] == "lan 1 120 15.0 kB 119 14.9 kB".split()
    assert started.params("port.list") == [{}]


def test_stats(gateway):
    source = {"received": 240, "received_bytes": 30000, "forwarded": 120, "to_host": 113,
              "split": 4, "joined": 5, "dropped": 6, "held": 0}
    stats = {"uptime_seconds": 3600, "totals": source,
             "sources": [{"source": "port", "port": "wan", "drops": {"replay": 2}, **source},
                         {"source": "tun", "drops": {}, **source}],
             "crypto": "burst",
             "workers": [{"worker": 0, "core": 2, "loops": 1000, "busy_loops": 500,
                          "shared_packets": 17, "helped_packets": 2500,
                          "busy_cycles": 125000, "cycles": 1000000}]}
    result = espctl("stats", socket_path=gateway({"stats": stats}).path)
    assert "Up for 1 h 00 min" in result.stdout
    assert re.search(r"^port wan +240 +30.0 kB +120 +113 +4 +5 +6 +0$", result.stdout, re.M)
    assert re.search(r"^all +240", result.stdout, re.M)
    assert re.search(r"^ +0 +2 +1000 +12.5 % +17 +2500$", result.stdout, re.M)


def stages_at(tsc, *stages):
    """A reply of stats.stages; a tuple for each worker: cycles, bursts and packets of its stages."""
    names = ("idle", "encrypt", "send")
    return {"enabled": True, "tsc_hz": 2000000, "workers": [
        {"worker": i, "core": i + 2, "tsc": tsc, "stages": [
            {"stage": name, "cycles": cycles, "bursts": bursts, "packets": packets}
            for name, (cycles, bursts, packets) in zip(names, of_worker)]}
        for i, of_worker in enumerate(stages)]}


BEFORE = stages_at(1000, ((7000, 0, 0), (500, 5, 50), (1, 1, 1)), ((0, 0, 0),) * 3)
AFTER = stages_at(3001000, ((1507000, 0, 0), (1480500, 10005, 320050), (20001, 1, 1)),
                  ((2100000, 0, 0), (900000, 10000, 20000), (0, 0, 0)))


def test_stages(gateway):
    started = gateway({"stats.stages": [{}, BEFORE, AFTER]})
    result = espctl("stats", "--stages", socket_path=started.path)
    assert result.returncode == DONE and result.stderr == ""
    assert started.params("stats.stages") == [{"enable": True}, {}, {}]
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert max(map(len, lines)) <= 100
    assert lines[0] == "Measured for 1.50 s. Cycles are those of the TSC, 2 MHz."
    assert lines[2] == "Worker 0, core 2: 50.0 % busy"
    assert [line.split() for line in lines[5:8]] == [
        ["idle", "50.0", "%", "-", "-", "0", "#" * 16],
        ["encrypt", "49.3", "%", "4.6", "148", "320000", "#" * 16],
        ["send", "0.7", "%", "-", "-", "0", "."]]
    assert lines[9] == "Worker 1, core 3: 30.0 % busy"
    assert lines[14].split() == ["send", "0.0", "%", "-", "-", "0"]
    assert lines[16] == "All workers: 40.0 % busy"
    assert lines[20].split() == ["encrypt", "39.7", "%", "7.0", "119", "340000", "#" * 13]


def test_stages_as_json(gateway):
    started = gateway({"stats.stages": [{}, BEFORE, AFTER]})
    result = json.loads(espctl("--json", "stats", "--stages", "--seconds", 1,
                               socket_path=started.path).stdout)
    assert result["seconds"] == 1.5 and result["tsc_hz"] == 2000000
    assert [worker["core"] for worker in result["workers"]] == [2, 3]
    assert result["workers"][0]["cycles"] == 3000000 and result["workers"][1]["busy"] == 0.3
    idle, encrypt, send = result["workers"][0]["stages"]
    assert encrypt == {"stage": "encrypt", "cycles": 1480000, "bursts": 10000, "packets": 320000,
                       "share": pytest.approx(0.49333, abs=1e-5), "cycles_per_packet": 4.625,
                       "cycles_per_burst": 148}
    assert idle["cycles_per_packet"] is None and send["packets"] == 0
    assert result["sum"]["cycles"] == 6000000 and result["sum"]["busy"] == 0.4
    assert result["sum"]["stages"][1]["packets"] == 340000


@pytest.mark.parametrize("arguments, message", [
    (("--seconds", "3"), "--seconds goes with --stages"),
    (("--stages", "--seconds", "0"), "--seconds is `0`, but has to be 1 to 3600"),
    (("--stages", "--seconds", "3601"), "--seconds is `3601`, but has to be 1 to 3600"),
])
def test_stages_misused(gateway, arguments, message):
    result = espctl("stats", *arguments, socket_path=gateway().path)
    assert result.returncode == USAGE and message in result.stderr


def test_drops_wrap(gateway):
    drops = [{"reason": "cleartext_to_outside", "packets": 123, "tunnels": {"tunnel01": 100},
              "sentence": "the route leads out of an outside port in clear, which is never done"}]
    result = espctl("drops", socket_path=gateway({"drops": {"drops": drops}}).path)
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 100 and len(lines) == 3
    assert " ".join(" ".join(lines[:2]).split()) == (
        f"123 cleartext_to_outside: {drops[0]['sentence']}")
    assert lines[2].strip() == "tunnel01: 100"


def test_events_follow(gateway):
    events = [{"event": "sa.soft_expired", "id": 12, "tunnel": "tunnel01"},
              {"event": "port.state", "port": "wan", "link_up": False}, {"event": "later"}]
    started = gateway({"events.subscribe": {"events": []}}, events)
    result = espctl("events", "--count", 2, "--event", "a", "--event=b", socket_path=started.path)
    assert result.returncode == DONE
    lines = result.stdout.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  sa.soft_expired  id=12  tunnel=tunnel01",
                        lines[0])
    assert lines[1].endswith("port.state  port=wan  link_up=false") and len(lines) == 2
    assert started.params("events.subscribe") == [{"events": ["a", "b"]}]


def test_events_end_by_time(gateway):
    started = gateway({"events.subscribe": {"events": []}}, [{"event": "one"}])
    result = espctl("--json", "events", "--seconds", 1, socket_path=started.path)
    assert result.returncode == DONE and json.loads(result.stdout) == {"event": "one"}


def test_hello(gateway):
    result = espctl("hello", socket_path=gateway().path)
    assert re.search(r"^epoch +0123456789abcdef$", result.stdout, re.M)
    assert re.search(r"^name +gw1$", result.stdout, re.M)


# ---- the library as others use it ----

def test_library_exports_its_functions_only():
    library = next(BUILD.glob("lib/client/libespgw-client.so.*.*.*"))
    symbols = subprocess.run(["nm", "-D", "--defined-only", library], text=True, check=True,
                             capture_output=True).stdout
    names = [line.split()[2] for line in symbols.splitlines() if line.split()[1] in "TDBR"]
    assert "espgw_client_sa_add" in names
    foreign = [n for n in names if not n.startswith("espgw_client_")]
    assert not [n for n in foreign if not n.startswith("__")], foreign
    needed = subprocess.run(["readelf", "-d", library], text=True, check=True,
                            capture_output=True).stdout
    assert "libjansson" in needed and "librte" not in needed


def test_what_is_installed_finds_each_other(tmp_path):
    subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir",
                    tmp_path], check=True)
    unit = next(tmp_path.rglob("espgw.service")).read_text()
    commands = re.findall(r"^ExecStart(?:Pre)?=(\S+) --\w+ (\S+)$", unit, re.M)
    assert len(commands) == 2
    for program, config in commands:
        assert os.access(tmp_path / program.lstrip("/"), os.X_OK), program
        assert config == "/etc/espgw/espgw.conf"
    # The directory is there, and the file in use is never overwritten.
    assert [path.name for path in (tmp_path / "etc/espgw").iterdir()] == ["espgw.conf.example"]
    guide = re.search(r"^Documentation=file://(\S+)$", unit, re.M)[1]
    assert (tmp_path / guide.lstrip("/")).exists()
    assert os.access(next(tmp_path.rglob("doc/espgw/examples/rotate-keys")), os.X_OK)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_header_is_good_cpp(tmp_path):
    source = tmp_path / "agent.cc"
    source.write_text('#include "client/client.h"\n'
                      "int main() { espgw_sa sa{}; espgw_client_sa_wipe(&sa); }\n")
    subprocess.run(["c++", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only",
                    f"-I{ROOT}/lib", source], check=True)
