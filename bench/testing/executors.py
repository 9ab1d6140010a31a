"""The contract of executors, as tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from typing_extensions import override

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.executor import Executor, ModelFacts, OpenRun
from bench.contracts.strategy import Outcome, Problem
from bench.discovery.targets import with_defaults

CLASSES, N_IMAGES, FAILS = 3, 40, "image 7"


class MadeRun(OpenRun):
    """A run without a model, and what opens it: an image's class is its number; one image fails."""

    model = ModelFacts(Problem(np.arange(CLASSES), np.zeros(1, np.int64), np.ones(1)))
    sample_ids = tuple(f"image {number}" for number in range(N_IMAGES))

    def open(self) -> OpenRun:
        """Return the run, which needs no loading."""
        return self

    @override
    def score(self, sample_ids: Iterable[str]) -> Iterator[Decided]:
        return map(self._decided, sample_ids)

    def _decided(self, sample_id: str) -> Decided:
        label = int(sample_id.split()[1]) % CLASSES
        if sample_id == FAILS:
            return Decided(Sample(sample_id, label, {}), error="made to fail")
        scores = np.arange(CLASSES) != label
        ones = np.ones(CLASSES, np.int64)
        outcome = Outcome(np.argsort(scores), scores.astype(float), ones, 1.0, 0.0, 1.0)
        return Decided(Sample(sample_id, label, {}), outcome, evaluations=CLASSES)


class ExecutorContract:
    """Tests of an executor; subclass it and define `make`."""

    def make(self) -> Any:
        """Return the executor."""
        raise NotImplementedError

    @pytest.fixture
    def run(self) -> Any:
        """The run to score; override it for an executor that needs one of the toolkit's."""
        return MadeRun()

    @pytest.fixture
    def executor(self) -> Iterator[Executor[Any]]:
        """The executor, with default methods where it has none of its own."""
        with closing(with_defaults(self.make(), Executor)) as executor:
            yield executor

    def test_each_image_is_decided_once_and_as_in_this_process(
        self, executor: Executor[Any], run: Any
    ) -> None:
        """Decisions, failures and facts about the model are those of `run.open()`; twice."""
        wanted = run.open()
        expected = {d.sample.sample_id: _plain(d) for d in wanted.score(run.sample_ids)}
        for _ in range(2):
            with closing(executor.open(run)) as opened:
                decided = list(opened.score(run.sample_ids))
                assert len(decided) == len(expected)
                assert {d.sample.sample_id: _plain(d) for d in decided} == expected
                assert opened.model.problem.n_classes == wanted.model.problem.n_classes

    def test_scoring_can_end_early(self, executor: Executor[Any], run: Any) -> None:
        """After the first decision the run is closed, twice; then it can be opened again."""
        opened = executor.open(run)
        first = next(iter(opened.score(run.sample_ids)))
        opened.close()
        opened.close()
        with closing(executor.open(run)) as again:
            rest = [name for name in run.sample_ids if name != first.sample.sample_id]
            assert {d.sample.sample_id for d in again.score(rest)} == set(rest)


def _plain(decided: Decided) -> tuple[object, ...]:
    ranking = None if decided.outcome is None else tuple(decided.outcome.ranking)
    return decided.sample.label, ranking, decided.error, decided.evaluations
