"""`ceiling=published`: a race that is never dearer than the published schedule, nor worse."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.places import ROOT
from helpers.refusals import refused
from helpers.tables import (
    Errors,
    concluded,
    evaluations,
    make,
    make_problem,
    make_table,
    prediction,
    run,
)

from bench.contracts.draw_order import sub_grid
from bench.discovery.loading import load_plugins
from bench.running.parts.decision import make_decider

NEVER = 1e-15  # a level that no evidence on these tables reaches before the draws run out
SHAPES = [(2, 30), (5, 50), (6, 40), (10, 20), (21, 40), (60, 12), (10, 250), (30, 9)]


def near_tied(prompts: int, draws: int, seed: int) -> Errors:
    """Return errors whose levels differ by a tenth of the noise, float32 [P, N]."""
    rng = np.random.default_rng(seed)
    own = 0.02 * rng.standard_normal((prompts, draws)) + 0.002 * rng.standard_normal((prompts, 1))
    return (0.5 + own).astype(np.float32)


def published(draws: int, **params: Any) -> Any:
    return make("race", draws, ceiling="published", **params)


@pytest.mark.parametrize("per_class", [1, 2])
def test_where_no_bound_decides_the_schedule_does(per_class: int) -> None:
    for prompts, draws in SHAPES:
        schedule, race = make("adaptive", draws), published(draws, delta=NEVER)
        for seed in range(4):
            errors = near_tied(prompts, draws, seed)
            ours, theirs = (prediction(each, errors, per_class) for each in (race, schedule))
            assert ours == theirs


def test_where_the_schedule_is_right_it_is_right_unless_a_bound_fails() -> None:
    """Image by image, and not on average: at a low level no bound fails on these tables."""
    gained = 0
    for prompts, draws in [*SHAPES, (80, 200)]:
        schedule, race = make("adaptive", draws), published(draws, delta=1e-4)
        for seed in range(6):
            errors = near_tied(prompts, draws, seed)
            errors[prompts // 2 :] += 1  # dropped at the first look, which saves something
            truth = errors.astype(np.float64).mean(axis=1).argmin()
            ours, theirs = (prediction(each, errors) == truth for each in (race, schedule))
            assert ours or not theirs
            gained += ours and not theirs
    assert gained > 0


def test_it_never_costs_more_than_the_schedule() -> None:
    for prompts, draws in SHAPES:
        races = [published(draws, delta=delta) for delta in (NEVER, 1e-4, 0.02, 0.5)]
        for errors in (near_tied(prompts, draws, 0), make_table(prompts, draws, 0)):
            for per_class in (1, 2):
                theirs = run(make("adaptive", draws), errors, per_class).evaluations
                assert theirs <= races[0].at_most(make_problem(errors, per_class))
                for race in races:
                    assert run(race, errors, per_class).evaluations <= theirs


@pytest.mark.parametrize("null", [0, 1])
def test_nulls_and_guidance_count(null: int) -> None:
    errors = near_tied(12, 30, 3)
    problem = replace(make_problem(errors), cell_cost=2, null_cost=null)
    ours, theirs = (
        run(strategy, errors, problem=problem)
        for strategy in (published(30, delta=NEVER), make("adaptive", 30))
    )
    assert ours.equivalents == theirs.equivalents == 2 * (12 * 3 + 5 * 27) + 30 * null
    assert concluded(ours).decided_by == "ceiling"


def test_rounded_costs_do_not_cost_a_prompt() -> None:
    """With fractional costs, what is left may be just below the price of five prompts."""
    errors = near_tied(12, 30, 3)
    for tenths in range(1, 40):
        problem = replace(make_problem(errors), cell_cost=tenths / 10, null_cost=0.1)
        decided = run(published(30, delta=NEVER), errors, problem=problem)
        assert sum(values.size for _, values in decided.cells) == 12 * 3 + 5 * 27


def test_the_first_stage_has_the_draws_of_the_schedule() -> None:
    errors = near_tied(8, 60, 0)
    asked = list(evaluations(published(60, delta=NEVER).start(make_problem(errors)), errors))
    first = np.concatenate([request.draws for request in asked if len(request.prompts) == 8])
    assert sorted(first) == sub_grid(6, 60).tolist()
    assert {len(request.prompts) for request in asked} == {8, 5}
    assert sum(len(request.draws) for request in asked) == 60


def test_what_the_bound_saves_keeps_more_prompts() -> None:
    """Half of the prompts are far behind and dropped at the first look."""
    errors = near_tied(40, 100, 1)
    errors[20:] += 1
    session = published(100, delta=1e-4).start(make_problem(errors))
    asked = list(evaluations(session, errors))
    seen = np.cumsum([len(request.draws) for request in asked])
    size = {int(n): len(request.prompts) for n, request in zip(seen, asked, strict=True)}
    assert (size[4], size[5]) == (40, 20)
    assert size[11] == 5 + 20 * (10 - 4) // 90
    assert session.outcome().decided_by == "ceiling"


def test_what_does_not_go_with_it_is_refused() -> None:
    with refused("bound=t"):
        published(50, bound="betting")
    with refused("'ceiling'"):
        make("screen-race", 50, ceiling="published")


@pytest.mark.parametrize("ceiling", ["schedule", 300.0])
def test_a_ceiling_of_an_earlier_version_is_refused_in_a_sentence(ceiling: object) -> None:
    with refused("ceiling", "removed"):
        make("race", 50, ceiling=ceiling)


def test_no_bound_drops_a_prompt_before_there_are_twenty_degrees_of_freedom() -> None:
    for prompts, draws in ((2, 22), (5, 6), (11, 3), (21, 2)):  # 22: a round ends there
        errors = make_table(prompts, 100, gap=5.0)
        asked = list(evaluations(published(100, first=2).start(make_problem(errors)), errors))
        assert sum(len(request.draws) for request in asked) == draws


def test_what_ended_an_image() -> None:
    easy, noise = make_table(10, 100, gap=0.05), near_tied(10, 40, 3)
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
    errors = near_tied(21, 40, 0)
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
