# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""The charts, drawn from made-up measurements."""

import json
import pathlib
import shutil
import sys
import xml.etree.ElementTree

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from benchmarks import charts  # noqa: E402

needs_gnuplot = pytest.mark.skipif(shutil.which("gnuplot") is None, reason="needs gnuplot")


def report(workers=1, sas=1, ways=tuple(charts.WAYS), refused=(), cycles=130):
    """What espgw-bench prints; each way takes 10 cycles more than the one before it."""
    def row(path, size):
        figures = {way: {"cycles": cycles + 10 * i, "spread": 0.01} for i, way in enumerate(ways)}
        if (path, size) in refused:
            figures = {way: {"spread": 0.3} for way in ways}
        return {"path": path, "size": size, "burst": 32, "ways": figures}
    return {"machine": {"cpu": "A CPU's name", "tsc_mhz": 2600.0, "ipsec_mb": "1.3.0",
                        "ipsec_mb_architecture": "AVX2"},
            "load": {"workers": workers, "sas": sas, "cold": False},
            "rows": [row(path, size) for path in charts.PATHS for size in (*charts.SIZES, "imix")]}


ALL = [(1, 1), (2, 1), (1, 8), (2, 16)]


def draw(directory, *reports):
    """Names of the charts to the texts in them."""
    for given in reports:
        (directory / charts.file_name(given)).write_text(json.dumps(given))
    assert charts.main(["--from", str(directory), "--output", str(directory)]) == 0
    return {file.name: ["".join(text.itertext()).strip() for text in
                        xml.etree.ElementTree.parse(file).iter("{http://www.w3.org/2000/svg}text")]
            for file in directory.glob("*.svg")}


@needs_gnuplot
def test_all_charts(tmp_path):
    drawn = draw(tmp_path, *(report(*load) for load in ALL))
    assert set(drawn) == {"cycles-encapsulation.svg", "cycles-decapsulation.svg",
                          "throughput-by-cores.svg"}
    for name in ("cycles-encapsulation.svg", "cycles-decapsulation.svg"):
        assert {*charts.WAYS, *charts.SIZES, "IMIX", "TSC cycles per packet"} <= set(drawn[name])
        assert any("A CPU's name, TSC 2600 MHz" in text for text in drawn[name])
    texts = drawn["throughput-by-cores.svg"]
    assert {words for _, _, words, _ in charts.LOADS} <= set(texts)
    # 2600 MHz / 130 cycles; twice of it with two workers.
    assert texts.count("20.0") == texts.count("40.0") == 2 * 6
    assert texts.count("×2.00") == 2 * 6


@needs_gnuplot
def test_without_a_way_and_without_a_second_core(tmp_path):
    drawn = draw(tmp_path, report(ways=("espgw/ipsec-mb", "raw/ipsec-mb")))
    assert set(drawn) == {"cycles-encapsulation.svg", "cycles-decapsulation.svg"}
    assert "espgw/ipsec-mb" in drawn["cycles-encapsulation.svg"]
    assert "rte_ipsec" not in drawn["cycles-encapsulation.svg"]


@needs_gnuplot
def test_rows_that_were_too_noisy_are_left_out(tmp_path):
    noisy = report(2, 1, refused=[("encap", "64"), ("decap", "imix")])
    texts = draw(tmp_path, report(), noisy)["throughput-by-cores.svg"]
    assert (texts.count("20.0"), texts.count("40.0")) == (6, 4)


def test_lines_have_the_measured_values():
    given = report()
    given["rows"][0]["ways"]["espgw/burst"]["cycles"] = 77.5
    script = charts.cycles_chart(given, "encap")
    assert "64 77.5\n256 130\n" in script
    assert "$way0 << EOD\n64 130\n" in charts.cycles_chart(given, "decap")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"load": {}}'])
def test_other_files_are_told(tmp_path, capsys, text):
    file = tmp_path / "other.json"
    file.write_text(text)
    assert charts.main(["--from", str(file), "--output", str(tmp_path)]) == 1
    assert f"--from {file}: not what espgw-bench --json prints" in capsys.readouterr().err
    assert list(tmp_path.glob("*.svg")) == []


def test_an_empty_directory_is_told(tmp_path, capsys):
    assert charts.main(["--from", str(tmp_path)]) == 1
    assert "no workers-*-sas-*.json in it" in capsys.readouterr().err


def producer(file):
    return next(line for line in file.read_text().splitlines() if "GNUPLOT" in line)


@needs_gnuplot
def test_the_charts_of_the_documentation_are_of_the_figures_beside_them(tmp_path):
    images = ROOT / "docs/images"
    assert charts.main(["--from", str(images), "--output", str(tmp_path)]) == 0
    text = (ROOT / "docs/performance.md").read_text()
    for file in tmp_path.glob("*.svg"):
        kept = images / file.name
        assert f"(images/{file.name})" in text
        if producer(kept) != producer(file):
            pytest.skip("another gnuplot places things a little differently")
        assert kept.read_text() == file.read_text(), \
            "draw it again: scripts/bench charts --from docs/images"
