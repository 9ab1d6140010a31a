"""A strategy that does what it is told, for tests of what strategies are allowed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from helpers.tables import make_problem, make_table

from bench.contracts.dataset import Sample
from bench.contracts.strategy import ErrorTable, Evaluate, Linearise, Problem, Reply
from bench.engine.asking import CheckedStrategy
from bench.recordings.recording import Tables
from bench.recordings.replay import decide

P, N, C = 6, 5, 3
ERRORS = make_table(P, N)
PROBLEM = replace(make_problem(ERRORS, per_class=2), can_linearise=True)
ALL = Evaluate(np.arange(P), np.arange(N))
MEAN = np.full(P, 1 / P)
EVEN = Linearise(np.arange(N), MEAN)


class Scripted:
    """A strategy that asks for what it was given, then concludes what it was given."""

    draws: Any = N

    def __init__(self, requests: Any = (ALL,), outcome: Any = None) -> None:
        self.requests, self.conclusion = requests, outcome

    def start(self, problem: Problem) -> Scripted:
        self.left = iter(self.requests)
        self.table = ErrorTable(problem)
        return self

    def ask(self) -> Any:
        request = next(self.left, None)
        return request() if callable(request) else request

    def tell(self, request: Any, reply: Reply) -> None:
        if isinstance(request, Evaluate):
            self.table.tell(request, reply)

    def outcome(self) -> Any:
        told = self.table.outcome()
        return self.conclusion(told) if callable(self.conclusion) else told


def decided(strategy: Any) -> Any:
    tables = Tables(ERRORS, [(MEAN, ERRORS)], linearisation_cost=3.0)
    return decide(Sample("x", 0, {}), tables, CheckedStrategy(strategy, "strategy 'x'"), PROBLEM)


def block(prompts: Any, draws: Any) -> Evaluate:
    return Evaluate(prompts, draws)


def exits() -> None:
    raise SystemExit(0)
