# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""scripts/bench runs the real daemon between two memif links and accounts for every packet.

Speed is not judged here: other work shares the machine with the tests.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

from testbed import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from benchmarks import bed, pktgen, traffic  # noqa: E402

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SIZE = 64
ETHERNET = 14
# 20 outer IP, 8 ESP, 8 IV, 64 + 2 trailer padded to 68, 16 ICV
FRAMES = {"encap": ETHERNET + 120, "decap": ETHERNET + SIZE}


def run_bench(*arguments, **options):
    return subprocess.run([ROOT / "scripts/bench", *arguments], capture_output=True, text=True,
                          timeout=120, check=False, **options)


@pytest.fixture(scope="module")
def result():
    done = run_bench("--size", str(SIZE), "--direction", "encap", "--direction", "both",
                     "--seconds", "1", "--no-hugepages", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(params=("encap", "both"))
def row(request, result):
    return next(row for row in result["rows"] if row["direction"] == request.param)


def test_packets_come_out_as_they_should(row):
    assert row["program"] == "espgw" and row["packets_per_second"] > 0
    for way, figures in row["directions"].items():
        total = figures["total"]
        assert total["received"] > 1000
        assert total["received_bytes"] == total["received"] * FRAMES[way]
    assert set(row["directions"]) == ({"encap", "decap"} if row["direction"] == "both"
                                      else {"encap"})


def test_every_packet_is_accounted_for(row):
    gateway = row["gateway"]["total"]
    sent = sum(figures["total"]["sent"] for figures in row["directions"].values())
    received = sum(figures["total"]["received"] for figures in row["directions"].values())
    assert gateway["received"] == sent
    assert gateway["received"] == gateway["forwarded"] + gateway["dropped"]
    # The host's own frames leave by the same ports: none, or a few.
    assert 0 <= received - gateway["forwarded"] <= 5
    # The sink shares the machine, so the gateway may find its ring full; nothing else.
    assert set(row["gateway"]["drops"]) <= {"tx_full"}


def test_the_worker_is_measured(row):
    gateway = row["gateway"]
    assert 10 < gateway["cycles_per_packet"] < 1e6
    assert 0 <= gateway["idle_share"] <= 1
    assert 0 < gateway["packets_per_burst"] <= 64
    # Rates and sizes agree.
    assert row["inner_gbit_per_second"] == pytest.approx(
        row["packets_per_second"] * SIZE * 8 / 1e9)


@pytest.mark.parametrize("arguments, words", [
    (("--size", "20"), "--size: 20"),
    (("--size", "9000"), "--size: 9000"),
    (("--direction", "up"), "--direction"),
    (("--seconds", "soon"), "--seconds: soon"),
    (("--cores", "777"), "--cores: 777"),
    (("--generator-cores", "0,0"), "--generator-cores: 0,0"),
    (("--secgw", "/nowhere/secgw"), "--secgw: /nowhere/secgw"),
    (("--velocity",), "--velocity"),
    (("speed",), "speed: no such mode"),
])
def test_a_wrong_argument_is_named(arguments, words):
    done = run_bench(*arguments)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize("arguments, words", [
    (("--config", "/nowhere.conf"), "--config: /nowhere.conf"),
    (("--config", "/nowhere.conf", "--size", "64"), "--size"),
    (("--cores", "1", "--generator-cores", "1"), "--generator-cores"),
])
def test_arguments_that_do_not_fit_are_named(arguments, words):
    done = run_bench(*arguments)
    assert done.returncode == 1
    assert words in done.stderr


@pytest.fixture
def generator():
    """A generator of the user's own, and config/pktgen.conf changed to be its neighbour."""
    # pytest's own directories have names that are too long for a socket.
    place = pathlib.Path(tempfile.mkdtemp(prefix="espgw-test-"))
    made = bed.Bed(place, False, [0])
    clear = place / "clear.pcap"
    traffic.write_pcap(clear, traffic.cleartext(traffic.Network(), SIZE))
    made.generator.start(clear, None)
    text = (ROOT / "config/pktgen.conf").read_text()
    text = text.replace("hugepages = true", "hugepages = false")
    for link in ("inside", "outside"):
        text = text.replace(f"/run/espgw/{link}.sock", str(made.socket(link)))
    text = text.replace("/run/espgw/control.sock", str(place / "control.sock"))
    text = text.replace('name = "pktgen";', f'''name = "t{os.getpid()}-live";
        run_directory = "{place}/run"; state_directory = "{place}/state";''', 1)
    (place / "espgw.conf").write_text(text)
    yield made.generator
    made.close()
    shutil.rmtree(place)


def test_a_gateway_of_the_users_own_is_measured(generator):
    bench = subprocess.Popen(["unshare", "--net", ROOT / "scripts/bench", "--config",
                              generator.bed.directory / "espgw.conf", "--seconds", "1", "--json"],
                             text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert "start the generator" in bench.stderr.readline()
        generator.tell("start")
        out, errors = bench.communicate(timeout=60)
    finally:
        bench.kill()
    assert bench.returncode == 0, errors
    result = json.loads(out)
    assert result["packets_per_second"] > 1000
    assert result["received_gbit_per_second"] == pytest.approx(
        result["received_per_second"] * (ETHERNET + SIZE) * 8 / 1e9)
    assert set(result["drops"]) <= {"tx_full"}
    assert result["worker_cores"] == [1] and result["cycles_per_packet"] > 10


def test_a_missing_testpmd_is_told_with_what_to_install():
    done = run_bench("--seconds", "1", env={**os.environ, "PATH": "/nowhere"})
    assert done.returncode == 1
    assert "dpdk-testpmd" in done.stderr and "dpdk-dev" in done.stderr


@pytest.mark.parametrize("arguments, status, words", [
    (("/nowhere/pktgen", "imix"), 2, "PATH: /nowhere/pktgen: no such program; build Pktgen-DPDK"),
    (("/bin/true", "sweep"), 2, "SCRIPT: invalid choice: 'sweep'"),
    (("/bin/true", "rfc2544", "--size", "imix"), 2, "--size: imix: it is a script of its own"),
    (("/bin/true", "rfc2544", "--core", "777"), 2, "--core: 777: not a list"),
    (("/bin/true", "imix", "--size", "64"), 1, "--size: not with imix"),
])
def test_a_wrong_argument_for_pktgen_is_named(arguments, status, words):
    done = run_bench("pktgen", *arguments)
    assert done.returncode == status
    assert words in done.stderr


def test_what_pktgen_scripts_write_is_read():
    sweep = ["# rate sweep: port 0 sends", "# size rate_percent sent", "64 10 1000", "64 20 2000"]
    assert pktgen.parse_results(sweep) == [{"size": 64, "rate_percent": 10, "sent": 1000},
                                           {"size": 64, "rate_percent": 20, "sent": 2000}]
    search = ["# RFC 2544 throughput: port 0 sends", "# trial size rate_percent lost_percent",
              "# found size rate_percent confirmed", "trial 64 50.00 0.0100", "found 64 25.00 not tried"]
    assert pktgen.parse_results(search) == [
        {"kind": "trial", "size": 64, "rate_percent": 50.0, "lost_percent": 0.01},
        {"kind": "found", "size": 64, "rate_percent": 25.0, "confirmed": "not tried"}]
