"""The errors of a study's methods on corrupted images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import bench
from helpers.runs import store

from bench.reports.leaderboard.ranking import leaderboard
from bench.running.study.file import read_study_file
from bench.store.runs import read_run

FILE = """
name = "corrupted"
datasets = ["digits"]
backbones = ["nearest-mean", "majority"]
corrupt = ["none", "contrast:1", "contrast:5", "gaussian-noise:5"]
limit = 30
pilot = 0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corrupted")
    (folder / "corrupted.toml").write_text(FILE)
    assert bench("study", folder / "corrupted.toml", "--results", folder / "r").code == 0
    return folder


def shown(folder: Path, *options: object) -> str:
    file = folder / "corrupted.toml"
    return bench("study", file, "--show", "--results", folder / "r", *options).out


@pytest.mark.long
def test_errors_are_those_of_the_records(folder: Path) -> None:
    report = json.loads(shown(folder, "--json"))
    wrong = {}
    for row in report["rows"]:
        decided = read_run(Path(row["path"])).decided()
        mistakes = (decided.predictions != decided.labels).mean()
        wrong[row["axes"]["backbone"], row["axes"]["corrupt"]] = mistakes
    assert len(wrong) == 8
    for errors in report["corruption"]:
        of = {name: wrong[errors["method"], name] for _, name in wrong}
        contrast = (of["contrast:1"] + of["contrast:5"]) / 2
        assert errors["clean"] == pytest.approx(of["none"])
        assert errors["corruptions"] == pytest.approx(
            {"contrast": contrast, "gaussian-noise": of["gaussian-noise:5"]}
        )
        assert errors["severities"] == pytest.approx(
            {"1": of["contrast:1"], "5": np.mean([of["contrast:5"], of["gaussian-noise:5"]])}
        )
        assert errors["error"] == pytest.approx((contrast + of["gaussian-noise:5"]) / 2)
        assert errors["interval"][0] <= errors["error"] <= errors["interval"][1]
    by_method = {errors["method"]: errors for errors in report["corruption"]}
    assert by_method["majority"]["error"] == pytest.approx(by_method["majority"]["clean"])
    assert by_method["nearest-mean"]["error"] > by_method["nearest-mean"]["clean"]


@pytest.mark.long
def test_what_corruption_costs_is_paired_and_compared(folder: Path) -> None:
    report = json.loads(shown(folder, "--json"))
    errors = {one["method"]: one for one in report["corruption"]}
    change = {one["method"]: one for one in report["changes"] if one["less"] is None}
    for method, one in change.items():
        assert (one["usual"], one["shifted"]) == ("digits/test", "corrupted")
        lost = errors[method]["error"] - errors[method]["clean"]
        assert one["change"]["estimate"] == pytest.approx(-lost)
        low, high = one["change"]["interval"]
        assert low <= one["change"]["estimate"] <= high
    ends = {name: one["change"]["interval"][1] for name, one in change.items()}
    assert ends["nearest-mean"] < 0 <= ends["majority"]
    [pair] = [one for one in report["changes"] if one["less"] is not None]
    method, less = (change[pair[name]]["change"]["estimate"] for name in ("method", "less"))
    assert pair["change"]["estimate"] == pytest.approx(method - less)
    assert pair["change"]["interval"][0] <= method - less <= pair["change"]["interval"][1]


def test_clean_images_alone_are_ranked_and_compared(folder: Path) -> None:
    report = json.loads(shown(folder, "--json"))
    assert [method["method"] for method in report["methods"]] == ["nearest-mean", "majority"]
    assert len(report["differences"][0]["differences"]) == 1


def test_a_corrupted_run_is_ranked_with_none(tmp_path: Path) -> None:
    runs: tuple[dict[str, Any], ...] = ({"seed": 0}, {"seed": 1}, {"corrupt": "contrast:1"})
    for more in runs:
        store(tmp_path, [0, 1, 2], [0, 1, 1], **more)
    ranks = {row.settings.get("corrupt"): (row.kind, row.rank) for row in leaderboard(tmp_path)}
    assert ranks == {None: ("measured", (1, 2)), "contrast:1": ("corrupted", None)}


def test_a_collection_is_all_of_them_in_a_study_and_none_in_a_run(tmp_path: Path) -> None:
    file = tmp_path / "all.toml"
    file.write_text(
        'datasets = ["digits"]\nbackbones = ["majority"]\ncorrupt = ["none", "@corruptions"]\n'
        "limit = 1\n"
    )
    cells = read_study_file(file, {"results": str(tmp_path)}).cells
    assert len({cell.config.corrupt for cell in cells}) == len(cells) == 76
    refused = bench("run", "digits", "--corrupt", "@corruptions")
    assert refused.refuses("study")
