"""Results are added whole and checked, or not at all; nothing else is touched."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.places import ROOT
from helpers.refusals import refused
from helpers.reporting import model_card
from helpers.runs import REPORTED, store

from bench.reports.leaderboard.adding import add_reported, publish_run
from bench.reports.leaderboard.published import Totals, find_problems, validate
from bench.stats.metrics.summarise import summarize
from bench.store.folder import read_manifest, requested_records
from bench.store.formats.decisions import as_decisions
from bench.store.formats.fields import to_json

LABELS = [i % 3 for i in range(30)]
PUBLISHED = ROOT / "results" / "published"
DIGITS = PUBLISHED / "digits-tiny-digits-race-6a72ea9d"


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    ("changes", "words", "accepted"),
    [
        ({}, "'d'", {"private": True}),
        ({"n_total": 60}, "30 of the split's 60", {"private": True, "subset": True}),
        ({"dataset": "digits"}, "n_total is 30", {"private": True}),
    ],
)
def test_what_others_cannot_make_again_needs_a_word(
    tmp_path: Path, changes: dict[str, Any], words: str, accepted: dict[str, bool]
) -> None:
    run = store(tmp_path / "results", LABELS, LABELS, **changes)
    with refused(words):
        publish_run(run, tmp_path / "published")
    assert not (tmp_path / "published").exists()
    copy = publish_run(run, tmp_path / "published", **accepted)
    assert read_manifest(copy).private_data and validate(tmp_path / "published") == []


@pytest.mark.parametrize("run_id", ["../../x", "{out}/x", "", ".", "..", "a/b", "x\0y"])
def test_a_run_s_id_leads_nowhere_else(tmp_path: Path, run_id: str) -> None:
    run = store(tmp_path / "results", LABELS, LABELS)
    for name in ("manifest.json", "summary.json"):
        run_id = run_id.replace("{out}", str(tmp_path))
        content = {**json.loads((run / name).read_text()), "run_id": run_id}
        (run / name).write_text(json.dumps(content))
    before = everything(tmp_path)
    done = bench("results", "add", run, "--into", tmp_path / "deep/published", "--private")
    assert done.refuses(run)
    assert everything(tmp_path) == before


def test_a_published_run_is_not_overwritten(tmp_path: Path) -> None:
    published = tmp_path / "published"
    run = store(tmp_path / "mine", LABELS, LABELS)
    publish_run(run, published, private=True)
    before = everything(published)
    publish_run(run, published, private=True)  # the same again
    other = store(tmp_path / "theirs", LABELS, LABELS[1:] + LABELS[:1])
    with refused(other.name):
        publish_run(other, published, private=True)
    assert everything(published) == before
    publish_run(other, published, private=True, replace=True)
    assert everything(published) != before and validate(published) == []


def test_a_link_in_the_place_of_a_run_stays(tmp_path: Path) -> None:
    run, elsewhere = store(tmp_path / "results", LABELS, LABELS), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / run.name).symlink_to(elsewhere)
    with refused(run.name):
        publish_run(run, tmp_path / "published", private=True, replace=True)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("kind", ["a file", "a pipe"])
def test_what_a_user_put_into_a_published_run_is_not_deleted(tmp_path: Path, kind: str) -> None:
    run, published = store(tmp_path / "results", LABELS, LABELS), tmp_path / "published"
    copy = publish_run(run, published, private=True)
    (copy / "notes").write_text("mine") if kind == "a file" else os.mkfifo(copy / "notes")
    (copy / "summary.json").write_text("{}")
    with refused("notes"):
        publish_run(run, published, private=True, replace=True)
    assert os.path.lexists(copy / "notes") and [*published.iterdir()] == [copy]


FORGED: dict[str, tuple[dict[str, Any], str]] = {
    "a subset as the whole": ({"samples": 20}, "n_total is 20"),
    "no training data": ({"trained_on": None}, "trained_on is None"),
    "reversed classes": ({"classes": "reversed"}, "class 0 is 'nine'"),
    "reversed prompts": ({"prompts": "reversed"}, "prompts' hash"),
}


def forged(folder: Path, name: str) -> Path:
    """Return a copy of a published run whose documents and records agree, and are not true."""
    run = folder / DIGITS.name
    shutil.copytree(DIGITS, run)
    manifest = json.loads((run / "manifest.json").read_text())
    change = FORGED[name][0]
    if count := change.get("samples"):
        manifest["samples"] = manifest["samples"][:count]
        manifest["dataset"]["n_total"] = count
    if "trained_on" in change:
        manifest["backbone"]["trained_on"] = None
    for key in ("classes", "prompts"):
        if key in change:
            manifest[key] = manifest[key][::-1]
    (run / "manifest.json").write_text(json.dumps(manifest))
    known = read_manifest(run)
    summary = summarize(known, as_decisions(requested_records(run, known)), 1.0, None)
    (run / "summary.json").write_text(to_json(summary.plain()))
    return run


@pytest.mark.parametrize("name", FORGED)
def test_a_figure_made_by_hand_is_refused(tmp_path: Path, name: str) -> None:
    run, words = forged(tmp_path, name), FORGED[name][1]
    published = tmp_path / "published"
    shutil.copytree(DIGITS, published / DIGITS.name)
    before = everything(published)
    for replace in (False, True):
        with refused(words if replace else ""):
            publish_run(run, published, replace=replace)
    assert everything(published) == before
    shutil.rmtree(published / DIGITS.name)
    shutil.copytree(run, published / DIGITS.name)
    done = bench("results", "validate", "--into", published)
    assert done.refuses(words, code=1)


def test_runs_on_the_same_images_say_the_same_total(tmp_path: Path) -> None:
    """Images are the same by fingerprint, also where another total than the registered is known."""
    for run in sorted(PUBLISHED.glob("ucmerced-*-full-*"))[:3]:
        shutil.copytree(run, tmp_path / run.name)
    assert validate(tmp_path) == []  # of a smaller copy of UC Merced, all of them
    for name in ("manifest.json", "summary.json"):
        content = json.loads((tmp_path / run.name / name).read_text())
        content["dataset"]["n_total"] = 211
        (tmp_path / run.name / name).write_text(json.dumps(content))
    found = " ".join(validate(tmp_path))
    assert "n_total is 211, but other runs on the same images have 210" in found


def test_what_is_taken_on_trust_is_said(tmp_path: Path) -> None:
    done = bench("results", "add", DIGITS, "--into", tmp_path)
    assert done.code == 0 and "on trust: the records of" in done.out, done.err
    assert not read_manifest(tmp_path / DIGITS.name).private_data
    assert "on trust: the records of" in bench("results", "validate", "--into", tmp_path).out


@pytest.mark.parametrize(
    "change",
    [
        {"margin_stderr": 2**63},
        {"margin": 2**53 + 1},
        {"score": 10**400},
        {"evaluations": 2**62},
        {"equivalents": 2**53 + 1},
        {"seconds": 1e308},
        {"top": [[0, 2**53 + 1, 2**62], [1, 3, 4]]},
    ],
)
def test_numbers_that_no_column_holds_are_refused_or_read(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    run = store(tmp_path / "results", LABELS, LABELS)
    lines = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    lines[3] |= change
    (run / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = bench("results", "add", run, "--into", tmp_path / "published", "--private")
    assert done.code in (0, 2) and "Unexpected" not in done.err, done.err
    for command in (("show", run), ("leaderboard", "--results", run.parent)):
        done = bench(*command)
        assert done.code in (0, 2) and "Unexpected" not in done.err, done.err


@pytest.mark.parametrize("kind", ["fifo", "folder", "link"])
def test_what_does_not_belong_to_a_published_run_is_found(tmp_path: Path, kind: str) -> None:
    copy = publish_run(store(tmp_path / "results", LABELS, LABELS), tmp_path / "p", private=True)
    if kind == "fifo":
        os.mkfifo(copy / "odd")
    elif kind == "folder":
        (copy / "odd").mkdir()
    else:
        (copy / "odd").symlink_to(tmp_path / "elsewhere")
    assert any(
        "odd does not belong there" in problem
        for problem in find_problems(copy, Totals(copy.parent))
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"accuracy": 7}, "0.accuracy"),
        ({"acuracy": 0.5}, "acuracy"),
        ({"accuracy": float("nan")}, ""),
        ({"accuracy": True}, "accuracy"),
        ({"accuracy_ci95": [5, -3]}, "accuracy_ci95"),
        ({"accuracy_ci95": [0.9, 0.1]}, "accuracy_ci95"),
        ({"source": "a paper, table 1\n<!-- end of leaderboard -->"}, "source"),
        ({"backbone": "\x1b[31mred"}, "backbone"),
        ({"evaluations_per_image": 1e999}, ""),
        ({"n_samples": 0}, "n_samples"),
        ({"version": "1"}, "version"),
        ({"source": ""}, "source"),
        ({"source": "x"}, "source"),
        ({"source": " " * 12}, "source"),
        ({"n_samples": 5, "n_total": 3}, "n_samples is 5"),
        ({"accuracy_ci95": [0.1, 0.2]}, "accuracy_ci95"),
    ],
)
def test_a_reported_result_out_of_range_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({**REPORTED, **change}))
    with refused("mine.json", words):
        add_reported(file, tmp_path / "published")
    assert not (tmp_path / "published").exists()


def test_a_model_card_says_what_the_backbone_is(tmp_path: Path) -> None:
    """A run without a draw plan is a classifier's."""
    trained = store(tmp_path, LABELS, LABELS, trained_on="d/train", scoring={"loss": "l2"})
    classifier = store(tmp_path, LABELS, LABELS, seed=1)
    card, other = (model_card(run, tmp_path / "card") for run in (trained, classifier))
    assert "trained on d/train" in card and "Diffusion classifier" in card
    assert "iffusion" not in other and "zero-shot" in other
