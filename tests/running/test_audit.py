"""`--audit N`: images of a run that are swept in full afterwards, beside records that stay."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench

from bench.reports.sentences import risk_warning
from bench.stats.calibration.agreement import Audit
from bench.store.folder import read_records
from bench.store.formats.identity import CalibratedOn

QUICK = ("--set", "draws=6", "--limit", 10, "--batch-size", 20)
RUN: tuple[Any, ...] = ("run", "digits", *QUICK, "--set", "first=2", "--set", "delta=0.3")
KEPT = ("samples.jsonl", "manifest.json", "summary.json")


def lines(folder: Path) -> dict[str, Any]:
    """Return the swept images without their times, and regrets to float32's precision."""
    rows = map(json.loads, (folder / "audit.jsonl").read_text().splitlines())
    return {
        row["sample_id"]: (row["prediction"], round(row["regret"], 5), row["evaluations"])
        for row in rows
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    done = bench(*RUN, "--results", results, "--audit", 5, "--json")
    assert done.code == 0, done.err
    return Path(done.json["results_dir"])


def test_it_is_the_full_sweep_of_a_random_part_and_changes_no_record(
    folder: Path, tmp_path: Path
) -> None:
    full = ("run", "digits", *QUICK, "--strategy", "full", "--results", tmp_path, "--json")
    theirs, ours = map(read_records, (Path(bench(*full).json["results_dir"]), folder))
    swept = lines(folder)
    assert len(swept) == 5
    for name, (prediction, regret, evaluations) in swept.items():
        assert (prediction, evaluations) == (theirs[name]["prediction"], 60)
        assert (regret == 0) == (ours[name]["prediction"] == prediction)
    assert json.loads((folder / "summary.json").read_text())["cost"]["evaluations_per_image"] < 60


def test_more_are_added_and_fewer_change_nothing(folder: Path) -> None:
    before = {name: (folder / name).read_bytes() for name in KEPT}
    few = bench(*RUN, "--results", folder.parent, "--audit", 3, "--json").json["audit"]
    assert few["images"] == 5 and few["evaluations"] == 300
    first = lines(folder)
    added = bench("results", "audit", folder, 7, "--json")
    assert added.code == 0, added.err
    audit = Audit.model_validate(added.json["audit"])
    assert (audit.of, audit.images, audit.evaluations) == (10, 7, 420)
    assert list(lines(folder))[:5] == list(first)
    shown = bench("show", folder, "--json").json
    assert shown["audit"] == added.json["audit"]
    text = " ".join(bench("show", folder).out.split())
    assert "Of 7 images that were chosen at random and swept" in text
    assert "7 images swept for the audit: 420 more evaluation equivalents" in text
    assert {name: (folder / name).read_bytes() for name in KEPT} == before


def test_what_a_kill_left_is_finished_by_the_same_command(folder: Path) -> None:
    """Half a line is what a kill in the middle of a write leaves."""
    wanted, file = lines(folder), folder / "audit.jsonl"
    whole = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(whole[:2]) + whole[2][:40])
    done = bench(*RUN, "--results", folder.parent, "--audit", len(whole), "--json")
    assert done.json["resumed"] == "complete" and done.json["audit"]["images"] == len(whole)
    assert lines(folder) == wanted


def test_shards_audit_their_part_of_the_same_images(folder: Path, tmp_path: Path) -> None:
    """Merged, they are the audit of one process: no image is swept for nothing."""
    run_id, swept = folder.name, lines(folder)
    for index in (1, 2):
        shard = ("--shard", f"{index}/2", "--audit", len(swept), "--json")
        part = bench(*RUN, "--results", tmp_path, *shard)
        assert part.code == 0, part.err
    merged = bench("results", "merge", run_id, "--results", tmp_path, "--json")
    assert merged.code == 0, merged.err
    assert lines(tmp_path / run_id) == swept
    shown = bench("show", run_id, "--results", tmp_path, "--json").json["audit"]
    assert shown["images"] == len(swept)
    assert bench("results", "audit", tmp_path / run_id, len(swept) + 1).code == 0
    assert bench("results", "merge", run_id, "--results", tmp_path, "--json").code == 0
    assert len(lines(tmp_path / run_id)) == len(swept) + 1


