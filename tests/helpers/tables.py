"""Made-up tables of errors for the tests of strategies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.strategy import Evaluate, Outcome, Problem, Reply, Session
from bench.discovery.loading import load_plugins
from bench.engine.asking import CheckedStrategy
from bench.inputs.draws import timestep_grid
from bench.recordings.replay import decide
from bench.running.parts.decision import make_decider

Errors = NDArray[np.float32]


def make_table(
    prompts: int, draws: int, seed: int = 0, gap: float = 0.01, noise: float = 0.02
) -> Errors:
    """Return errors, float32 [P, N].

    A trend and noise that all prompts share, and a level and noise of each prompt's own; levels
    are `gap` or more above the best.
    """
    rng = np.random.default_rng(seed)
    level = gap * rng.uniform(1, 4, size=(prompts, 1))
    level[rng.integers(prompts)] = 0
    shared = np.linspace(0.8, 0.1, draws) + 0.1 * rng.standard_normal(draws)
    return (shared + level + noise * rng.standard_normal((prompts, draws))).astype(np.float32)


def make_problem(errors: Errors, per_class: int = 1, seed: int = 0) -> Problem:
    """Return the problem of a table with `per_class` prompts a class."""
    prompts, draws = errors.shape
    classes = np.arange(prompts) // per_class
    return Problem(classes, timestep_grid(draws, 1000), np.ones(draws), seed)


def make(name: str, draws: int | None, **params: Any) -> CheckedStrategy:
    """Return a registered strategy."""
    given: Mapping[str, Any] = {"draws": draws, **params}
    return make_decider(load_plugins().strategies.get(name), given).strategy


def run(strategy: CheckedStrategy, errors: Errors, per_class: int = 1) -> Decided:
    """Let the strategy decide on a table."""
    return decide(Sample("x", 0, {}), errors, strategy, make_problem(errors, per_class))


def prediction(strategy: CheckedStrategy, errors: Errors, per_class: int = 1) -> int:
    """Return the class decided."""
    return int(concluded(run(strategy, errors, per_class)).ranking[0])


def evaluations(session: Session, errors: Errors) -> Iterator[Evaluate]:
    """Yield what a session asks for, and answer it from `errors`, until it has decided."""
    while (request := session.ask()) is not None:
        assert isinstance(request, Evaluate)
        yield request
        values = errors[np.ix_(request.prompts, request.draws)]
        session.tell(request, Reply(values, float(values.size)))


def concluded(decided: Decided) -> Outcome:
    """Return the outcome, which is there."""
    assert decided.outcome is not None, decided.error
    return decided.outcome
