# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""Start, stop, restart, and devices that come and go."""

import contextlib
import pathlib
import re
import signal
import subprocess
import time

import pytest

from testbed import ESPGW, PATIENCE, Gateway, run, wait_until
from topologies import Bench, Pair, probe


def interfaces(namespace):
    """Name to kernel index of the TAPs and TUNs."""
    shown = namespace.ip("-o", "link", "show", "type", "tun")
    return {name: int(index) for index, name in re.findall(r"^(\d+): (\S+):", shown, re.M)}


def test_interfaces_stay_and_are_taken_up_again(network):
    bench = Bench(network).start()
    namespace = bench.gateway.namespace
    before = interfaces(namespace)
    assert before.keys() == {"lan", "wan", *Bench.FAR}
    bench.gateway.stop()
    assert interfaces(namespace) == before
    assert Bench.WAN in namespace.ip("address", "show", "dev", "wan")
    assert "169.254.244.2" in namespace.ip("address", "show", "dev", "tunnel01")
    bench.gateway.start()
    assert interfaces(namespace) == before
    sa = bench.sa_out()
    assert sa.decrypt(bench.esp_of(probe(Bench.HOST, Bench.BEHIND["tunnel01"])))
    bench.gateway.stop()
    namespace.run(ESPGW, "--remove-interfaces", "--config", bench.gateway.file)
    assert interfaces(namespace) == {}


