"""`bench run --risk`: parameters chosen on other images, and what is refused."""

from __future__ import annotations

import json
import shutil
from math import log
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.unsealed import write_unsealed

from bench import load_dataset
from bench.running.prepare import prepare
from bench.running.risk_sweep import settled, sweep_of
from bench.running.settings import make_config

DRAWS = ("--set", "draws=8")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recording of 60 training digits, calibrated."""
    folder = tmp_path_factory.mktemp("results")
    given = ("--split", "train", "--limit", 60, "--strategy", "full", *DRAWS, "--save-errors")
    made = bench("run", "digits", *given, "--results", folder, "--json").json
    assert bench("learn", made["run_id"], "calibration", "--results", folder).code == 0
    return folder


def described(results: Path, **settings: Any) -> Any:
    given = {"dataset": "digits", "params": {"draws": "8"}, "results": str(results)}
    return settled(prepare(make_config({**given, **settings}))).manifest


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"risk": 0.01}, "needs at least 299 without a disagreement"),
        (
            {"risk": 0.05, "params": {"draws": "8", "ceiling": "published"}},
            "ceiling=published differs",
        ),
        ({"risk": 0.05, "params": {"draws": "8", "delta": "0.1"}}, "leave --set delta"),
        ({"risk": 0.05, "params": {"draws": "8", "span": "3"}}, "span=3.0 differs from span=0.0"),
        ({"risk": 0.05, "params": {"draws": "8", "growth": "3"}}, "growth must be 8"),
        ({"risk": 0.05, "strategy": "full"}, "no settings to choose from; strategies that"),
        ({"risk": 0.05, "backbone": "random"}, "--risk is for denoisers and likelihoods"),
        ({"risk": 1.5}, "--risk"),
    ],
)
def test_what_keeps_no_risk_is_refused(settings: dict[str, Any], said: str, results: Path) -> None:
    from bench.errors import UserError

    with pytest.raises(UserError) as refused:
        described(results, **settings)
    assert said in str(refused.value)


def test_an_earlier_calibration_goes_before_a_sweep(results: Path) -> None:
    """Of the same question, and of another split; else images of the run itself are swept."""

    def sweep(**settings: Any) -> Any:
        fixed = {"dataset": "digits", "risk": 0.05, "params": {"draws": "8"}}
        return sweep_of(prepare(make_config({**fixed, "results": str(results), **settings})))

    assert sweep() is None
    for settings in ({"split": "train"}, {"seed": 1}, {"params": {"draws": "9"}}):
        planned = sweep(**settings)
        assert planned.calibration() is None
        assert planned.plan.split == (1437 if "split" in settings else 360)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A file of a test digit."""
    path = tmp_path / "digit.png"
    load_dataset("digits")[0]["image"].save(path)
    return path


def test_a_picture_is_classified_with_the_parameters_of_a_risk(
    results: Path, picture: Path
) -> None:
    asked = ("classify", picture, "--dataset", "digits", *DRAWS, "--results", results)
    chosen = bench(*asked, "--risk", 0.05)
    assert chosen.code == 0, chosen.err


def test_a_picture_has_the_probability_that_other_images_tell(
    results: Path, picture: Path, tmp_path: Path
) -> None:
    """Digits are too easy to fit one, so a fit is written by hand: 3/4, whatever the margin is."""
    given = {"images": 60, "right": 45, "unit": 0.01, "features": ["margin"]}
    fit = {**given, "centre": [0.0], "spread": [1.0], "weights": [0.0], "intercept": log(3)}
    copy = tmp_path / "results"
    shutil.copytree(results, copy)
    for path in copy.glob("*/calibration.json"):
        found = json.loads(path.read_text())
        for setting in (*found["settings"], *found["others"]):
            setting["fit"] = fit
        write_unsealed(path, found)
    asked = ("classify", picture, *DRAWS, "--results", copy)
    shown = bench(*asked, "--dataset", "digits").out
    assert "probability 0.750" in shown and "fitted on 60 other images (digits/train" in shown
    other = bench(*asked, "--dataset", "digits", "--seed", 1, "--json").json[0]
    assert other["probability"] is None  # nothing was calibrated with that noise


def test_a_risk_wants_the_images_of_a_dataset(results: Path, picture: Path) -> None:
    asked = ("classify", picture, "--classes", "one,two", "--risk", 0.05, "--results", results)
    done = bench(*asked)
    assert done.refuses("--classes", "--risk")
