# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""scripts/demo proves what it says, and leaves nothing behind."""

import os
import pathlib
import re
import signal
import subprocess
import time

import pytest

import ike
from testbed import BUILD, PATIENCE, ROOT, run

COMMAND = [ROOT / "scripts/demo", "--no-build", "--build", BUILD]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def left_behind(pid):
    namespaces = [line for line in run("ip", "netns", "list").stdout.splitlines()
                  if line.startswith(f"espgw{pid}-")]
    processes = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if b"espgw-demo." in command or f"espgw{pid}-".encode() in command:
            processes.append(command)
    return namespaces + processes + list(pathlib.Path("/tmp").glob("espgw-demo.*"))


def start(*options):
    return subprocess.Popen([*COMMAND, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def check(demo, proved):
    """Runs it to its end; returns what it said."""
    began = time.monotonic()
    output, _ = demo.communicate(timeout=120 * PATIENCE)
    assert demo.returncode == 0, output
    assert time.monotonic() - began < 60 * PATIENCE
    *lines, last = output.splitlines()
    assert re.fullmatch("== Proved: " + proved, last), output
    assert all(len(line) <= 132 for line in lines), output
    assert not left_behind(demo.pid)
    return output


def test_demo():
    output = check(start("--plugin", ike.plugin_file()),
                   r"two tunnels by IKEv2, a rekey without loss, 380 of 380 pings and TCP at \S+ "
                   r"and \S+ Mbit/s; outside passed \d{4,} ESP packets, \d+ of IKE and 0 others\.")
    before, after = re.search(r"SPI outwards +(0x[0-9a-f]{8}), then (0x[0-9a-f]{8})$", output,
                              re.M).groups()
    assert before != after
    for name in ("tunnel01", "tunnel02"):
        assert re.search(rf"^{name} +up ", output, re.M), output
        assert re.search(rf"^{name}: #\d+, ESTABLISHED, IKEv2", output, re.M), output


def test_static_demo():
    check(start("--static"),
          r"80 of 80 pings and TCP at \S+ and \S+ Mbit/s by two tunnels; "
          r"outside passed \d{3,} ESP packets and 0 others\.")


def test_demo_interrupted_leaves_nothing_behind():
    demo = start("--plugin", ike.plugin_file())
    for line in demo.stdout:
        if "Ping" in line:
            break
    os.killpg(demo.pid, signal.SIGINT)
    demo.communicate(timeout=60 * PATIENCE)
    assert demo.returncode == 130
    assert not left_behind(demo.pid)