def test_a_second_instance_says_so(network):
    bench = Bench(network).start()
    first = bench.gateway
    namesake = network.gateway(first.namespace, first.config)
    other = network.gateway(first.namespace, first.config)
    other.config["gateway"] = {**first.config["gateway"], "name": "other",
                               "control_socket": str(other.directory / "control.sock")}
    other_socket = network.gateway(first.namespace, first.config)
    other_socket.config["gateway"] = {
        **first.config["gateway"], "name": "third",
        "run_directory": str(other_socket.directory / "run"),
        "state_directory": str(other_socket.directory / "state")}
    for gateway, words in ((namesake, "another espgw named"), (other, "another espgw uses"),
                           (other_socket, "another espgw")):
        gateway.spawn()
        assert gateway.process.wait(20 * PATIENCE) == 1
        assert words in gateway.tail(), gateway.tail()
    sa = bench.sa_out()  # the first is unharmed
    assert sa.decrypt(bench.esp_of(probe(Bench.HOST, Bench.BEHIND["tunnel01"])))


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_clean_stop_under_load(network, number):
    pair = Pair(network).start()
    flood = network.popen(pair.site_a, "ping", "-q", "-f", "-w", 20, Pair.SITE_B,
                          stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    began = time.monotonic()
    assert pair.a.end(number) == 0
    assert time.monotonic() - began < 2 * PATIENCE
    assert re.search(r"unaccounted 0 packets", pair.a.tail()), pair.a.tail()
    flood.kill()
    assert pair.b.end(number) == 0
    # Nothing of a key lies about.
    for path in pair.a.directory.rglob("*"):
        assert not path.is_socket() or path.name != "control.sock"


def test_a_port_that_goes_away_is_reported_and_the_rest_goes_on(network):
    bench = Bench(network).start()
    into = bench.sa_in()
    control = bench.gateway.control
    control.call("events.subscribe", events=["port.state"])
    bench.inside.namespace.ip("link", "delete", "eth0")
    event = control.event("port.state")
    assert (event["port"], event["present"]) == ("lan", False)
    assert bench.gateway.port("lan")["present"] is False
    assert bench.gateway.port("wan")["link_up"] is True
    bench.send_outside(*(into.encrypt(probe(Bench.BEHIND["tunnel01"], Bench.HOST))
                         for _ in range(3)))
    # By their source: the kernel sends of its own accord to a port that is gone (router
    # solicitations, say), and that is counted too.
    wait_until(lambda: bench.gateway.source("port", "wan")["drops"] == {"port_down": 3},
               "the three packets for the port that is gone are dropped")
    tunnel02, tunnel01 = bench.sa_out("tunnel02"), bench.sa_in("tunnel01")
    bench.outside.flush()
    sent = probe(Bench.BEHIND["tunnel01"], Bench.BEHIND["tunnel02"])
    bench.send_outside(tunnel01.encrypt(sent))
    outer = bench.outside.receive(lambda data: data[23] == 50 and data, what="ESP for tunnel02")
    assert outer and tunnel02
    bench.gateway.stop()


def test_link_down_and_up(network):
    bench = Bench(network).start()
    control = bench.gateway.control
    control.call("events.subscribe", events=["port.state"])
    for state in ("down", "up"):
        bench.inside.namespace.ip("link", "set", "eth0", state)
        event = control.event("port.state")
        assert (event["port"], event["present"], event["link_up"]) == ("lan", True, state == "up")
    sa = bench.sa_out()
    assert sa.decrypt(bench.esp_of(probe(Bench.HOST, Bench.BEHIND["tunnel01"])))


def test_privileges_are_dropped_and_secrets_are_kept_to_itself(network):
    bench = Bench(network).start()
    status = pathlib.Path(f"/proc/{bench.gateway.process.pid}/status").read_text()
    capabilities = {int(word, 16) for word in re.findall(r"^Cap(?:Eff|Prm):\s*(\w+)", status, re.M)}
    net_admin, net_raw, ipc_lock = 1 << 12, 1 << 13, 1 << 14
    assert capabilities == {net_admin | net_raw | ipc_lock}
    assert re.search(r"^NoNewPrivs:\s*1", status, re.M)
    limits = pathlib.Path(f"/proc/{bench.gateway.process.pid}/limits").read_text()
    assert re.search(r"^Max core file size\s+0\s+0", limits, re.M)
    sa = bench.sa_out()
    bench.esp_of(probe(Bench.HOST, Bench.BEHIND["tunnel01"]))
    for path in bench.gateway.directory.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert sa.key not in data and sa.key.hex().encode() not in data, path


@contextlib.contextmanager
def reserved_hugepages(count):
    knob = pathlib.Path("/proc/sys/vm/nr_hugepages")
    before = knob.read_text()
    mounted = False
    try:
        knob.write_text(str(count))
        if int(knob.read_text()) < count:
            pytest.skip(f"the kernel has no {count} hugepages")
        if " hugetlbfs " not in pathlib.Path("/proc/mounts").read_text():
            pathlib.Path("/dev/hugepages").mkdir(exist_ok=True)
            run("mount", "-t", "hugetlbfs", "hugetlbfs", "/dev/hugepages")
            mounted = True
        yield
    except OSError as error:
        pytest.skip(f"hugepages can't be reserved: {error}")
    finally:
        if mounted:
            run("umount", "/dev/hugepages", check=False)
        with contextlib.suppress(OSError):
            knob.write_text(before)


def test_with_hugepages(network):
    with reserved_hugepages(256):
        bench = Bench(network)
        bench.gateway.config["gateway"]["hugepages"] = True
        bench.start()
        out, into = bench.sa_out(), bench.sa_in()
        sent = probe(Bench.HOST, Bench.BEHIND["tunnel01"])
        assert out.decrypt(bench.esp_of(sent)).dst == Bench.BEHIND["tunnel01"]
        sent = probe(Bench.BEHIND["tunnel01"], Bench.HOST)
        bench.send_outside(into.encrypt(sent))
        bench.arrives_inside(sent)
        bench.gateway.kill()  # without a chance to tidy up
        name = bench.gateway.config["gateway"]["name"]
        assert not list(pathlib.Path("/dev/hugepages").glob(f"espgw-{name}*"))


def test_many_starts_leave_nothing_behind(network):
    """Neither files, nor sockets, nor what would stop the next start."""
    bench = Bench(network)
    for _ in range(3):
        bench.gateway.start()
        bench.gateway.kill()
    bench.gateway.start()
    bench.gateway.stop()
    assert isinstance(bench.gateway, Gateway) and not bench.gateway.alive
    wait_until(lambda: not pathlib.Path(bench.gateway.config["gateway"]["control_socket"]).exists(),
               "the socket is gone")
