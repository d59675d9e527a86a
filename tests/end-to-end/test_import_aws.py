# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""scripts/import-aws: from the configuration that AWS gives to files for espgw and strongSwan.

tests/vectors/aws has files with AWS's structure and its irregularities; the addresses are the
documentation's, the keys made up."""

import importlib.machinery
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import time

import pytest

import ike
import testbed
from testbed import ESPGW, ROOT, run

PROGRAM = ROOT / "scripts/import-aws"
VECTORS = ROOT / "tests/vectors/aws"
KEYS = ("Ab3.dE6_gH9jK2mN5pQ8rS1tU4vW7x.Z", "_zY9xW8.vU7tS6rQ5pO4nM3lK2jI1.h_")
SWANCTL = "vpn-0123456789abcdef0.conf"
SECRETS = "vpn-0123456789abcdef0-secrets.conf"
FILES = ("espgw.conf", SWANCTL, SECRETS)

PORTS = ("--inside-port", "0000:3b:00.0", "--inside-address", "10.1.0.1/24",
         "--outside-port", "0000:3b:00.1", "--cores", "0")
IPV4 = (*PORTS, "--outside-address", "203.0.113.10/24", "--gateway", "203.0.113.1")
PREFIX = ("--prefix", "192.168.192.0/26")

STATIC = ("static", "crlf", "tabs", "capitals", "old-labels")
BGP = ("bgp", "colons", "old-labels-bgp")


def load_program():
    loader = importlib.machinery.SourceFileLoader("import_aws", str(PROGRAM))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("import_aws", loader))
    loader.exec_module(module)
    return module


import_aws = load_program()


def vector(name):
    return VECTORS / f"{name}.txt"


def start(file, *options, espgw=ESPGW):
    """Runs the program. Whatever becomes of it, no key is printed."""
    done = run("/usr/bin/python3", PROGRAM, file, "--espgw", espgw, *options, check=False)
    for key in KEYS:
        for part in (key, key[:12], key[-12:]):
            assert part not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def succeed(file, output, *options):
    done = start(file, "--output", output, *options)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in output.iterdir())
    assert names == sorted(FILES) or file == vector("old-labels") and len(names) == 3
    run(ESPGW, "--check", output / "espgw.conf")
    return done


def refuse(file, output, *options, status=1):
    """Returns what was said, line by line; nothing was written."""
    done = start(file, "--output", output, *options)
    assert done.returncode == status, done.stdout + done.stderr
    assert not output.exists()
    assert done.stdout == ""
    return done.stderr.splitlines()


def settings(text):
    """name = value, each with its comment gone, in their order."""
    return re.findall(r"^\s*([\w-]+) = \"?([^;\"#\n]*)", text, re.M)


def values(text, name):
    return [value.strip() for key, value in settings(text) if key == name]


# ---- What AWS gives, in all its forms ----

@pytest.mark.parametrize("name", STATIC + BGP)
def test_every_form_of_the_file_says_the_same(tmp_path, name):
    output = tmp_path / "out"
    succeed(vector(name), output, *IPV4, *(PREFIX if name in STATIC else ()))
    espgw = (output / "espgw.conf").read_text()
    assert values(espgw, "name") == ["espgw", "inside", "outside", "tunnel01", "tunnel02"]
    assert values(espgw, "if_id") == ["1", "2"]
    assert values(espgw, "gateway_endpoint") == ["203.0.113.10"] * 2
    assert values(espgw, "customer_endpoint") == ["198.51.100.21", "198.51.100.22"]
    assert values(espgw, "interface_address") == ["169.254.244.2/30", "169.254.244.6/30"]
    assert values(espgw, "far_side") == ["aws"] * 2
    secrets, swanctl = sorted(output.glob("vpn-*.conf"))  # "-" comes before "."
    swanctl = swanctl.read_text()
    assert values(swanctl, "local_addrs") == ["203.0.113.10"] * 2
    assert values(swanctl, "remote_addrs") == ["198.51.100.21", "198.51.100.22"]
    assert values(swanctl, "id") == ["203.0.113.10", "198.51.100.21",
                                     "203.0.113.10", "198.51.100.22"]
    assert values(swanctl, "if_id_in") == values(swanctl, "if_id_out") == ["1", "2"]
    secrets = secrets.read_text()
    assert values(secrets, "secret") == list(KEYS)
    assert values(secrets, "id-2") == ["198.51.100.21", "198.51.100.22"]
    for key in KEYS:
        assert key not in espgw and key not in swanctl


