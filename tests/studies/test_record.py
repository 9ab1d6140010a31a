"""The plan of the night, what stops it, and a recording that is killed and resumes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import night
import pytest
import record
from helpers.refusals import refused

HOURS = 8.0


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[record.Step]:
    empty = tmp_path_factory.mktemp("none")
    return [record.plan(file, empty)[0] for file in record.step_files("night")]


def test_the_night_fits_into_eight_hours_of_an_h100(steps: list[record.Step]) -> None:
    assert sum(step.hours_on("H100") for step in steps) + night.CHECK_SECONDS / 3600 <= HOURS
    assert [step.name[0] for step in steps] == ["1", "2", "3", "4", "5"]


def test_missing_data_ends_the_first_command_before_anything_is_scored(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(
        'datasets = [{name = "ucmerced", data_dir = "nowhere"}]\nbackbones = ["random"]\n'
    )
    with refused("nowhere"):
        record.plan(file, tmp_path / "results")
    with refused("nowhere"):
        record.fetch_all([file])
    assert not (tmp_path / "results").exists()


def write_study(folder: Path, backbone: str = "tiny-digits") -> Path:
    file = folder / "killed.toml"
    file.write_text(
        'pilot = 0\nsave_errors = true\nlimit = 6\ndatasets = ["digits"]\n'
        f'backbones = ["{backbone}"]\nstrategies = ["full"]\n[params]\ndraws = 4\n'
    )
    return file


def good_report() -> dict[str, Any]:
    parts: dict[str, dict[str, object]] = {
        name: {"status": "done", "rows": [{"ok": True}]} for name in night.PARTS
    }
    parts["real cells"]["rows"] = [{"dtype": "bfloat16", "same_decisions": True, "ok": True}]
    parts["engine over bare"]["rows"] = [{"engine_over_bare": 0.97}]
    return {"settings": {"small": False}, "parts": parts}


def failing(report: dict[str, Any]) -> list[str]:
    return [verdict.step for verdict in night.device_verdicts(report) if not verdict.passed]


@pytest.mark.parametrize(
    ("part", "change", "step"),
    [
        ("digits", {"rows": [{"ok": False}]}, "digits"),
        ("families", {"status": "cut off"}, "device"),
        ("engine over bare", {"rows": [{"engine_over_bare": 0.5}]}, "engine"),
        (
            "real cells",
            {"rows": [{"dtype": "bfloat16", "same_decisions": False, "ok": True}]},
            "real cells in bfloat16",
        ),
    ],
)
def test_the_night_stops_where_the_device_is_wrong(
    part: str, change: dict[str, object], step: str, tmp_path: Path
) -> None:
    report = good_report()
    assert failing(report) == []
    report["parts"][part].update(change)
    assert failing(report) == [step]
    log = night.Night(tmp_path)
    with refused(step):
        log.show(list(night.device_verdicts(report)))
    assert any(not row["passed"] for row in json.loads(log.file.read_text()))


def test_the_night_names_what_is_missing_before_it_asks_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "step_files", lambda _: [write_study(tmp_path, "sd15")])
    monkeypatch.setattr(sys, "argv", ["night.py", "--out", str(tmp_path / "out")])
    assert night.main() == 2
    said = capsys.readouterr().err
    assert "stable-diffusion-v1-5" in said and 'weights = "FOLDER"' in said
    assert not (tmp_path / "out" / "gpu.json").exists()
