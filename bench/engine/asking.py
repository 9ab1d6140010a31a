"""Validation of a plugin's strategy, and the dialogue with it about an image.

A validated request names cells of the problem, and no cell twice per image; a validated outcome
ranks every class. Exceptions of the plugin become `PluginError`. The cost is a few numpy operations
per request, with no Python loop over cells.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from bench.contracts.dataset import Sample
from bench.contracts.decision import MEAN, Decided, reduced
from bench.contracts.executor import ModelFacts
from bench.contracts.parameters import Parameters
from bench.contracts.strategy import (
    DECIDED_BY,
    Bools,
    Evaluate,
    Floats,
    Floats32,
    Ints,
    Linearise,
    Outcome,
    Problem,
    Replaced,
    Reply,
    Session,
    Strategy,
)
from bench.contracts.typed import PositiveInt, annotations_of
from bench.discovery.guard import checked_answer, guard, one_line
from bench.discovery.targets import offers, with_defaults
from bench.errors import PluginError

R = TypeVar("R")

MAX_LINEARISATIONS = 10_000  # requests per image; a strategy may have ever new mixtures
SUMS_TO_ONE = 1e-4  # how far float32 weights of thousands of prompts may be off


class CheckedStrategy(Strategy):
    """Wrapper that validates a plugin's strategy. It raises PluginError if the strategy is faulty.

    The plugin's class need not be a subclass of `Strategy`; messages call it `who`. A strategy that
    does not use a class tree sees only the prompts of the leaves. `bounds_cost` says whether the
    strategy overrides `at_most`.
    """

    def __init__(self, strategy: object, who: str) -> None:
        self.who = who
        self.strategy: Strategy = with_defaults(strategy, Strategy)
        self.bounds_cost = offers(strategy, Strategy.at_most)
        self.draws = checked_answer(who, "draws", PositiveInt, lambda: self.strategy.draws)
        with guard(who, "reading its attributes"):
            self.settled = {str(key): value for key, value in self.strategy.settled.items()}
            self.linearises = self.strategy.linearises is True
            self.same_draws = self.strategy.same_draws is True
            self.uses_hierarchy = self.strategy.uses_hierarchy is True
            self.level = None if self.strategy.level is None else float(self.strategy.level)
            words = self.strategy.level_words
            self.level_words = None if words is None else one_line(words)

    @override
    def start(self, problem: Problem) -> Session:
        with guard(self.who, "start()", passing=()):
            return self.strategy.start(self.seen_problem(problem))

    def seen_prompts(self, problem: Problem) -> Ints:
        """Return the prompts that the strategy sees: the leaves only, of a tree it does not use."""
        classes = problem.class_of_prompt
        every = problem.parents is None or self.uses_hierarchy
        return np.flatnonzero(every | (classes < problem.n_classes))

    def seen_problem(self, problem: Problem) -> Problem:
        """Return the problem of the prompts that the strategy sees."""
        if problem.parents is None or self.uses_hierarchy:
            return problem
        leaves = problem.class_of_prompt[self.seen_prompts(problem)]
        return replace(problem, class_of_prompt=leaves, parents=None, can_linearise=False)

    @override
    def check(self, problem: Problem) -> None:
        with guard(self.who, "check()", refuses=True):
            self.strategy.check(self.seen_problem(problem))

    @override
    def at_most(self, problem: Problem) -> float:
        return self._fact(Strategy.at_most, problem)

    @override
    def at_least(self, problem: Problem) -> float | None:
        return self._fact(Strategy.at_least, problem)

    @override
    def replaces(self, problem: Problem) -> Replaced | None:
        return self._fact(Strategy.replaces, problem)

    def _fact(self, method: Callable[[Strategy, Problem], R], problem: Problem) -> R:
        """Return a method's answer. Raises PluginError unless it has the annotated type."""
        name, kind = method.__name__, annotations_of(method)["return"]
        ask: Callable[[], R] = partial(getattr(self.strategy, name), self.seen_problem(problem))
        return checked_answer(self.who, f"{name}()", kind, ask)

    @override
    def statistics(self, problem: Problem, errors: Floats, first_order: Floats | None) -> Any:
        rows = self.seen_prompts(problem)
        first_order = None if first_order is None else first_order[rows]
        with guard(self.who, "statistics()"):
            return self.strategy.statistics(self.seen_problem(problem), errors[rows], first_order)

    @override
    def learn(self, statistics: Sequence[Any]) -> dict[str, Parameters]:
        with guard(self.who, "learn()", refuses=True):
            learned = self.strategy.learn(statistics)
            return {str(name): dict(setting) for name, setting in learned.items()}


