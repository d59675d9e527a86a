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


def test_demo():
    began = time.monotonic()
    demo = subprocess.Popen(COMMAND, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)
    output, _ = demo.communicate(timeout=120 * PATIENCE)
    assert demo.returncode == 0, output
    assert time.monotonic() - began < 60 * PATIENCE
    last = output.splitlines()[-1]
    assert re.match(r"== Proved: 80 of 80 pings and TCP at \S+ and \S+ Mbit/s by two tunnels; "
                    r"outside passed \d{3,} ESP packets and 0 others\.$", last), output
    assert all(len(line) <= 100 for line in output.splitlines()[:-1]), output
    assert not left_behind(demo.pid)


def test_demo_interrupted_leaves_nothing_behind():
    demo = subprocess.Popen(COMMAND, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    for line in demo.stdout:
        if "Ping" in line:
            break
    os.killpg(demo.pid, signal.SIGINT)
    demo.communicate(timeout=60 * PATIENCE)
    assert demo.returncode == 130
    assert not left_behind(demo.pid)