def test_a_run_that_swept_all_has_nothing_to_audit(tmp_path: Path) -> None:
    few = ("run", "digits", "--strategy", "full", "--set", "draws=2", "--limit", 2)
    done = bench(*few, "--results", tmp_path, "--audit", 2, "--json")
    assert done.code == 0 and "audit" not in done.json
    assert "all decisions are those of the full sweep" in " ".join(done.err.split())


def test_a_replay_is_swept_with_the_model(tmp_path: Path) -> None:
    few = ("run", "digits", "--set", "draws=3", "--limit", 4, "--results", tmp_path, "--json")
    source = bench(*few, "--strategy", "full", "--save-errors").json["results_dir"]
    cheap = ("--strategy", "uniform", "--set", "samples=1", "--results", tmp_path)
    replay = bench("replay", source, *cheap, "--json")
    audit = bench("results", "audit", replay.json["results_dir"], 4, "--json").json["audit"]
    assert audit["images"] == 4 and audit["agreement_ci95"] == [audit["same"] / 4] * 2


def test_another_model_or_other_data_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / folder.name
    copy.mkdir()
    for name in KEPT:
        (copy / name).write_bytes((folder / name).read_bytes())
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["identity"]["dataset"]["fingerprint"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(manifest))
    done = bench("results", "audit", copy, 5)
    assert done.refuses("dataset.fingerprint")
    assert not (copy / "audit.jsonl").exists()


def test_the_plan_states_its_cost_apart() -> None:
    plain, whole, part = (
        bench(*RUN, *more, "--dry-run", "--json").json
        for more in ((), ("--audit", 4), ("--audit", 4, "--shard", "1/2"))
    )
    assert [plan["audit_evaluations"] for plan in (plain, whole, part)] == [None, 240, 120]
    assert whole["evaluations"] == plain["evaluations"]


def test_a_classifier_has_no_sweep() -> None:
    done = bench("run", "digits", "--backbone", "nearest-mean", "--audit", 5)
    assert done.refuses("--audit", "denoisers")


@pytest.mark.parametrize(
    ("risk", "ends", "words"),
    [
        (0.1, (0.9, 1.0), None),
        (0.05, (0.9, 1.0), "does not show the stated risk of 5 % yet: up to 10 %"),
        (0.05, (0.6, 0.9), "contradicts the stated risk of 5 %: 10 to 40 %"),
        (0.05, (0.9496, 1.0), "does not show the stated risk of 5 % yet: up to 5.04 %"),
        (0.05, (0.6, 0.9496), "contradicts the stated risk of 5 %: 5.04 to 40 %"),
    ],
)
def test_a_stated_risk_is_held_against_it(
    risk: float, ends: tuple[float, float], words: str | None
) -> None:
    audit = Audit(
        of=360,
        exact=0,
        images=30,
        same=30,
        agreement_ci95=ends,
        evaluations=1,
        evaluation_equivalents=1.0,
        seconds=1.0,
    )
    stated = CalibratedOn(
        run_id="r", identity="i", split="s", images=9, disagreements=0, risk=risk, level=0.95
    )
    warning = risk_warning(audit, stated)
    assert (warning is None) if words is None else (words in str(warning))
    assert risk_warning(audit, None) is None and risk_warning(None, stated) is None


def test_a_run_without_draws_has_no_sweep(tmp_path: Path) -> None:
    run = bench(
        "run", "digits", "--backbone", "random", "--limit", 4, "--results", tmp_path, "--json"
    )
    done = bench("results", "audit", run.json["results_dir"], 2)
    assert done.refuses("no full sweep")
