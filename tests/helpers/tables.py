"""Strategies that decide on made-up tables of errors, which are those of `bench.testing`."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.strategy import Evaluate, Outcome, Problem, Reply, Session
from bench.discovery.loading import load_plugins
from bench.engine.asking import CheckedStrategy
from bench.recordings.replay import decide
from bench.running.parts.decision import make_decider
from bench.testing.strategies import made_problem as make_problem
from bench.testing.strategies import made_table as make_table

__all__ = ("make_problem", "make_table")
Errors = NDArray[np.float32]


def make(name: str, draws: int | None, **params: Any) -> CheckedStrategy:
    """Return a registered strategy."""
    given: Mapping[str, Any] = {"draws": draws, **params}
    return make_decider(load_plugins().strategies.get(name), given).strategy


def run(
    strategy: CheckedStrategy, errors: Errors, per_class: int = 1, problem: Problem | None = None
) -> Decided:
    """Let the strategy decide on a table, with a problem of its own."""
    problem = problem or make_problem(errors, per_class)
    return decide(Sample("x", 0, {}), errors, strategy, problem)


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
