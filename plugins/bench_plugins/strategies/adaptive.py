"""The published multi-stage elimination (Li et al., ICCV 2023, algorithm 2)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bench.contracts.strategy import Ints, Problem, Session, Strategy
from bench.inputs.draws import sub_grid
from bench_plugins.strategies.elimination import Elimination

# `samples` and `keep` for the paper's eight datasets, from the commands that its authors published
# (diffusion-classifier/diffusion-classifier, commands.md). Evaluations per image: cifar10 2,750,
# stl10 3,000, pets 2,050, food 5,570, aircraft 5,550, flowers 5,590, objectnet 14,400 (113
# classes), imagenet 124,500. A stage may have more new draws than the difference between its
# number and the previous one, because the sub-grids are not all nested: of 500 draws, the grids of
# 20 and 50 have none in common. The loss was l1 for cifar10, pets, flowers and stl10, otherwise l2.
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
    """The published elimination: another sub-grid of the draws in each stage for fewer prompts.

    Stage i has a sub-grid of `samples[i]` evenly spread draws, usually a denser one than before.
    Draws of earlier stages are not repeated. A prompt's score is the mean over all its draws so
    far. The `keep[i]` prompts with the lowest scores survive; ties go to the lower prompt index.

    Args:
        samples: draws of each stage's sub-grid; None for a tenth of the plan's draws and then all
            of them, like the published 50 and 500.
        keep: prompts kept after each stage; must not grow and must end with 1.
        draws: N, the draws of the plan; None for the largest of `samples`, or 500.
        schedule: name of a published schedule, which determines `samples` and `keep`.
    """

    spec: ClassVar[dict[str, Any]] = {"name": "adaptive"}

    def __init__(
        self,
        samples: tuple[int, ...] | None = None,
        keep: tuple[int, ...] = (5, 1),
        draws: int | None = None,
        schedule: str | None = None,
    ) -> None:
        if schedule is not None:
            if schedule not in SCHEDULES:
                names = ", ".join(SCHEDULES)
                raise ValueError(f"schedule must be one of {names}, got {schedule}")
            own_samples, own_keep = SCHEDULES[schedule]
            for name, own, value, default in (
                ("samples", own_samples, tuple(samples or ()), ()),
                ("keep", own_keep, tuple(keep), (5, 1)),
            ):
                if value not in (own, default):  # a recorded run states the schedule and its values
                    raise ValueError(
                        f"schedule={schedule} sets {name}={_text(own)}, so leave out {name} or"
                        f" schedule; got {name}={_text(value)}"
                    )
            samples, keep = own_samples, own_keep
        if samples is None:
            n_draws = 500 if draws is None else draws
            samples = (max(1, n_draws // 10), n_draws)
        self.samples, self.keep = tuple(samples), tuple(keep)
        self.draws = max(self.samples, default=0) if draws is None else draws
        self.settled = {"samples": self.samples, "keep": self.keep}
        if not self.samples or len(self.samples) != len(self.keep):
            raise ValueError(
                "samples and keep must have the same number of stages, such as samples=50,500"
                f" keep=5,1; got samples={_text(samples)} keep={_text(keep)}"
            )
        if min(self.samples) < 1 or min(self.keep) < 1:
            raise ValueError("samples and keep must be at least 1 in every stage")
        if self.keep[-1] != 1:
            raise ValueError(f"keep must end with 1, so that one prompt wins; got {_text(keep)}")
        if any(later > earlier for earlier, later in zip(self.keep, self.keep[1:], strict=False)):
            raise ValueError(
                f"keep must not grow, because dropped prompts do not return; got {_text(keep)}"
            )
        if max(self.samples) > self.draws:
            raise ValueError(f"samples must be at most draws={self.draws}, got {_text(samples)}")

    @staticmethod
    def sweep(n_draws: int, linearised: bool, learned: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the published schedule, if N >= 10, and one of at most 50 draws, if N >= 50."""
        settings = [{"samples": (n_draws // 10, n_draws), "keep": (5, 1)}] if n_draws >= 10 else []
        return [*settings, {"samples": (5, 50), "keep": (3, 1)}] if n_draws >= 50 else settings

    @override
    def start(self, problem: Problem) -> Session:
        return AdaptiveSession(self, problem)

    def at_most(self, problem: Problem) -> float:
        """Return the exact cost per image, in evaluations: it is the same for all images."""
        alive, total = len(problem.class_of_prompt), 0.0
        for draws, keep in self.stages(len(problem.timesteps)):
            total += problem.price(alive, len(draws))
            alive = min(alive, keep)
            if alive == 1:
                break
        return total

    def stages(self, n_draws: int) -> Iterator[tuple[Ints, int]]:
        """Yield the new draws (perhaps none) of each stage and the number of prompts to keep."""
        used = np.zeros(n_draws, dtype=bool)
        for n, keep in zip(self.samples, self.keep, strict=True):
            grid = sub_grid(n, n_draws)
            yield grid[~used[grid]], keep
            used[grid] = True


class AdaptiveSession(Elimination):
    """One image, decided stage by stage; `stages` are the draws and survivors of those to come."""

    def __init__(self, strategy: Adaptive, problem: Problem) -> None:
        stages = list(strategy.stages(len(problem.timesteps)))
        super().__init__(problem, np.concatenate([draws for draws, _ in stages]))
        self.stages = [(len(draws), keep) for draws, keep in stages]

    @override
    def round_size(self) -> int:
        return self.stages[0][0]

    def has_one_class(self) -> bool:
        """Return whether one prompt is left, whose further draws could not change the decision."""
        return len(self.alive) == 1

    def select_survivors(self) -> NDArray[np.bool_]:
        """Return bool [A]: the prompts that the stage keeps, and stages without new draws."""
        _, keep = self.stages.pop(0)
        while self.stages and not self.stages[0][0]:
            _, keep = self.stages.pop(0)
        return self.best(keep)


def _text(values: Sequence[int]) -> str:
    return ",".join(map(str, values))