class CheckedSession:
    """The dialogue with a strategy about one image, which validates every request and the outcome.

    `decided` collects errors, costs and the outcome. A faulty strategy fails this image only.
    """

    def __init__(self, sample: Sample, strategy: CheckedStrategy, problem: Problem) -> None:
        self.decided = Decided(sample)
        self.problem, self.who = problem, strategy.who
        self.seen = strategy.seen_problem(problem)
        self.seen_prompts = strategy.seen_prompts(problem)
        self._requested = np.zeros((len(self.seen_prompts), len(problem.timesteps)), dtype=bool)
        self._linearised: dict[bytes, Bools] = {}  # which draws, by mixture
        self._request: Any = None  # as the plugin made it
        try:
            self._session = strategy.start(problem)
        except PluginError as error:
            self.decided.error = str(error)

    def ask(self) -> Evaluate | Linearise | None:
        """Return a copy of the next request, or None if the image is decided or has failed."""
        if self.decided.error is not None:
            return None
        try:
            with guard(self.who, "ask()", passing=()):
                self._request = self._session.ask()
                match self._request:
                    case Evaluate():
                        return self._evaluate(self._request)
                    case Linearise():
                        return self._linearise(self._request)
            if self._request is not None:
                kind = type(self._request).__name__
                raise self._refuse(f"returned a {kind}; expected Evaluate, Linearise or None")
            self.decided.outcome = self._outcome()
        except PluginError as error:
            self.decided.error = str(error)
        except ValueError as error:
            self.decided.error = f"the strategy cannot be used here: {error}"
        return None

    def tell(
        self,
        request: Evaluate | Linearise,
        values: Floats32,
        linearisation_cost: float = 0.0,
    ) -> None:
        """Record the reply to the last request, with its cost, and pass it to the strategy.

        `values`, float32 [prompts, draws], are made read-only; one that is not finite fails the
        image. `linearisation_cost` is that of one linearised draw, in evaluations.
        """
        values.setflags(write=False)
        decided = self.decided
        if isinstance(request, Linearise):
            kind, prompts = "first-order error", np.arange(len(values))
            total = len(request.draws) * linearisation_cost
            decided.linearisations += len(request.draws)
            decided.linearised.append((request, values))
        else:
            kind, prompts = "error", request.prompts
            total = self.problem.price(len(prompts), len(request.draws))
            decided.evaluations += round(total)
            decided.cells.append((request, values))
        decided.equivalents += total
        if not np.isfinite(values).all():
            row, column = (int(i[0]) for i in np.nonzero(~np.isfinite(values)))
            decided.error = (
                f"the model's {kind} is {values[row, column]} for prompt {prompts[row]}"
                f" on draw {request.draws[column]}"
            )
            return
        try:
            with guard(self.who, "tell()", passing=()):
                self._session.tell(self._request, Reply(values, total))
        except PluginError as error:
            decided.error = str(error)

    def _outcome(self) -> Outcome:
        """Return the decision, by the problem's reduction if that is not the mean.

        Raises ValueError if the strategy did not evaluate what the reduction needs.
        """
        with guard(self.who, "outcome()", passing=()):
            returned: Any = self._session.outcome()
            if not isinstance(returned, Outcome):
                kind = type(returned).__name__
                raise PluginError(self.who, f"outcome() returned a {kind}; expected an Outcome")
            outcome = checked_outcome(returned, self.seen.n_classes, self.who)
        if self.problem.reduction == MEAN:
            return outcome
        return reduced(self.problem, self.decided.cells)

    def _evaluate(self, request: Evaluate) -> Evaluate:
        prompts = self._indices(request.prompts, "prompt")
        draws = self._indices(request.draws, "draw")
        self._mark(self._requested, (prompts[:, None], draws), len(prompts) * len(draws), "a cell")
        return Evaluate(self.seen_prompts[prompts], draws)

    def _linearise(self, request: Linearise) -> Linearise:
        if not self.seen.can_linearise:
            raise self._refuse("asked for a linearisation, which this backbone does not offer")
        draws = self._indices(request.draws, "draw")
        mixture, wanted = np.array(request.mixture, dtype=np.float64), self.seen_prompts
        if mixture.shape != wanted.shape:
            raise self._refuse(
                f"gave a mixture of shape {mixture.shape}; expected {len(wanted)} weights"
            )
        if not abs(mixture.sum() - 1) <= SUMS_TO_ONE:
            raise self._refuse(f"gave a mixture that sums to {mixture.sum():.6g}, not to 1")
        if len(self.decided.linearised) >= MAX_LINEARISATIONS:
            raise self._refuse(f"asked for more than {MAX_LINEARISATIONS:,} linearisations")
        none = np.zeros(len(self.seen.timesteps), dtype=bool)
        linearised = self._linearised.setdefault(mixture.tobytes(), none)
        self._mark(linearised, draws, len(draws), "the same linearisation")
        return Linearise(draws, mixture)

    def _mark(self, requested: Bools, where: Any, count: int, what: str) -> None:
        """Mark `count` places as requested; refuse a place that is requested a second time."""
        before = np.count_nonzero(requested)
        requested[where] = True
        if np.count_nonzero(requested) != before + count:
            raise self._refuse(f"asked for {what} twice")

    def _indices(self, returned: Any, what: str) -> Ints:
        """Return int64 [n], n >= 1, the numbers of prompts or draws; `what` is one of the two."""
        prompts, draws = self._requested.shape
        count = draws if what == "draw" else prompts
        values = np.array(returned)
        if values.size == 0:
            raise self._refuse(f"asked for no {what}")
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise self._refuse(
                f"gave {what}s as {values.dtype} {list(values.shape)}; expected a list of integers"
            )
        indices = values.astype(np.int64, copy=False)
        if indices.view(np.uint64).max() >= count:  # as unsigned, negative ones are large
            strange = indices[(indices < 0) | (indices >= count)][0]
            raise self._refuse(f"asked for {what} {strange}; there are {count}, from 0 on")
        return indices

    def _refuse(self, problem: str) -> PluginError:
        return PluginError(self.who, f"ask() {problem}")


