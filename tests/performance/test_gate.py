# SPDX-License-Identifier: BSD-3-Clause
# Copyright (c) 2026 the espgw authors
"""The gate's judgement, on made-up measurements; scripts/test runs the gate itself after these."""

import json
import pathlib
import random
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from benchmarks import gate  # noqa: E402

ROWS = [(path, size) for path in gate.PATHS for size in gate.SIZES]
ENCAP_64 = ("encap", "64", "espgw/burst")


def report(ratio=2.0, worse=None, machine_speed=1.0):
    """What espgw-bench prints, as far as the gate reads it. `worse`: row to factor."""
    def row(path, size):
        raw = 60 * machine_speed
        ours = raw * ratio * (worse or {}).get((path, size), 1)
        return {"path": path, "size": size, "burst": 32, "ways": {
            "espgw/burst": {"cycles": ours}, "raw/burst": {"cycles": raw / 2},
            "raw/ipsec-mb": {"cycles": raw}}}
    return {"machine": {"cpu": "A", "ipsec_mb": "1.3.0", "ipsec_mb_architecture": "AVX2"},
            "rows": [row(*row_) for row_ in ROWS]}


def series(noise, turns=8, seed=1, **options):
    """Turns that vary by `noise`, and a machine whose speed drifts to half."""
    numbers = random.Random(seed)
    return [gate.ratios_of(report(ratio=2 * (1 + numbers.uniform(-noise, noise)),
                                  machine_speed=1 + turn / turns, **options))
            for turn in range(turns)]


def verdicts(before, after, **options):
    return {change.row: change.verdict for change in gate.compare(before, after, **options)}


def conclusion(before, after):
    return gate.conclude([("a commit", gate.compare(before, after))])


@pytest.mark.parametrize("factor, verdict", [
    (1.0, gate.SAME), (1.09, gate.SAME), (1.11, gate.WORSE), (1.5, gate.WORSE),
    (0.93, gate.SAME), (0.8, gate.BETTER)])
def test_ten_percent_is_the_limit(factor, verdict):
    before = series(0.005, seed=1)
    after = series(0.005, seed=2, worse={("encap", "64"): factor})
    found = verdicts(before, after)
    assert len(found) == len(ROWS)
    assert found.pop(ENCAP_64) == verdict
    assert set(found.values()) == {gate.SAME}


def test_one_worse_path_fails_the_gate_and_is_named():
    text, status = conclusion(series(0.005), series(0.005, worse={("decap", "imix"): 1.11}))
    assert status == 1
    assert text.startswith("FAILED: worse: decap imix espgw/burst. ")


def test_noise_is_neither_worse_nor_fine():
    before, after = series(0.2, seed=1), series(0.2, seed=2, worse={("encap", "64"): 1.1})
    assert verdicts(before, after)[ENCAP_64] == gate.NOISY
    text, status = conclusion(before, after)
    assert status == 3
    assert text.startswith("too noisy to judge:") and "encap 64" in text


def test_noise_does_not_hide_what_is_worse_beyond_it():
    before, after = series(0.05, seed=1), series(0.05, seed=2, worse={("encap", "64"): 1.5})
    assert verdicts(before, after)[ENCAP_64] == gate.WORSE


def test_one_turn_that_was_disturbed_does_not_count():
    after = series(0.005)
    after[3][ENCAP_64] *= 3
    assert verdicts(series(0.005), after)[ENCAP_64] == gate.SAME


def test_a_row_in_doubt_is_settled_by_more_turns():
    before, after = series(0.2, seed=1), series(0.2, seed=2)
    unsettled = gate.compare(before, after)
    doubtful = {change.row[:2] for change in unsettled if gate.in_doubt(change)}
    assert doubtful
    clear = [report() for _ in range(40)]
    settled = gate.settle(unsettled, doubtful, before, after, clear, clear)
    assert [change.row for change in settled] == [change.row for change in unsettled]
    assert {change.verdict for change in settled} == {gate.SAME}


def test_rows_that_only_one_build_has_are_left_out():
    before = [{ENCAP_64: 2.0}] * 8
    assert list(verdicts(before, series(0))) == [ENCAP_64]


@pytest.mark.parametrize("count", range(1, 40))
def test_the_interval_holds_the_median_in_nine_of_ten_cases(count):
    numbers = random.Random(count)
    held = 0
    for _ in range(500):
        low, high = gate.interval([numbers.random() for _ in range(count)])
        held += low <= 0.5 <= high
    assert held > 430 if count >= 5 else low <= high


# ---- Recorded ratios ----

MACHINE = {"cpu": "A", "model": "family 6, model 1", "cipher": "ipsec-mb 1.3.0, AVX2"}


def test_recorded_ratios_come_back_for_such_a_machine_only(tmp_path):
    file = tmp_path / "performance" / "ratios.json"
    other = {**MACHINE, "cpu": "B"}
    gate.record(file, MACHINE, series(0), None)
    gate.record(file, other, series(0, worse={("encap", "64"): 2}), "slower for a reason")
    gate.record(file, MACHINE, series(0, worse={("encap", "64"): 1.2}), None)
    recorded = gate.read_recorded(file)
    assert recorded["accepted"] is None
    assert gate.recorded_for(recorded, MACHINE)[ENCAP_64] == pytest.approx(2.4)
    assert gate.recorded_for(recorded, other)[ENCAP_64] == pytest.approx(4)
    assert gate.recorded_for(recorded, {**MACHINE, "cpu": "C"}) is None


