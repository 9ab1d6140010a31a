"""The studies' scripts: what is recorded fits a night; tables and figures are from data alone."""

import json
from pathlib import Path
from typing import Any

import night
import pytest
import record
from analyse import analyse
from analyse import page as written
from helpers.places import ROOT
from helpers.recorded import N_CLASSES, N_DRAWS, N_IMAGES
from helpers.recorded import record as store_recording
from measuring import read_results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    store_recording(folder)
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


def test_the_published_page_is_what_the_analysis_writes() -> None:
    folder = ROOT / "studies" / "how-many-draws" / "rehearsal"
    found = json.loads((folder / "results.json").read_text())
    text = (folder / "README.md").read_text()
    assert written(found["recordings"], found["beside"], rehearsal=True) == text


HOURS = 8.0


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[record.Step]:
    empty = tmp_path_factory.mktemp("none")
    return [record.plan(file, empty)[0] for file in record.step_files("night")]


def test_the_night_fits_into_eight_hours_of_an_h100(steps: list[record.Step]) -> None:
    assert sum(step.hours_on("H100") for step in steps) + night.CHECK_SECONDS / 3600 <= HOURS
    assert [step.name[0] for step in steps] == ["1", "2", "3", "4", "5"]