def test_static_routes_go_into_both_tunnels(tmp_path):
    succeed(vector("static"), tmp_path / "out", *IPV4, *PREFIX, "--prefix", "10.9.0.0/16")
    routes = re.findall(r"\{ prefix = \"(\S+)\"; tunnel = \"(\w+)\"; priority = (\d+); \}",
                        (tmp_path / "out/espgw.conf").read_text())
    assert routes == [(prefix, *way) for prefix in ("192.168.192.0/26", "10.9.0.0/16")
                      for way in (("tunnel01", "100"), ("tunnel02", "200"))]


def test_bgp_is_noted_and_no_route_is_made_up(tmp_path):
    done = succeed(vector("bgp"), tmp_path / "out", *IPV4)
    espgw = (tmp_path / "out/espgw.conf").read_text()
    assert not re.search(r"tunnel = ", espgw)
    for text in (done.stdout, espgw):
        for inside, aws in (("169.254.244.2", "169.254.244.1"), ("169.254.244.6", "169.254.244.5")):
            assert f"neighbour {aws}, AS 64512; this end {inside}, AS 65000; hold time 30 s" in text


def test_ipv6_inside(tmp_path):
    succeed(vector("ipv6-inside"), tmp_path / "out", *IPV4, "--prefix", "2001:db8:100::/48")
    espgw = (tmp_path / "out/espgw.conf").read_text()
    assert values(espgw, "interface_address") == ["fd00:1234:5678:9abc::2/126",
                                                  "fd00:1234:5678:9abc::6/126"]
    swanctl = (tmp_path / "out" / SWANCTL).read_text()
    assert values(swanctl, "local_ts") == values(swanctl, "remote_ts") == ["::/0"] * 2


def test_ipv6_outside(tmp_path):
    succeed(vector("ipv6-outside"), tmp_path / "out", *PORTS, "--prefix", "2001:db8:100::/48",
            "--outside-address", "2001:db8:2::10/64", "--gateway", "2001:db8:2::1")
    espgw = (tmp_path / "out/espgw.conf").read_text()
    assert values(espgw, "customer_endpoint") == ["2001:db8:1::21", "2001:db8:1::22"]
    assert "{ prefix = \"::/0\"; port = \"outside\"; next_hop = \"2001:db8:2::1\"; }" in espgw


@pytest.mark.parametrize("encoding, line_end", [("utf-8-sig", "\n"), ("utf-16", "\r\n"),
                                                ("latin-1", "\n"), ("utf-8", "\r")])
def test_encodings(tmp_path, encoding, line_end):
    file = tmp_path / "aws.txt"
    text = (vector("static").read_text() + "\u00e9\n").replace("\n", line_end)
    file.write_bytes(text.encode(encoding))
    succeed(file, tmp_path / "out", *IPV4, *PREFIX)
    succeed(vector("static"), tmp_path / "same", *IPV4, *PREFIX)
    for name in FILES:
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "same" / name).read_text()


# ---- Options ----