@pytest.mark.parametrize("factor, verdict", [(1.2, gate.SAME), (1.3, gate.WORSE)])
def test_recorded_ratios_have_a_wider_limit(factor, verdict):
    after = series(0.005, worse={("encap", "64"): factor})
    changes = gate.compare_recorded(series(0)[0], after)
    assert {change.row: change.verdict for change in changes}[ENCAP_64] == verdict


def test_what_is_recorded_in_the_repository_is_of_the_rows_that_the_gate_measures():
    for entry in gate.read_recorded(ROOT / gate.RECORDED)["machines"]:
        rows = gate.recorded_for({"machines": [entry]}, {})
        assert {row[:2] for row in rows} == set(ROWS)
        assert all(0.3 < ratio < 20 for ratio in rows.values())


# ---- Which commits ----

class Repository(gate.History):
    """A history whose packet path is one line in lib/esp."""

    def __init__(self, root):
        super().__init__(root)
        self.git("init", "-q", ".")
        self.git("config", "user.name", "test")
        self.git("config", "user.email", "test@test.invalid")

    def write(self, name, text):
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def land(self, **files):
        """A commit that changes the path, the record or the docs; its identifier."""
        names = {"path": "lib/esp", "record": gate.RECORDED, "docs": "README.md"}
        for kind, text in files.items():
            self.write(names[kind], text)
        self.git("add", ".")
        self.git("commit", "-q", "-m", " ".join(files))
        return self.commit("HEAD")

    def base_commits(self):
        return [base.commit for base in self.bases()]


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


def test_nothing_before_the_first_commit(repository):
    repository.land(path="1")
    assert repository.base_commits() == []


def test_the_last_change_of_the_path_is_compared_even_after_others(repository):
    first = repository.land(path="1")
    repository.land(path="2")
    repository.land(docs="1")
    assert repository.base_commits() == [first]


def test_many_commits_are_compared_as_a_whole_with_the_last_record(repository):
    recorded = repository.land(path="1", record="{}")
    repository.land(path="2")
    third = repository.land(path="3")
    repository.land(path="4")
    assert repository.base_commits() == [third, recorded]


def test_a_record_of_this_very_path_is_passed_over(repository):
    first = repository.land(path="1", record="{}")
    second = repository.land(path="2")
    repository.land(path="3")
    repository.land(record="{ }")
    assert repository.base_commits() == [second, first]


def test_changes_that_are_not_committed_are_compared_with_head(repository):
    head = repository.land(path="1", record="{}")
    repository.write("lib/new", "2")
    assert repository.base_commits() == [head]


def test_a_shallow_clone_has_nothing_to_compare_with(repository, tmp_path_factory):
    repository.land(path="1")
    repository.land(path="2")
    clone = tmp_path_factory.mktemp("clone")
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{repository.root}", clone],
                   check=True)
    assert gate.History(clone).bases() == []


def build_bases(repository, monkeypatch, base=None):
    """Those that build, and what is said; "broken" trees do not build."""
    def build_base(history, commit):
        if "broken" in history.git("show", f"{commit}:lib/esp"):
            raise gate.BenchError("ninja failed")
        return commit
    monkeypatch.setattr(gate, "build_base", build_base)
    monkeypatch.setattr(gate, "measure", lambda *_: None)
    said = []
    options = gate.parse(["--base", base] if base else [])
    return [program for _, program in gate.build_bases(repository, options, said.append)], said


def test_a_commit_that_does_not_build_is_told_and_left_out(repository, monkeypatch):
    recorded = repository.land(path="1", record="{}")
    broken = repository.land(path="broken")
    repository.land(path="2")
    built, said = build_bases(repository, monkeypatch)
    assert built == [recorded]
    assert f"note: {broken[:9]} path (before the last change" in "".join(said)
    with pytest.raises(gate.BenchError):
        build_bases(repository, monkeypatch, base=broken)


def test_only_what_is_older_than_the_record_is_accepted(repository):
    reason = json.dumps({"accepted": "checks more", "machines": []})
    old = repository.land(path="1", record="{}")
    new = repository.land(path="2", record=reason)
    changes = gate.compare(series(0), series(0, worse={("encap", "64"): 1.2}))
    said = []
    compared = gate.compare_bases(repository, [gate.Base(old, "old"), gate.Base(new, "new")],
                                  [changes, changes], json.loads(reason), said.append)
    assert [{change.row: change.verdict for change in changes}[ENCAP_64]
            for _, changes in compared] == [gate.ACCEPTED, gate.WORSE]
    assert said == [f"note: slower than {old[:9]} is accepted: checks more"]


# ---- The command ----

def test_json_names_rows_and_verdicts():
    changes = gate.compare(series(0), series(0, worse={("encap", "64"): 1.2}))
    comparisons = [("a commit", changes)]
    document = json.loads(gate.as_json(comparisons, *gate.conclude(comparisons)))
    assert document["status"] == 1
    row = document["comparisons"][0]["rows"][0]
    assert (row["path"], row["size"], row["way"]) == ENCAP_64
    assert row["middle"] == pytest.approx(1.2) and row["verdict"] == gate.WORSE


def test_what_is_accepted_does_not_fail():
    changes = gate.compare(series(0), series(0, worse={("encap", "64"): 1.2}))
    text, status = gate.conclude([("a commit", gate.accept(changes))])
    assert (text, status) == ("no path is worse", 0)


@pytest.mark.parametrize("arguments, message", [
    (["--accept", "x"], "--accept goes with --record"),
    (["--record", "--base", "HEAD"], "leave --base out"),
    (["--seconds", "0"], "--seconds 0.0: it must be from 0.1 to 60")])
def test_wrong_arguments_are_told(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        gate.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
