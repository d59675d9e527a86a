# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""scripts/demo proves what it says, and leaves nothing behind."""

import os
import pathlib
import re
import signal
import subprocess
import time
import uuid

import pytest

import ike
from testbed import BUILD, PATIENCE, ROOT, run

COMMAND = [ROOT / "scripts/demo", "--no-build", "--build", BUILD]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def read(path):
    try:
        return path.read_bytes()
    except OSError:  # it has ended, or is nobody's business
        return b""


def left_behind(demo):
    """Of this demo only: others may run on this machine. Its namespaces and its directory have its
    process id in their names, and what it starts has the mark of start() in its environment."""
    name, directory = f"espgw{demo.pid}-", f"espgw-demo.{demo.pid}."
    namespaces = [line for line in run("ip", "netns", "list").stdout.splitlines()
                  if line.startswith(name)]
    processes = [path for path in pathlib.Path("/proc").glob("[0-9]*")
                 if demo.mark.encode() in read(path / "environ")
                 or any(word.encode() in read(path / "cmdline") for word in (name, directory))]
    return namespaces + processes + list(pathlib.Path("/tmp").glob(f"{directory}*"))


def start(*options):
    mark = uuid.uuid4().hex
    demo = subprocess.Popen([*COMMAND, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, start_new_session=True,
                            env={**os.environ, "ESPGW_TEST_MARK": mark},
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    demo.mark = mark
    return demo


def check(demo, proved):
    """Runs it to its end; returns what it said."""
    began = time.monotonic()
    output, _ = demo.communicate(timeout=120 * PATIENCE)
    assert demo.returncode == 0, output
    assert time.monotonic() - began < 60 * PATIENCE
    *lines, last = output.splitlines()
    assert re.fullmatch("== Proved: " + proved, last), output
    assert all(len(line) <= 132 for line in lines), output
    assert not left_behind(demo)
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
    assert not left_behind(demo)


@pytest.mark.parametrize("arguments, says", [
    (["demo", "--plugin", "/x"], "--plugin goes with --no-build"),
    (["demo", "--no-build", "--static", "--plugin", "/x"], "--plugin does not go with --static"),
    (["demo", "--nonsense"], "--nonsense: no such argument"),
    (["hugepages", "1", "2"], "2: is too much"),
])
def test_what_would_be_ignored_is_refused(arguments, says):
    script, *options = arguments
    refused = run(ROOT / "scripts" / script, *options, check=False)
    assert refused.returncode == 1 and says in refused.stderr


def test_kept_demo_is_seen_and_ends():
    """What --keep leaves is what left_behind() sees, until it is ended as the demo says."""
    demo = start("--static", "--keep")
    output = demo.communicate(timeout=120 * PATIENCE)[0]
    remove = re.search(r"End it: (sh \S+/remove)$", output, re.M)
    try:
        assert demo.returncode == 0, output
        left = left_behind(demo)
        assert len([path for path in left if str(path).startswith("/proc")]) >= 3, left
        assert len([name for name in left if str(name).startswith("espgw")]) == 5, left
    finally:
        if remove:
            run(*remove[1].split())
    assert not left_behind(demo)