@pytest.mark.parametrize("dh, group", [("14", "modp2048"), ("20", "ecp384")])
@pytest.mark.parametrize("role, action", [("responder", "trap"), ("initiator", "trap|start")])
def test_role_and_group(tmp_path, dh, group, role, action):
    succeed(vector("static"), tmp_path / "out", *IPV4, *PREFIX, "--role", role, "--dh", dh)
    swanctl = (tmp_path / "out" / SWANCTL).read_text()
    assert values(swanctl, "proposals") == [f"aes256gcm16-prfsha256-{group}"] * 2
    assert values(swanctl, "esp_proposals") == [f"aes256gcm16-{group}"] * 2
    assert values(swanctl, "start_action") == [action] * 2
    assert values(swanctl, "dpd_action") == ["restart"] * 2
    assert values(swanctl, "close_action") == [{"trap": "none"}.get(action, "start")] * 2
    assert values(swanctl, "mobike") == ["no"] * 2
    # AWS rekeys 270 to 540 s before 28,800 and 3,600 s: all of ours before, or all after.
    ike, child = [[int(times[i].rstrip("s")) for times in (values(swanctl, "rekey_time"),
                                                           values(swanctl, "rand_time"))]
                  for i in (0, 1)]
    for (rekey, rand), life in ((ike, 28800), (child, 3600)):
        if role == "initiator":
            assert rekey < life - 540
        else:
            assert rekey - rand > life - 270


def test_behind_nat(tmp_path):
    succeed(vector("static"), tmp_path / "out", *PORTS, *PREFIX, "--outside-address",
            "172.16.5.2/24", "--gateway", "172.16.5.1", "--local-address", "172.16.5.2")
    espgw = (tmp_path / "out/espgw.conf").read_text()
    assert values(espgw, "gateway_endpoint") == ["172.16.5.2"] * 2
    swanctl = (tmp_path / "out" / SWANCTL).read_text()
    assert values(swanctl, "local_addrs") == ["172.16.5.2"] * 2
    assert values(swanctl, "id")[0] == "203.0.113.10"  # as AWS knows it


def test_prefix_list(tmp_path):
    prefixes = tmp_path / "prefixes"
    prefixes.write_text("# VPCs\n192.168.192.0/26\n\n10.9.0.0/16, 10.10.0.0/16  # two\n"
                        "192.168.192.0/26\n")
    succeed(vector("bgp"), tmp_path / "out", *IPV4, "--prefix-list", prefixes)
    espgw = (tmp_path / "out/espgw.conf").read_text()
    assert re.findall(r"\"(\S+)\"; tunnel = \"tunnel02\"", espgw) == [
        "192.168.192.0/26", "10.9.0.0/16", "10.10.0.0/16"]
    prefixes.write_text("192.168.192.0/26\n192.168.193.1/26\nten\n")
    said = refuse(vector("static"), tmp_path / "no", *IPV4, "--prefix-list", prefixes, status=2)
    assert said == [
        f"{prefixes}:2: 192.168.193.1/26: write 192.168.193.0/26",
        f"{prefixes}:3: ten: no prefix such as 192.168.192.0/26"]


NEEDED = ["--inside-port", "--inside-address", "--outside-port", "--outside-address", "--gateway",
          "--output", "--prefix"]


def test_all_that_is_missing_is_said_at_once(tmp_path):
    for arguments, wanted in (
            ([vector("static")], NEEDED),
            ([], ["FILE", *NEEDED]),
            ([tmp_path / "none.txt"], [f"{tmp_path / 'none.txt'}:", *NEEDED]),
            ([vector("openswan")], [f"{vector('openswan')}:5:", *NEEDED])):
        done = run("/usr/bin/python3", PROGRAM, *arguments, check=False)
        assert done.returncode == 2 and done.stdout == ""
        assert [line.split()[0] for line in done.stderr.splitlines()] == wanted


def test_all_that_is_malformed_is_said_at_once(tmp_path):
    said = refuse(vector("one-tunnel"), tmp_path / "out", "--cores", "two", "--dh", "2", "--wrong",
                  "--inside-address", "10.1.0.1", "--gateway", "router", "--prefix", "10.1.0.0/8",
                  "--prefix-list", tmp_path / "none", "--outside-port", "0000:3b:00.1", status=2)
    assert [line.split(":")[0] for line in said] == [
        str(vector("one-tunnel")), "--cores two", "--dh 2", "--inside-address 10.1.0.1",
        "--gateway router", "--wrong", "--inside-port is missing", "--outside-address is missing",
        "--prefix-list " + str(tmp_path / "none"), "--prefix 10.1.0.0/8"], said


