from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.tables import Errors, concluded, make, make_problem, make_table, prediction, run

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.strategy import Problem
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.recordings.recording import Tables
from bench.recordings.replay import decide
from bench.running.parts.decision import make_strategy
from bench_plugins.strategies._ceiling import RESERVE, best

SHAPES = [(2, 30), (5, 50), (10, 20), (21, 40), (60, 12), (10, 250)]


def hard_table(kind: str, prompts: int, draws: int, seed: int) -> Errors:
    """Return errors that hardly tell prompts apart, float32 [P, N]."""
    if kind == "easy":
        return make_table(prompts, draws, seed=seed, gap=0.02)
    rng = np.random.default_rng(seed)
    own = 0.02 * rng.standard_normal((prompts, draws))
    if kind == "paraphrases":  # groups of prompts that are nearly the same
        groups = 0.02 * rng.standard_normal((max(2, prompts // 5), draws))
        own = groups[rng.integers(len(groups), size=prompts)] + 0.1 * own
    if kind == "near-tied":
        own += 0.002 * rng.standard_normal((prompts, 1))
    return (0.5 + own).astype(np.float32)


KINDS = ("easy", "noise", "near-tied", "paraphrases")


def screened(errors: Errors, price: float, null: int, per_class: int, **params: Any) -> Decided:
    """Decide with linearisations that are the errors themselves, at prices."""
    prompts, draws = errors.shape
    mixture = np.full(prompts, 1 / prompts)
    known = Tables(errors, [(mixture, errors)], price, 2, null)
    problem = replace(
        make_problem(errors, per_class),
        can_linearise=True,
        cell_cost=2,
        null_cost=null,
        linearisation_cost=price,
    )
    return decide(Sample("x", 0, {}), known, make("screen-race", draws, **params), problem)


@pytest.mark.parametrize("bound", ["t", "betting"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_race_never_costs_more_than_its_ceiling(kind: str, bound: str) -> None:
    for prompts, draws in SHAPES[:5]:
        adaptive = run(make("adaptive", draws), hard_table(kind, prompts, draws, 0)).evaluations
        for seed in range(4):
            errors = hard_table(kind, prompts, draws, seed)
            for ceiling in ("adaptive", prompts, prompts + 1.5, 2.7 * prompts, 1e9):
                strategy = make("race", draws, bound=bound, ceiling=ceiling)
                for per_class in (1, 2):
                    decided = run(strategy, errors, per_class)
                    most = adaptive if ceiling == "adaptive" else float(ceiling)
                    assert decided.equivalents <= most
                    assert decided.equivalents <= strategy.at_most(make_problem(errors))
                    assert concluded(decided).decided_by in ("bound", "ceiling", "exhausted")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("null", [0, 2])
def test_gradients_and_nulls_count(kind: str, null: int) -> None:
    for prompts, draws in SHAPES[2:5]:
        for seed in range(4):
            errors = hard_table(kind, prompts, draws, seed)
            for ceiling in (4 * 2.5 + 4 + null, 2 * prompts + 11, 5 * prompts):
                for reach in (0.3, 1.5, 9.0):
                    decided = screened(errors, 2.5, null, 1, reach=reach, ceiling=ceiling)
                    assert decided.equivalents <= ceiling
                    assert concluded(decided).decided_by is not None


def test_a_race_of_pairs_keeps_to_its_ceiling() -> None:
    for seed in range(10):
        errors = hard_table("noise", 7, 30, seed)
        problem = replace(make_problem(errors), timesteps=np.repeat(np.arange(15) * 60, 2))
        for ceiling in (7.0, 30.0, 60.0, "adaptive"):
            decided = decide(Sample("", 0, {}), errors, make("race", 30, ceiling=ceiling), problem)
            assert decided.error is None
            most = 7 * 3 + 5 * 27 if ceiling == "adaptive" else float(ceiling)
            assert decided.equivalents <= most


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_race_wherever_that_leaves_the_reserve(kind: str) -> None:
    same = 0
    for prompts, draws in SHAPES:
        free, limited = make("race", draws), make("race", draws, ceiling="adaptive")
        most = limited.at_most(make_problem(hard_table(kind, prompts, draws, 0)))
        for seed in range(10):
            errors = hard_table(kind, prompts, draws, seed)
            one, other = run(free, errors), run(limited, errors)
            if one.evaluations <= (1 - RESERVE) * most:
                same += 1
                assert other.evaluations == one.evaluations
                np.testing.assert_array_equal(concluded(other).ranking, concluded(one).ranking)
                assert concluded(other).decided_by == concluded(one).decided_by
    assert same >= (20 if kind == "easy" else 1)


def test_agreement_is_not_below_adaptives() -> None:
    """Paired, on 360 tables where `adaptive` is often wrong; the level is low: design/racing.md."""
    difference = []
    for prompts, draws in ((10, 20), (21, 40), (100, 20)):
        schedule = make("adaptive", draws)
        race = make("race", draws, ceiling="adaptive", delta=1e-4)
        for kind in ("noise", "near-tied", "paraphrases"):
            for seed in range(40):
                errors = hard_table(kind, prompts, draws, seed)
                truth = errors.astype(np.float64).mean(axis=1).argmin()
                ours, theirs = (prediction(s, errors) == truth for s in (race, schedule))
                difference.append(int(ours) - int(theirs))
    assert np.mean(difference) >= -0.01


def test_what_ended_an_image() -> None:
    easy, noise = make_table(10, 100, gap=0.05), hard_table("noise", 10, 40, 3)
    assert concluded(run(make("race", 100), easy)).decided_by == "bound"
    assert concluded(run(make("race", 40, delta=1e-12), noise)).decided_by == "exhausted"
    cut = concluded(run(make("race", 40, delta=1e-12, ceiling=60), noise))
    assert cut.decided_by == "ceiling"
    assert concluded(run(make("full", 40), noise)).decided_by is None


def test_the_halving_keeps_two_classes() -> None:
    scores, classes = np.array([0.1, 0.2, 0.3, 0.9]), np.array([0, 0, 0, 1])
    np.testing.assert_array_equal(best(scores, classes, 2), [0, 3])
    np.testing.assert_array_equal(best(scores, classes, 3), [0, 1, 3])
    np.testing.assert_array_equal(best(scores, np.arange(4), 2), [0, 1])


@pytest.mark.parametrize("name", ["race", "screen-race"])
@pytest.mark.parametrize("ceiling", ["0", "-3", "much", "nan", "inf", ""])
def test_what_is_no_ceiling_is_refused(name: str, ceiling: str) -> None:
    with pytest.raises(UserError, match=r"ceiling=.*number.* or adaptive"):
        make(name, 50, ceiling=ceiling)


def test_a_ceiling_pays_for_each_prompt_once() -> None:
    problem = make_problem(make_table(12, 40))
    dear = replace(problem, cell_cost=2, null_cost=1)
    make("race", 40, ceiling=12).check(problem)
    make("race", 40, ceiling="adaptive").check(dear)
    with pytest.raises(UserError, match="12 prompts; 25 or more"):
        make("race", 40, ceiling=24).check(dear)
    screen: Problem = replace(problem, can_linearise=True, class_of_prompt=np.arange(100))
    make("screen-race", 40, ceiling=14).check(screen)
    with pytest.raises(UserError, match="14 or more"):
        make("screen-race", 40, ceiling=13).check(screen)


@pytest.mark.parametrize(
    ("params", "ceiling"),
    [
        ({}, {"ceiling": "schedule", "delta": 0.001}),
        ({"delta": 1e-4}, {"ceiling": "schedule", "delta": 1e-4}),
        ({"bound": "betting"}, {"ceiling": "adaptive"}),
        ({"ceiling": "adaptive"}, None),
        ({"ceiling": 1e9}, None),
    ],
)
def test_a_race_without_a_ceiling_says_which_one_keeps_it_to_the_schedule(
    params: dict[str, Any], ceiling: dict[str, Any] | None
) -> None:
    errors = hard_table("noise", 21, 40, 0)
    problem, schedule = make_problem(errors), run(make("adaptive", 40), errors).evaluations
    found = make("race", 40, **params).replaces(problem)
    assert (found.settings if found else None) == ceiling
    if found:
        limited = make("race", 40, **{**params, **found.settings})
        assert found.equivalents == schedule == limited.at_most(problem)
        assert limited.replaces(problem) is None
    if not params:
        screen = make("screen-race", 40).replaces(problem)
        assert screen and screen.settings == {"ceiling": "adaptive"}
        assert screen.equivalents == schedule


@pytest.mark.parametrize("name", ["race", "screen-race"])
def test_without_a_ceiling_nothing_more_is_recorded(name: str) -> None:
    spec = load_plugins().strategies.get(name)
    assert "ceiling" not in make_strategy(spec, {})[0]
    assert make_strategy(spec, {"ceiling": "adaptive"})[0]["ceiling"] == "adaptive"
    assert make_strategy(spec, {"ceiling": "90"})[0] == make_strategy(spec, {"ceiling": 90})[0]