def checked_outcome(outcome: Outcome, classes: int, who: str, call: str = "outcome()") -> Outcome:
    """Return a copy of the outcome among `classes` classes, which `call` returned.

    Only a class without a draw may have an infinite score, and the winner may not. Raises
    PluginError, which names `who`.
    """

    def check(holds: object, problem: str) -> None:
        if not holds:
            raise PluginError(who, f"{call}: {problem}")

    def column(name: str, kinds: str, wanted: str) -> NDArray[Any]:
        values = np.array(getattr(outcome, name))
        problem = f"{name} is {values.dtype} {list(values.shape)}; {wanted} [{classes}], one"
        holds = values.shape == (classes,) and values.dtype.kind in kinds
        check(holds, f"{problem} per class, are wanted")
        return values

    ranking = column("ranking", "iu", "integers").astype(np.int64)
    in_order = np.array_equal(np.sort(ranking), np.arange(classes))
    check(in_order, f"its ranking is not an order of the {classes} classes")
    scores = column("scores", "f", "floats").astype(np.float64)
    draws = column("draws", "iu", "integers").astype(np.int64)
    check((draws >= 0).all(), "a number of draws is negative")
    scored = np.isfinite(scores)
    finite = (scored | ((scores == np.inf) & (draws == 0))).all() and scored[ranking[0]]
    check(finite, "a score is not finite (infinity is for a class without a draw)")
    numbers: list[Any] = [outcome.margin, outcome.margin_stderr, outcome.confidence]
    real = [isinstance(x, int | float | np.number) and not isinstance(x, bool) for x in numbers]
    check(all(real), "margin, margin_stderr or confidence is not a number")
    margin, stderr, confidence = map(float, numbers)
    in_range = not (stderr < 0 or confidence < 0 or confidence > 1)  # nan: not known
    wanted = "margin_stderr {:g} must be 0 or more, confidence {:g} between 0 and 1"
    check(in_range, wanted.format(stderr, confidence))
    end = outcome.decided_by
    wanted = f"one of {', '.join(DECIDED_BY)}, or None, is wanted"
    check(end is None or end in DECIDED_BY, f"decided_by is {one_line(end)}; {wanted}")
    return Outcome(ranking, scores, draws, margin, stderr, confidence, end)


class Engine(ABC):
    """Scores samples with a model in this process."""

    model: ModelFacts  # what a run stores of the model
    device: str | None = None  # type of the device, if its speed should be remembered

    @property
    def problem(self) -> Problem:
        """The problem of an image."""
        return self.model.problem

    @abstractmethod
    def score(self, samples: Iterable[Sample], strategy: CheckedStrategy) -> Iterator[Decided]:
        """Yield each sample as soon as it is decided, in any order."""