@pytest.mark.parametrize("options, words", [
    ((*IPV4, "--prefix", "192.168.192.1/26"), "--prefix 192.168.192.1/26: write 192.168.192.0/26"),
    ((*IPV4, "--prefix", "2001:db8::/32"), "--prefix 2001:db8::/32: the connection is for IPv4"),
    ((*PORTS, *PREFIX, "--outside-address", "203.0.113.11/24", "--gateway", "203.0.113.1"),
     "AWS knows this gateway as 203.0.113.10"),
    ((*IPV4, *PREFIX, "--local-address", "10.0.0.5"), "--local-address 10.0.0.5 is no"),
    ((*IPV4[:-1], "192.0.2.1", *PREFIX), "--gateway 192.0.2.1 is not on the network"),
    ((*IPV4, *PREFIX, "--outside-address", "203.0.113.12"), "no address with prefix length"),
    ((*IPV4, *PREFIX, "--inside-port", "x\"; y = \""), "no DPDK device"),
    ((*IPV4, *PREFIX, "--name", "a\nb"), "1 to 15 of"),
    ((*IPV4, *PREFIX, "--cores", "one"), "no list of cores"),
    ((*IPV4, *PREFIX, "--dh", "2"), "--dh 2: not one of 14, 20"),
    ((*IPV4, *PREFIX, "--cores", "7,7"), "--cores 7,7: a core"),
    ((*IPV4, *PREFIX, "--cores", "1024"), "--cores 1024: a core"),
])
def test_wrong_options(tmp_path, options, words):
    assert words in "\n".join(refuse(vector("static"), tmp_path / "out", *options, status=2))


