"""A run that is scored at no cost, as workers do it, and may be interrupted."""

import random
from collections.abc import Iterable, Iterator

import numpy as np

from bench.contracts.decision import Decided
from bench.contracts.executor import ModelFacts, OpenRun
from bench.contracts.strategy import Outcome, Problem
from bench.running.content import PreparedRun


class Scripted(OpenRun):
    """Workers that are nearly always right and finish images in an order of their own."""

    def __init__(self, run: PreparedRun, block: int = 1, ends_after: int | None = None) -> None:
        self.run, self.block, self.ends_after, self.closed = run, block, ends_after, False
        self.model = ModelFacts(Problem(np.arange(10), np.zeros(1, np.int64), np.ones(1)))

    def score(self, sample_ids: Iterable[str]) -> Iterator[Decided]:
        ids = list(sample_ids)
        blocks = [ids[i : i + self.block] for i in range(0, len(ids), self.block)]
        shuffled = [name for part in blocks for name in random.Random(1).sample(part, len(part))]
        for number, sample in enumerate(self.run.samples(shuffled)):
            if number == self.ends_after:
                raise KeyboardInterrupt
            wrong = sum(map(ord, sample.sample_id)) % 10 == 0
            ranking = np.roll(np.arange(10), -(sample.label + wrong))
            yield Decided(
                sample,
                Outcome(ranking, np.ones(10), np.ones(10, np.int64), 0.0, 0.0, 0.5),
                evaluations=10,
            )

    def close(self) -> None:
        self.closed = True
