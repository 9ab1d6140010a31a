"""The published elimination (Li et al., ICCV 2023, algorithm 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from bench.contracts.strategy import ErrorTable, Evaluate, Outcome, Problem, Reply, Strategy
from bench.inputs.draws import sub_grid

# samples and keep of the paper's eight datasets, from the commands that its authors published
# (diffusion-classifier/diffusion-classifier, commands.md). Evaluations per image: cifar10 2,750,
# stl10 3,000, pets 2,050, food 5,570, aircraft 5,550, flowers 5,590, objectnet 14,400 (113
# classes), imagenet 124,500. Their loss was l1 for cifar10, pets, flowers and stl10, else l2.
SCHEDULES = {
    "cifar10": ((50, 500), (5, 1)),
    "stl10": ((100, 500), (5, 1)),
    "pets": ((25, 250), (5, 1)),
    "food": ((20, 50, 100, 500), (20, 10, 5, 1)),
    "aircraft": ((20, 50, 100, 500), (20, 10, 5, 1)),
    "flowers": ((20, 50, 100, 500), (20, 10, 5, 1)),
    "objectnet": ((50, 100, 500, 1000), (25, 10, 5, 1)),
    "imagenet": ((50, 100, 500, 1000), (500, 50, 10, 1)),
}


class Adaptive(Strategy):
    """Evaluate the surviving prompts on a denser sub-grid in each stage, and keep the best.

    Stage i adds the draws of its sub-grid of `samples[i]` that earlier stages have not used; a
    prompt's score is the mean over all its draws so far; the `keep[i]` prompts with the lowest
    scores survive. Ties go to the lower prompt index.

    Args:
        samples: draws of each stage's sub-grid; None: a tenth of the plan's draws and all of them,
            as 50 and 500 of the published 500.
        keep: prompts kept after each stage; must not grow, and ends with 1.
        draws: N, the draws of the plan; None: the largest of `samples`, or 500.
        schedule: the name of a published schedule, instead of `samples` and `keep`.
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "adaptive",
        "summary": "the published elimination: more draws in each stage for fewer prompts",
    }

    def __init__(
        self,
        samples: tuple[int, ...] | None = None,
        keep: tuple[int, ...] = (5, 1),
        draws: int | None = None,
        schedule: str | None = None,
    ) -> None:
        if schedule is not None:
            if schedule not in SCHEDULES:
                raise ValueError(f"schedule={schedule} is not one of {', '.join(SCHEDULES)}")
            samples, keep = SCHEDULES[schedule]
        if samples is None:
            most = 500 if draws is None else draws
            samples = (max(1, most // 10), most)
        self.samples, self.keep = tuple(samples), tuple(keep)
        self.draws = max(self.samples, default=0) if draws is None else draws
        self.settled = {"samples": self.samples, "keep": self.keep}
        if not self.samples or len(self.samples) != len(self.keep):
            raise ValueError(
                f"samples={_text(samples)} and keep={_text(keep)} must have the same number of"
                " stages, such as samples=50,500 keep=5,1"
            )
        if min(self.samples) < 1 or min(self.keep) < 1:
            raise ValueError("every stage needs at least one draw and keeps at least one prompt")
        if self.keep[-1] != 1:
            raise ValueError(f"keep={_text(keep)} must end with 1, so that one prompt wins")
        if any(later > earlier for earlier, later in zip(self.keep, self.keep[1:], strict=False)):
            raise ValueError(f"keep={_text(keep)} must not grow: a prompt once dropped is gone")
        if max(self.samples) > self.draws:
            raise ValueError(
                f"samples={_text(samples)}: a stage cannot have more than draws={self.draws}"
            )

    @staticmethod
    def sweep(n_draws: int, linearised: bool, learned: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the published schedule, scaled from 500 draws, and a short one of its kind."""
        settings = [{"samples": (n_draws // 10, n_draws), "keep": (5, 1)}] if n_draws >= 10 else []
        return [*settings, {"samples": (5, 50), "keep": (3, 1)}] if n_draws >= 50 else settings

    def start(self, problem: Problem) -> AdaptiveSession:
        """Start one image."""
        return AdaptiveSession(self, problem)

    def at_most(self, problem: Problem) -> float:
        """Return the cost per image, in evaluations; the schedule fixes it."""
        active, used, total = len(problem.class_of_prompt), set[int](), 0.0
        for stage, (n, keep) in enumerate(zip(self.samples, self.keep, strict=True)):
            if stage and active == 1:
                break
            grid = set(sub_grid(n, len(problem.timesteps)).tolist())
            total += problem.price(active, len(grid - used))
            used |= grid
            active = min(active, keep)
        return total


class AdaptiveSession:
    """One image in one of the stages."""

    def __init__(self, strategy: Adaptive, problem: Problem) -> None:
        self.strategy = strategy
        self.table = ErrorTable(problem)
        self.active = np.arange(len(problem.class_of_prompt))
        self.survived = np.zeros(len(self.active), dtype=np.int64)
        self.used = np.zeros(len(problem.timesteps), dtype=bool)
        self.stage = 0

    def ask(self) -> Evaluate | None:
        """Return the surviving prompts on the draws that this stage adds."""
        while self.stage < len(self.strategy.samples):
            if self.stage and len(self.active) == 1:
                return None  # decided: more draws of the winner would tell nothing
            grid = sub_grid(self.strategy.samples[self.stage], len(self.used))
            fresh = grid[~self.used[grid]]
            if len(fresh):
                return Evaluate(self.active, fresh)
            self._eliminate()  # a stage may add nothing: all its draws are there already
        return None

    def tell(self, request: Evaluate, reply: Reply) -> None:
        """Take the stage's errors and drop the worst prompts."""
        self.table.tell(request, reply)
        self.used[request.draws] = True
        self._eliminate()

    def _eliminate(self) -> None:
        scores = self.table.scores()[self.active]
        best = np.argsort(scores, kind="stable")[: self.strategy.keep[self.stage]]
        self.active = np.sort(self.active[best])
        self.survived[self.active] += 1
        self.stage += 1

    def outcome(self) -> Outcome:
        """Rank by how long a prompt survived, then by score."""
        return self.table.outcome(self.survived)


def _text(values: Sequence[int]) -> str:
    return ",".join(map(str, values))