def test_dry_run_writes_nothing(tmp_path):
    done = start(vector("static"), *IPV4, *PREFIX, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "customer_endpoint = \"198.51.100.21\"" in done.stdout
    assert "remote_addrs = 198.51.100.22" in done.stdout
    done = start(vector("static"), *IPV4, *PREFIX, "--dry-run", "--output", tmp_path / "out")
    assert done.returncode == 0 and not (tmp_path / "out").exists()


# ---- Wrong files ----

@pytest.mark.parametrize("name, wanted", [
    ("no-aws-inside", ['117: IPSec Tunnel #2: "Inside IP Addresses" has no'
                       ' "Virtual Private Gateway"']),
    ("certificate", ['17: IPSec Tunnel #1: "#1: Internet Key Exchange Configuration" has no'
                     ' "Pre-Shared Key"',
                     '76: IPSec Tunnel #2: "#1: Internet Key Exchange Configuration" has no'
                     ' "Pre-Shared Key"']),
    ("cisco", ['5: "IPSec Tunnel #1" stands in a comment']),
    ("openswan", ['5: IPSec Tunnel #1: none of the sections of vendor "Generic" follows']),
    ("one-tunnel", ['79: there is no "IPSec Tunnel #2"']),
    ("three-tunnels", ["133: IPSec Tunnel #3: is one too many"]),
    ("duplicated-block", ["74: IPSec Tunnel #1: is there twice, first in line 15"]),
    ("duplicated-section", ['61: IPSec Tunnel #1: "Outside IP Addresses" is there twice, first in'
                            ' line 53', "62: ", "63: "]),
    ("same-tunnel-twice", ["114: IPSec Tunnel #2: has the outside address of IPSec Tunnel #1",
                           "117: IPSec Tunnel #2: has the inside network of IPSec Tunnel #1"]),
    ("mixed-routing", ["74: IPSec Tunnel #2: one tunnel has static routing, the other BGP"]),
    ("hidden-key", ['23: IPSec Tunnel #1: "Pre-Shared Key" is not what AWS makes',
                    '83: IPSec Tunnel #2: "Pre-Shared Key" is not what AWS makes']),
    ("wrong-addresses", ['54: IPSec Tunnel #1: "Customer Gateway" is "203.0.113.310"',
                         '70: IPSec Tunnel #1: "Next hop" is 169.254.244.9',
                         '118: IPSec Tunnel #2: "Customer Gateway" is "169.254.244.6"']),
])
def test_wrong_files_are_refused_by_line_and_label(tmp_path, name, wanted):
    said = refuse(vector(name), tmp_path / "out", *IPV4, *PREFIX)
    assert len(said) == len(wanted), said
    for line, words in zip(said, wanted):
        assert line.startswith(f"{vector(name)}:{words}"), said


@pytest.mark.parametrize("old, new, words", [
    ("Gateway             : 169.254.244.1/30", "Gateway : 169.254.244.9/30",
     '59: IPSec Tunnel #1: "Inside IP Addresses" 169.254.244.2/30 and 169.254.244.9/30 are not in'),
    ("Gateway             : 169.254.244.1/30", "Gateway : 169.254.244.2/30",
     '59: IPSec Tunnel #1: "Inside IP Addresses" are one and the same'),
    ("198.51.100.22", "2001:db8::22", '115: IPSec Tunnel #2: "Outside IP Addresses" are of two'),
    ("198.51.100.22", "", '115: IPSec Tunnel #2: "Virtual Private Gateway" has no value'),
    ("198.51.100.22", KEYS[0], '115: IPSec Tunnel #2: "Virtual Private Gateway" is no IP address'),
    (KEYS[1], "0" + KEYS[1], '83: IPSec Tunnel #2: "Pre-Shared Key" is not what AWS makes'),
    (KEYS[1], "Short_7", '83: IPSec Tunnel #2: "Pre-Shared Key" is not what AWS makes'),
])
def test_wrong_values(old, new, words):
    text = vector("static").read_text()
    assert old in text
    with pytest.raises(import_aws.Failure) as raised:
        import_aws.Reader("aws.txt", text.replace(old, new)).read()
    said = str(raised.value)
    assert f"aws.txt:{words}" in said, said
    assert KEYS[0] not in said and KEYS[1] not in said


LABELS = {
    "Pre-Shared Key ": '"#1: Internet Key Exchange Configuration" has no "Pre-Shared Key"',
    "Outside IP Addresses": 'has no "Outside IP Addresses"',
    "Inside IP Addresses": 'has no "Inside IP Addresses"',
    "#4: Static Routing": 'has neither "#4: Static Routing Configuration" nor',
    "Next hop": '"#4: Static Routing Configuration" has no "Next hop"',
    "#4: Border Gateway": 'nor "#4: Border Gateway Protocol (BGP) Configuration"',
    "Customer Gateway ASN": 'has no "Customer Gateway ASN"',
    "Virtual Private  Gateway ASN": 'has no "Virtual Private Gateway ASN"',
    "Neighbor IP Address": 'has no "Neighbor IP Address"',
}


@pytest.mark.parametrize("name", ["static", "bgp"])
@pytest.mark.parametrize("tunnel", [1, 2])
@pytest.mark.parametrize("label", LABELS)
def test_truncated_before_a_label(tmp_path, name, tunnel, label):
    text = vector(name).read_text()
    places = [match.start() for match in re.finditer(rf"^.*{re.escape(label)}.*$", text, re.M)
              if "Method" not in match.group()]
    places = [place for place in places if "- Pre-Shared Key" in text[place:place + 60]
              or label != "Pre-Shared Key "]
    if not places:
        return
    file = tmp_path / "cut.txt"
    file.write_text(text[:places[tunnel - 1]])
    said = refuse(file, tmp_path / "out", *IPV4, *PREFIX)
    assert any(re.match(rf"{re.escape(str(file))}:\d+: IPSec Tunnel #{tunnel}: ", line)
               and LABELS[label] in line for line in said), said
    if tunnel == 1:
        assert 'there is no "IPSec Tunnel #2"' in said[-1]


def summary(tunnels):
    return [(tunnel.key, tunnel.outside, tunnel.aws_outside, tunnel.inside, tunnel.aws_inside,
             tunnel.asn, tunnel.aws_asn) for tunnel in tunnels]


@pytest.mark.parametrize("name", ["static", "bgp", "colons", "tabs"])
def test_cut_anywhere_it_fails_or_says_the_same(name):
    text = import_aws.read_text(vector(name))
    whole = summary(import_aws.Reader("aws.txt", text).read())
    good = 0
    for length in range(len(text)):
        try:
            found = summary(import_aws.Reader("aws.txt", text[:length]).read())
        except import_aws.Failure as failure:
            assert not any(key[:8] in str(failure) for key in KEYS)
            assert all(re.match(r"aws\.txt:\d+: ", line) for line in str(failure).splitlines())
            continue
        assert found == whole, length
        good += 1
    assert 0 < good < 400


def test_no_text_of_aws(tmp_path):
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    whole = (tmp_path / "out", *IPV4, *PREFIX)
    assert refuse(empty, *whole)[0].startswith(f"{empty}:1: there is no")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\x7fELF\0\0" * 100)
    assert refuse(binary, *whole) == [f"{binary}: is not text"]
    large = tmp_path / "large"
    large.write_bytes(b"IPSec Tunnel #1\n" * 70000)
    assert "is over 1048576 bytes" in refuse(large, *whole)[0]
    assert "No such file" in refuse(tmp_path / "missing", *whole)[0]
    assert "directory" in refuse(tmp_path, *whole)[0]


# ---- Writing ----

def test_only_the_owner_can_read_the_keys(tmp_path):
    previous = os.umask(0)
    try:
        succeed(vector("static"), tmp_path / "out", *IPV4, *PREFIX)
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "out" / SECRETS).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "out/espgw.conf").stat().st_mode) == 0o644


