"""The analysis of small recordings: every table and figure, from data alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from analyse import analyse, main
from analyse import page as written
from helpers.places import ROOT
from helpers.recorded import N_CLASSES, N_DRAWS, N_IMAGES, record
from helpers.runs import store
from measuring import beside, read_results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    record(folder)
    return folder


@pytest.fixture(scope="module")
def page(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    analyse(read_results(results), out, rehearsal=True)
    return out


def measured(page: Path) -> dict[str, Any]:
    (recording,) = json.loads((page / "results.json").read_text())["recordings"]
    return dict(recording)


@pytest.mark.long
def test_the_numbers_of_the_text_are_those_of_the_data(page: Path) -> None:
    text, found = (page / "README.md").read_text(), measured(page)
    assert (found["images"], found["draws"], found["prompts"]) == (N_IMAGES, N_DRAWS, N_CLASSES)
    least = found["least_draws"]["cost"]
    row = next(row for row in found["curve"] if row["draws"] == least)
    assert row["agreement"] >= found["ceiling"]["agreement"] - 0.01
    assert f"{least:.0f} draws per prompt ({row['evaluations']:,} evaluations per image)" in text
    assert f"{100 * found['accuracy']['accuracy']:.1f}" in text
    full = found["strategies"][0]
    assert full["strategy"] == "full"
    assert full["settings"][0]["evaluations"] == N_CLASSES * N_DRAWS // 2


def test_other_runs_stand_beside_it_with_their_error_consistency(tmp_path: Path) -> None:
    run = record(tmp_path)
    records = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    labels = [line["label"] for line in records]
    manifest = json.loads((run / "manifest.json").read_text())
    said = [(label + (number < 6)) % N_CLASSES for number, label in enumerate(labels)]
    store(
        tmp_path, labels, said, sample_ids=manifest["samples"], dataset="toy", backbone="other",
        n_classes=N_CLASSES,
    )  # fmt: skip
    (group,) = beside(read_results(tmp_path))
    assert group["images"] == N_IMAGES
    assert {row["name"]: row["accuracy"] for row in group["rows"]}["other"] == 24 / 30
    assert [(pair["a"], pair["b"]) for pair in group["error_consistency"]] == [("toy", "other")]


def test_a_folder_without_recordings_ends_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store(tmp_path, [0, 1], [0, 1])
    asked = ["analyse.py", "--results", str(tmp_path), "--out", f"{tmp_path}/page"]
    monkeypatch.setattr(sys, "argv", asked)
    assert main() == 2 and "record.py" in capsys.readouterr().err
    assert not (tmp_path / "page").exists()


def test_the_published_page_is_what_the_analysis_writes() -> None:
    folder = ROOT / "studies" / "how-many-draws" / "rehearsal"
    found = json.loads((folder / "results.json").read_text())
    text = (folder / "README.md").read_text()
    assert written(found["recordings"], found["beside"], rehearsal=True) == text
