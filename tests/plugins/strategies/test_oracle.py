"""What the cheapest proof of a race's decision costs, which nobody who runs can know."""

from __future__ import annotations

import numpy as np
import pytest

from bench.contracts.dataset import Sample
from bench.contracts.strategy import Floats, Problem
from bench.inputs.draws import timestep_grid
from bench.recordings.replay import decide
from bench_plugins.strategies.race import Race

N = 20


def table(gaps: list[float], noise: float, seed: int = 0) -> Floats:
    """Return errors, float64 [P, N]: gaps from the first prompt, and noise of each cell."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal(N)
    own = noise * rng.standard_normal((len(gaps), N))
    return np.asarray(shared + np.array(gaps)[:, None] + own)


def problem(prompts: int, cell_cost: int = 1) -> Problem:
    grid = timestep_grid(N, 1000)
    return Problem(np.arange(prompts), grid, np.ones(N), cell_cost=cell_cost)


def test_two_draws_of_each_prompt_are_the_least() -> None:
    race = Race(draws=N)
    assert race.cheapest(problem(4), table([0, 9, 9, 9], 1e-6)) == 4 * 2
    assert race.cheapest(problem(4, cell_cost=3), table([0, 9, 9, 9], 1e-6)) == 3 * 4 * 2


def test_a_race_under_a_ceiling_proves_nothing() -> None:
    race = Race(ceiling="published", first=2, draws=N)
    assert race.cheapest(problem(4), table([0, 9, 9, 9], 1e-6)) is None


def test_what_cannot_be_proved_takes_all_draws() -> None:
    assert Race(draws=N).cheapest(problem(2), np.zeros((2, N))) == 2 * N


def test_prompts_of_the_winner_s_class_cost_nothing() -> None:
    one = Problem(np.zeros(3, np.int64), timestep_grid(N, 1000), np.ones(N))
    assert Race(draws=N).cheapest(one, table([0, 1, 2], 1.0)) == 1


@pytest.mark.parametrize("bound", ["t", "betting"])
@pytest.mark.parametrize("seed", range(4))
def test_against_one_rival_no_race_that_is_right_is_cheaper(bound: str, seed: int) -> None:
    errors = table([0, 0.8], 1.0, seed)
    race = Race(bound=bound, first=2, draws=N)
    decided = decide(Sample("", 0, {}), errors.astype(np.float32), race, problem(2))
    assert decided.outcome is not None
    if decided.outcome.ranking[0] == errors.mean(axis=1).argmin():
        proof = race.cheapest(problem(2), errors)
        assert proof is not None and 4 <= proof <= decided.equivalents