def test_the_mode_holds_before_the_first_byte(tmp_path, monkeypatch):
    seen = []
    fdopen = os.fdopen

    def spy(descriptor, *arguments, **options):
        status = os.fstat(descriptor)
        seen.append((stat.S_IMODE(status.st_mode), status.st_size))
        return fdopen(descriptor, *arguments, **options)
    monkeypatch.setattr(os, "fdopen", spy)
    previous = os.umask(0)
    try:
        import_aws.write_new(tmp_path / "secret", "x", 0o600)
    finally:
        os.umask(previous)
    assert seen == [(0o600, 0)]


def test_files_that_are_there_are_left_alone(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / SWANCTL).write_text("mine")
    done = start(vector("static"), "--output", output, *IPV4, *PREFIX)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (f"{output}/{SWANCTL}: is there already; --force"
                                            " overwrites it")
    assert [path.name for path in output.iterdir()] == [SWANCTL]
    assert (output / SWANCTL).read_text() == "mine"
    succeed(vector("static"), output, *IPV4, *PREFIX, "--force")
    assert (output / SWANCTL).read_text() != "mine"
    # An old file's mode does not live on.
    (output / SECRETS).chmod(0o666)
    succeed(vector("bgp"), output, *IPV4, "--force")
    assert stat.S_IMODE((output / SECRETS).stat().st_mode) == 0o600


