"""A strategy of its own: every prompt, on the first few draws only."""

import numpy as np

from bench.contracts.strategy import ErrorTable, Evaluate


class FirstDraws:
    def __init__(self, draws=500, first=2):
        if first < 1:
            raise ValueError("first must be at least 1")
        self.draws, self.first = draws, first

    def start(self, problem):
        return Session(problem, self.first)


class Session:
    def __init__(self, problem, first):
        self.table = ErrorTable(problem)
        prompts, draws = self.table.errors.shape
        self.requests = [Evaluate(np.arange(prompts), np.arange(min(first, draws)))]

    def ask(self):
        return self.requests.pop() if self.requests else None

    def tell(self, request, reply):
        self.table.tell(request, reply)

    def outcome(self):
        return self.table.outcome()
