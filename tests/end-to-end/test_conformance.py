# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""docs/conformance.md names tests that exist, and each rule has one or says why not."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
TABLES = (ROOT / "docs/conformance.md").read_text()
TEST = re.compile(r"`([a-z0-9_]+\.(?:c|py))::([a-z0-9_]+)`")


def rows():
    for line in TABLES.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and cells[0] not in ("Section", "---"):
            yield cells


def test_each_named_test_exists():
    missing = []
    for file, name in sorted(set(TEST.findall(TABLES))):
        path = ROOT / ("tests/unit" if file.endswith(".c") else "tests/end-to-end") / file
        text = path.read_text() if path.exists() else ""
        # In C it must be run as well: it is named twice.
        found = len(re.findall(rf"\b{name}\b", text)) >= 2 if file.endswith(".c") else \
            re.search(rf"^def {name}\(", text, re.MULTILINE)
        if not found:
            missing.append(f"{file}::{name}")
    assert not missing


def test_each_rule_has_a_test_or_a_reason():
    assert len(list(rows())) > 60
    bare = [cells for cells in rows() if not (
        len(cells) == 4 and (TEST.search(cells[3]) or cells[3] == "(ICMP)" or
                             (cells[3] == "-" and "not done" in cells[2])) or
        "not done" in cells[2])]
    assert [cells[1] for cells in bare] == []
