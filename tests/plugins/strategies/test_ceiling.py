"""What ended a race, and what it is told to replace."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.places import ROOT
from helpers.refusals import refused
from helpers.tables import Errors, concluded, make, make_problem, make_table, run

from bench.discovery.loading import load_plugins
from bench.running.parts.decision import make_decider


def noise_table(prompts: int, draws: int, seed: int) -> Errors:
    """Return errors that do not tell prompts apart, float32 [P, N]."""
    own = 0.02 * np.random.default_rng(seed).standard_normal((prompts, draws))
    return (0.5 + own).astype(np.float32)


def test_what_ended_an_image() -> None:
    easy, noise = make_table(10, 100, gap=0.05), noise_table(10, 40, 3)
    assert concluded(run(make("race", 100), easy)).decided_by == "bound"
    assert concluded(run(make("race", 40, delta=1e-12), noise)).decided_by == "exhausted"
    cut = concluded(run(make("race", 40, delta=1e-12, ceiling="published"), noise))
    assert cut.decided_by == "ceiling"
    assert concluded(run(make("full", 40), noise)).decided_by is None


@pytest.mark.parametrize(
    ("params", "settings"),
    [
        ({}, {"delta": 0.001}),
        ({"delta": 1e-4}, {"delta": 1e-4}),
        ({"bound": "betting"}, {"delta": 0.001, "bound": "t"}),
        ({"ceiling": "published"}, None),
    ],
)
def test_a_race_without_a_ceiling_says_which_one_keeps_it_to_the_schedule(
    params: dict[str, Any], settings: dict[str, Any] | None
) -> None:
    errors = noise_table(21, 40, 0)
    problem, schedule = make_problem(errors), run(make("adaptive", 40), errors).evaluations
    replaced = make("race", 40, **params).replaces(problem)
    if settings is None:
        assert replaced is None
        return
    assert replaced and replaced.settings == {"ceiling": "published", "first": 2, **settings}
    limited = make("race", 40, **{**params, **replaced.settings})
    assert replaced.equivalents == schedule == limited.at_most(problem)
    assert limited.replaces(problem) is None
    screen = make("screen-race", 40).replaces(problem)
    assert screen and (screen.equivalents, screen.settings) == (schedule, {})


def test_growth_is_recorded_and_later_parameters_at_their_default_are_not() -> None:
    for name in ("race", "screen-race"):
        spec = load_plugins().strategies.get(name)
        recorded = make_decider(spec, {}).parameters
        assert recorded["growth"] == 8 and "ceiling" not in recorded
        with refused("growth", "got 16"):
            make_decider(spec, {"growth": "16"})


RUNS = sorted((ROOT / "results" / "published").glob("*race*/manifest.json"))


@pytest.mark.parametrize("manifest", RUNS, ids=lambda path: path.parent.name)
def test_published_races_can_be_made_again_with_the_parameters_in_their_identity(
    manifest: Path,
) -> None:
    recorded = json.loads(manifest.read_text("utf-8"))["strategy"]
    made = make_decider(
        load_plugins().strategies.get(recorded["name"]), recorded["params"]
    ).parameters
    assert json.loads(json.dumps(made)) == recorded["params"]