def test_the_files_of_a_second_vpn_lie_beside_the_first(tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(vector("static").read_text().replace("vpn-0123456789abcdef0", "vpn-0aa"))
    for file, name in ((vector("static"), "vpn-0123456789abcdef0"), (other, "vpn-0aa")):
        output = tmp_path / name
        done = start(file, "--output", output, *IPV4, *PREFIX)
        assert done.returncode == 0, done.stderr
        assert (output / f"{name}.conf").read_text().endswith(f"include {name}-secrets.conf\n")
        assert stat.S_IMODE((output / f"{name}-secrets.conf").stat().st_mode) == 0o600
    other.write_text(vector("static").read_text().replace("vpn-0123456789abcdef0", ""))
    assert start(other, "--output", tmp_path / "no", *IPV4, *PREFIX).returncode == 0
    assert sorted(path.name for path in (tmp_path / "no").iterdir()) == [
        "espgw.conf", "swanctl-secrets.conf", "swanctl.conf"]


def test_all_or_nothing(tmp_path, monkeypatch):
    link, calls = os.link, []

    def fail_at_the_last(source, target):
        calls.append(target)
        if len(calls) == 3:
            raise OSError(28, "No space left on device", str(target))
        link(source, target)
    monkeypatch.setattr(os, "link", fail_at_the_last)
    files = {name: ("content", 0o600) for name in FILES}
    with pytest.raises(import_aws.Failure, match="No space left on device; nothing was written"):
        import_aws.put_in_place(tmp_path / "out", files, force=False)
    assert len(calls) == 3 and not (tmp_path / "out").exists()
    monkeypatch.undo()
    (tmp_path / "out/espgw.conf").mkdir(parents=True)
    with pytest.raises(import_aws.Failure, match="is a directory"):
        import_aws.put_in_place(tmp_path / "out", files, force=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["espgw.conf"]


def test_files_that_are_replaced_are_put_back_after_a_failure(tmp_path, monkeypatch):
    output = tmp_path / "etc"
    output.mkdir()
    files = {name: (f"new {name}", 0o644) for name in FILES}
    for name in FILES[:2]:
        (output / name).write_text(f"old {name}")
    replace = os.replace

    def fail_at_the_second(source, target):
        if target == output / FILES[1] and not str(source).endswith(".old"):
            raise OSError(28, "No space left on device", str(source))
        replace(source, target)
    monkeypatch.setattr(os, "replace", fail_at_the_second)
    with pytest.raises(import_aws.Failure, match="nothing was written"):
        import_aws.put_in_place(output, files, True)
    assert {path.name: path.read_text() for path in output.iterdir()} \
        == {name: f"old {name}" for name in FILES[:2]}


@pytest.mark.parametrize("address", [
    "2001:db8:2::10%x } } evil { remote_addrs = 192.0.2.66",
    "2001:db8:2::10%eth0",
    "203.0.113.10 } evil {",
])
def test_an_address_is_nothing_but_an_address(tmp_path, address):
    """ipaddress takes any text behind a % for an IPv6 scope; it would go into swanctl.conf."""
    file = tmp_path / "vpn.txt"
    file.write_text(re.sub(r"(Outside IP Addresses.*?Customer Gateway\s*: )\S+",
                           lambda match: match[1] + address, vector("static").read_text(),
                           flags=re.S))
    assert address in file.read_text()
    said = refuse(file, tmp_path / "etc", *IPV4, *PREFIX, "--local-address", "203.0.113.10",
                  status=1)
    assert any("Customer Gateway" in line and "is no IP address" in line for line in said), said


@pytest.mark.parametrize("line", [" " * 1900, "- " + " " * 1900, "-" * 1900, "#" * 1900, ": " * 900])
def test_odd_lines_take_no_time(tmp_path, line):
    file = tmp_path / "vpn.txt"
    file.write_text(vector("static").read_text() + f"{line}x\n" * 200)
    began = time.monotonic()
    start(file, "--output", tmp_path / "etc", *IPV4, *PREFIX)
    assert time.monotonic() - began < 5 * testbed.PATIENCE


def test_a_line_without_end_is_refused(tmp_path):
    file = tmp_path / "vpn.txt"
    file.write_text(vector("static").read_text() + "x" * 2001)
    assert "over 2000 characters long" in refuse(file, tmp_path / "etc", *IPV4, *PREFIX)[0]


def test_what_espgw_refuses_is_not_written(tmp_path):
    ports = ("--inside-port", "net_af_packet0,iface=eth1", "--inside-address", "10.1.0.1/24",
             "--outside-port", "net_af_packet1,iface=eth1", "--gateway", "203.0.113.1", "--cores",
             "900", "--outside-address", "203.0.113.10/24")
    said = refuse(vector("static"), tmp_path / "out", *ports, *PREFIX)
    assert said[1].startswith("--outside-port: ports[1].device = \"net_af_packet1,iface=eth1\": ")
    assert not any("espgw.conf:" in line or "900" in line for line in said[1:]), said
    said = refuse(vector("static"), tmp_path / "out", *IPV4, *PREFIX, "--inside-address",
                  "10.2.0.0/24", "--prefix", "224.0.0.0/8")
    assert [line.split(":")[0] for line in said[1:]] == ["--inside-address", "--prefix", "--prefix"]


def test_what_aws_file_has_wrong_is_said_of_it(tmp_path):
    file = tmp_path / "aws.txt"
    file.write_text(vector("static").read_text().replace("169.254.244.", "169.254.0."))
    said = refuse(file, tmp_path / "out", *IPV4, *PREFIX)
    assert any(re.match(rf"{re.escape(str(file))}:\d+: IPSec Tunnel #1: tunnels\[0\]\.inter", line)
               for line in said), said


def test_cores_of_another_machine_are_no_error(tmp_path):
    done = start(vector("static"), "--output", tmp_path / "out", *IPV4, *PREFIX, "--cores",
                 "900,901")
    assert done.returncode == 0 and "no core 900, 901" in done.stderr
    assert "cores = [ 900, 901 ]" in (tmp_path / "out/espgw.conf").read_text()


def test_without_espgw_it_says_that_nothing_was_checked(tmp_path):
    copy = tmp_path / "import-aws"
    shutil.copy(PROGRAM, copy)
    done = subprocess.run([copy, str(vector("static")), "--output", str(tmp_path / "out"), *IPV4,
                           *PREFIX], env={"PATH": "/nowhere"}, text=True, capture_output=True)
    if "was not checked" not in done.stderr:
        pytest.skip("an espgw is installed")
    assert done.returncode == 0 and (tmp_path / "out/espgw.conf").exists()


# ---- What was written, at work ----

def as_aws_has_it(world):
    """AWS's file for this world; AWS's endpoints get its keys."""
    text = vector("static").read_text().replace("203.0.113.10", world.GATEWAY)
    for tunnel, endpoint, key, address in zip(world.tunnels, world.aws, KEYS,
                                              ("198.51.100.21", "198.51.100.22")):
        text = text.replace(address, tunnel.address)
        endpoint.charon.connections[tunnel.name][1]["secret"] = f'"{key}"'
    return text


@pytest.mark.parametrize("role, dh", [("responder", 14), ("initiator", 20)])
def test_from_the_file_to_two_tunnels_that_carry(network, tmp_path, monkeypatch, role, dh):
    world = ike.AwsNetwork(network, aws_starts=role == "responder", dh=dh)
    espgw, charon = world.gateway.espgw, world.gateway.charon
    file = tmp_path / "aws.txt"
    file.write_text(as_aws_has_it(world))
    output = tmp_path / "out"
    succeed(file, output, *PREFIX, "--role", role, "--dh", str(dh), "--no-hugepages",
            "--inside-port", "net_af_packet0,iface=veth-lan", "--inside-address", "10.1.0.1/24",
            "--outside-port", "net_af_packet1,iface=veth-wan",
            "--outside-address", f"{world.GATEWAY}/24", "--gateway", "203.0.113.254",
            "--cores", "0")
    # Only what is the test's own is changed: the names and paths of this gateway.
    own = "".join(f'{key} = "{value}"; ' for key, value in espgw.config["gateway"].items()
                  if key != "hugepages")
    text = (output / "espgw.conf").read_text()
    assert 'name = "espgw";' in text
    monkeypatch.setattr(testbed, "write_config", lambda path, config: path.write_text(
        text.replace('name = "espgw";', own)))
    espgw.start()
    charon.start(load=False)
    for name in (SWANCTL, SECRETS):
        shutil.copy(output / name, charon.directory / name)
    if role == "responder":
        charon.swanctl("--load-all", "--noprompt", "--file", charon.directory / SWANCTL)
    for endpoint in world.aws:
        endpoint.start()
    if role == "initiator":
        charon.swanctl("--load-all", "--noprompt", "--file", charon.directory / SWANCTL)
    world.wait_up()
    for number in (1, 2):
        world.use(number)
        world.site.ping(world.VPC)
        assert espgw.tunnel(f"tunnel{number:02}")["in_packets"] >= 5
    group = {14: "MODP_2048", 20: "ECP_384"}[dh]
    for sa in charon.sas():
        assert (sa["encr-alg"], sa["encr-keysize"], sa["dh-group"]) == ("AES_GCM_16", "256", group)
