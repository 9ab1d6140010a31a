"""Racing: drop a prompt as soon as its paired difference from the leader is significant."""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Annotated, Any, ClassVar, NamedTuple

from typing_extensions import override

from bench.contracts.parameters import LATER
from bench.contracts.strategy import Floats, Problem, Replaced, Strategy, best_prompts
from bench_plugins.strategies._bounds import BOUNDS, ScheduleBound
from bench_plugins.strategies._racing import GROWTH, PublishedSession, RaceSession, published_cost
from bench_plugins.strategies.elimination import parse_bands

PUBLISHED_CEILING = "published"
NO_OTHER_VALUES = "Other values of earlier versions were removed"


class ImageStatistics(NamedTuple):
    """What `Race.learn` needs to know of one image with N draws.

    A rival is the best prompt of a class that does not win, and its difference is its weighted
    error minus that of the winner.
    """

    square: float  # sum over rivals of (difference on the first draw - mean over all draws)²
    rivals: int
    n_draws: int


class Race(Strategy):
    """Drop a prompt as soon as its paired difference from the leader is significant.

    >>> from bench.testing.strategies import decide, made_problem, made_table
    >>> errors = made_table(prompts=5, draws=40)
    >>> told = decide(Race(draws=40), errors, made_problem(errors))
    >>> told.outcome.ranking.tolist(), told.decided.evaluations  # the full sweep: 200
    ([3, 2, 4, 1, 0], 57)

    The *leader* is the surviving prompt with the lowest score. After each round of draws (a *look*,
    as in sequential analysis), a prompt is dropped if a lower confidence bound on the mean
    difference between its errors and the leader's is above zero. The aim is the exhaustive
    decision, a mean over a *finite* set of N draws. The draws seen are known exactly, so the bounds
    shrink to zero as the draws are used up, and a race that never drops a prompt decides exactly as
    `full` does. Each round adds at least an eighth of the draws seen. A race ends when the
    survivors are prompts of a single class.

    `delta` is the level of one comparison, and no promise about an image; what each bound promises,
    and when, is in docs/concepts/racing.md. `t` needs draws that are spread evenly over the
    timesteps (van der Corput), and requests draws that share a timestep together. `betting` needs a
    random order, and promises `delta` per image if the `span` is known. `ceiling=published` races
    on the draws of the default schedule of `adaptive`, stage by stage, so that no image costs more
    than it does there; at the end of the first stage, the evaluations that the schedule has not
    spent yet determine how many surviving prompts are kept.

    With a `tie`, fixed before the run, a race also ends when no survivor of another class can be
    better than the leader by more than `tie`, by the same bounds with the same `delta` (an
    epsilon-best arm: Even-Dar, Mannor & Mansour, JMLR 7, 2006). `decided_by` is then `tie`. Such an
    image is decided and counted as any other. If its decision differs from the full sweep's, the
    score is at most `tie` worse.

    Args:
        delta: significance level of the bounds; lower is safer and costs more.
        bound: `t` (fast), or `betting` (needs a `span`).
        first: draws before the first test.
        order: for `t`: bands of timesteps to evaluate first, such as `650-850,400-650`, or `even`
            for none.
        span: for `betting`: the largest possible difference between two errors on one draw; 0 if
            unknown, and then nothing is promised.
        draws: N, the draws of the plan.
        growth: each round adds at least 1 / growth of the draws seen; it must be 8.
        ceiling: `published` for at most the cost of the default schedule of `adaptive`; None for at
            most every prompt on every draw.
        deviation: for `t`: standard deviation of the difference between two prompts on a draw,
            learned from other images (`bench learn`), which allows `first=1`; 0 if unknown.
        tie: difference between two scores that does not matter, in the unit of the error; 0 if
            every difference matters.
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "race",
        "default": True,
        "unproven": {"ceiling": "published", "first": 2, "delta": 0.001},
        # A low delta costs little if prompts are far apart, and an early first look saves most. So
        # the first look comes earlier while delta is low, and then delta rises.
        "safest_first": (
            {"first": 8, "delta": 1e-5},
            {"first": 4, "delta": 1e-5},
            {"first": 3, "delta": 1e-5},
            {"first": 2, "delta": 1e-5},
            {"first": 2, "delta": 1e-4},
            {"first": 2, "delta": 1e-3},
            {"first": 2, "delta": 5e-3},
            {"first": 2, "delta": 0.02},
            {"first": 2, "delta": 0.05},
            {"first": 2, "delta": 0.1},
            {"first": 2, "delta": 0.2},
        ),
        "learned": ("deviation",),
    }

    def __init__(
        self,
        delta: float = 0.02,
        bound: str = "t",
        first: int = 4,
        order: str = "even",
        span: float = 0.0,
        draws: int = 500,
        growth: int = 8,
        ceiling: Annotated[float | str | None, LATER] = None,
        deviation: Annotated[float, LATER] = 0.0,
        tie: Annotated[float, LATER] = 0.0,
    ) -> None:
        if not 0 < delta < 1:
            raise ValueError(f"delta must be between 0 and 1, got {delta}")
        if bound not in BOUNDS:
            raise ValueError(
                f"bound must be one of {', '.join(BOUNDS)}, got {bound}. {NO_OTHER_VALUES}"
            )
        if deviation < 0:
            raise ValueError(f"deviation must not be negative (0: unknown), got {deviation:g}")
        if first < (1 if deviation else 2):
            raise ValueError(f"first must be at least 2 (1 with a deviation), got {first}")
        if draws < 1:
            raise ValueError(f"draws must be at least 1, got {draws}")
        if tie < 0:
            raise ValueError(f"tie must not be negative (0: every difference matters), got {tie:g}")
        if span < 0:
            raise ValueError(f"span must not be negative (0: unknown), got {span}")
        parse_bands(order)
        if ceiling not in (None, PUBLISHED_CEILING):
            raise ValueError(
                f"ceiling must be {PUBLISHED_CEILING}, got {ceiling}. {NO_OTHER_VALUES}"
            )
        if growth != GROWTH:
            raise ValueError(f"growth must be {GROWTH}, got {growth}. {NO_OTHER_VALUES}")
        self.ceiling = PUBLISHED_CEILING if ceiling else None
        self.deviation, self.bound, self.first = deviation, bound, first
        self.delta = self.level = delta
        self.order, self.span, self.draws, self.tie = order, span, draws, tie
        BOUNDS[bound].check(self)
        self.level_words = (ScheduleBound if ceiling else BOUNDS[bound]).words(self)

    @staticmethod
    def sweep(n_draws: int, linearised: bool, learned: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return several `delta`: alone, with the ceiling, with an `order`, and `betting`.

        An `order` or a `deviation` must be `learned`, that is, named by the user.
        """
        deltas = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002)
        settings: list[dict[str, Any]] = [{"delta": delta} for delta in deltas]
        settings += [{"delta": delta, "first": 2} for delta in (0.02, 0.005)]
        settings += [{**Race.spec["unproven"], "delta": delta} for delta in (0.02, 1e-3)]
        if deviation := learned.get("deviation"):
            first = {"first": 1, "deviation": deviation}
            settings += [{**first, "delta": delta} for delta in (0.02, 0.005, 0.001)]
        if order := learned.get("order"):
            settings += [{"delta": delta, "order": order} for delta in deltas]
        return [*settings, {"bound": "betting", "delta": 0.05}]

    @override
    def start(self, problem: Problem) -> RaceSession:
        return (PublishedSession if self.ceiling else RaceSession)(self, problem)

    def at_least(self, problem: Problem) -> float:
        """Return the lowest cost per image, in evaluations: all prompts up to the first look."""
        return self.start(problem).first_look_cost(len(problem.class_of_prompt))

    def at_most(self, problem: Problem) -> float:
        """Return the highest cost per image: every prompt on every draw, or the ceiling."""
        whole = problem.price(len(problem.class_of_prompt), len(problem.timesteps))
        return published_cost(problem) if self.ceiling else whole

    def replaces(self, problem: Problem) -> Replaced | None:
        """Return the default schedule of `adaptive`, or None if the ceiling is its cost already."""
        if self.ceiling is not None:
            return None
        unproven = self.spec["unproven"]
        settings = {**unproven, "delta": min(self.delta, unproven["delta"])}
        if self.bound != "t":
            settings["bound"] = "t"
        return Replaced("adaptive", published_cost(problem), settings)

    @override
    def statistics(
        self, problem: Problem, errors: Floats, first_order: Floats | None
    ) -> ImageStatistics:
        weighted = errors * problem.weights
        winner, *rivals = best_prompts(problem, weighted.mean(axis=1))
        differences = weighted[rivals] - weighted[winner]
        first_draw = self.start(problem).order[0]
        off = differences[:, first_draw] - differences.mean(axis=1)
        return ImageStatistics(float(off @ off), len(rivals), len(problem.timesteps))

    def learn(self, statistics: Sequence[ImageStatistics]) -> dict[str, dict[str, Any]]:
        """Return the `deviation` on the first draw, after which a race that has it looks.

        It is the root mean square, to three digits, over images and rivals of a difference minus
        its mean over all N draws, corrected for the finite number of draws.
        """
        if self.bound != "t":
            raise ValueError(f"deviation requires bound=t, got bound={self.bound}")
        rivals = sum(image.rivals for image in statistics)
        correction = 1 - 1 / statistics[0].n_draws
        if not (rivals and correction):  # no rivals, or a single draw
            return {}
        square = sum(image.square for image in statistics) / rivals / correction
        deviation = float(f"{sqrt(square):.3g}")
        return {"deviation": {"deviation": deviation, "first": 1}} if deviation else {}
