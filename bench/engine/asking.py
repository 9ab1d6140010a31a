"""Validation of a plugin's strategy: its attributes, requests and outcomes.

A validated request names cells of the problem, and no cell twice per image; a validated outcome
ranks every class. Exceptions of the plugin become `PluginError`. The cost is a few numpy operations
per request, with no Python loop over cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.parameters import Parameters
from bench.contracts.strategy import (
    DECIDED_BY,
    Evaluate,
    Floats,
    Ints,
    Linearise,
    Outcome,
    Problem,
    Replaced,
    Reply,
    Session,
    Strategy,
)
from bench.discovery.guard import guard, one_line
from bench.discovery.targets import offers, with_defaults
from bench.errors import PluginError, UserError

MAX_LINEARISATIONS = 10_000  # requests per image; a strategy may have ever new mixtures
SUMS_TO_ONE = 1e-4  # how far float32 weights of thousands of prompts may be off


class CheckedStrategy(Strategy):
    """Wrapper that validates a plugin's strategy. It raises PluginError if the strategy is faulty.

    The plugin's class need not be a subclass of `Strategy`; messages call it `who`. A strategy that
    does not use a class tree sees only the prompts of the leaves. `bounds_cost` is whether it
    overrides `at_most`.
    """

    def __init__(self, strategy: object, who: str) -> None:
        self.who = who
        self.strategy: Strategy = with_defaults(strategy, Strategy)
        self.bounds_cost = offers(strategy, Strategy.at_most)
        with guard(who, "reading `draws`, `settled` and `level`"):
            draws: Any = self.strategy.draws
            self.settled = {str(key): value for key, value in self.strategy.settled.items()}
            self.linearises = self.strategy.linearises is True
            self.same_draws = self.strategy.same_draws is True
            self.uses_hierarchy = self.strategy.uses_hierarchy is True
            self.level = None if self.strategy.level is None else float(self.strategy.level)
        if isinstance(draws, bool) or not isinstance(draws, int | np.integer) or draws < 1:
            raise PluginError(who, f"its `draws` is {one_line(draws)}, not a number of 1 or more")
        self.draws = int(draws)

    def start(self, problem: Problem) -> CheckedSession:
        """Begin an image."""
        with guard(self.who, "start()", passing=()):
            session = self.strategy.start(self._seen(problem))
        return CheckedSession(session, self._seen(problem), self.who, self._rows(problem))

    def _rows(self, problem: Problem) -> Ints:
        """Return the prompts that the strategy sees: of a tree that it does not use, the leaves."""
        prompts = np.arange(len(problem.class_of_prompt))
        if problem.parents is None or self.uses_hierarchy:
            return prompts
        return prompts[problem.class_of_prompt < problem.n_classes]

    def _seen(self, problem: Problem) -> Problem:
        if problem.parents is None or self.uses_hierarchy:
            return problem
        leaves = problem.class_of_prompt[self._rows(problem)]
        return replace(problem, class_of_prompt=leaves, parents=None, can_linearise=False)

    def check(self, problem: Problem) -> None:
        """Raise `UserError` on a problem that the strategy cannot be used on."""
        try:
            with guard(self.who, "check()", passing=(ValueError, UserError)):
                self.strategy.check(self._seen(problem))
        except ValueError as error:
            raise UserError(f"{self.who}: {one_line(error)}.") from None

    def at_most(self, problem: Problem) -> float:
        """Return the largest cost per image, in evaluations."""
        with guard(self.who, "at_most()"):
            return float(self.strategy.at_most(self._seen(problem)))

    def at_least(self, problem: Problem) -> float | None:
        """Return the lowest cost per image, in evaluations, or None where it is not known."""
        with guard(self.who, "at_least()"):
            return _float_or_none(self.strategy.at_least(self._seen(problem)))

    def replaces(self, problem: Problem) -> Replaced | None:
        """Return what the strategy replaces to save cost, or None where it never costs more."""
        with guard(self.who, "replaces()"):
            other: Any = self.strategy.replaces(self._seen(problem))
        if other is not None and not isinstance(other, Replaced):
            raise PluginError(self.who, f"replaces() returned a {type(other).__name__}")
        return other

    def statistics(self, problem: Problem, errors: Floats, first_order: Floats | None) -> Any:
        """Return what the strategy needs to know of one recorded image to learn from it."""
        rows = self._rows(problem)
        first_order = None if first_order is None else first_order[rows]
        with guard(self.who, "statistics()"):
            return self.strategy.statistics(self._seen(problem), errors[rows], first_order)

    def learn(self, statistics: Sequence[Any]) -> dict[str, Parameters]:
        """Return learned settings by their description, or raise UserError if there are none."""
        try:
            with guard(self.who, "learn()", passing=(ValueError, UserError)):
                learned = self.strategy.learn(statistics)
                return {str(name): dict(setting) for name, setting in learned.items()}
        except ValueError as error:
            raise UserError(f"{self.who}: {one_line(error)}.") from None


class CheckedSession:
    """Wrapper that validates the requests and outcome of a session, and translates its prompts."""

    def __init__(self, session: Session, problem: Problem, who: str, rows: Ints) -> None:
        self.session, self.problem, self.who = session, problem, who
        self.rows = rows  # the run's prompts that the problem's stand for
        self.prompts, self.draws = len(problem.class_of_prompt), len(problem.timesteps)
        self._requested = np.zeros((self.prompts, self.draws), dtype=bool)
        self._cells = 0
        self._linearised: dict[bytes, NDArray[np.bool_]] = {}  # by mixture, which draws
        self._linearisations = 0
        self._request: Any = None  # as the plugin made it

    def ask(self) -> Evaluate | Linearise | None:
        """Return a copy of the next request, valid and new (PluginError), or None at the end."""
        with guard(self.who, "ask()", passing=()):
            request: Any = self.session.ask()
            if request is None:
                return None
            self._request = request
            if isinstance(request, Evaluate):
                return self._evaluate(request)
            if isinstance(request, Linearise):
                return self._linearise(request)
        raise self._refuse(
            f"returned a {type(request).__name__}; expected Evaluate, Linearise or None"
        )

    def tell(self, request: Evaluate | Linearise, reply: Reply) -> None:
        """Hand over the reply to the last request."""
        with guard(self.who, "tell()", passing=()):
            self.session.tell(self._request, reply)

    def outcome(self) -> Outcome:
        """Return a copy of the decision, which ranks and scores every class (PluginError)."""
        with guard(self.who, "outcome()", passing=()):
            outcome: Any = self.session.outcome()
            if not isinstance(outcome, Outcome):
                kind = type(outcome).__name__
                raise PluginError(self.who, f"outcome() returned a {kind}; expected an Outcome")
            return _checked_outcome(outcome, self.problem.n_classes, self.who)

    def _evaluate(self, request: Evaluate) -> Evaluate:
        prompts = self._indices(request.prompts, self.prompts, "prompt")
        draws = self._indices(request.draws, self.draws, "draw")
        self._requested[prompts[:, None], draws] = True
        self._cells += len(prompts) * len(draws)
        # The counts differ where a cell is named twice, within a request or across requests.
        if np.count_nonzero(self._requested) != self._cells:
            raise self._refuse("asked for a cell twice")
        return Evaluate(self.rows[prompts], draws)

    def _linearise(self, request: Linearise) -> Linearise:
        if not self.problem.can_linearise:
            raise self._refuse("asked for a linearisation, which this backbone does not offer")
        draws = self._indices(request.draws, self.draws, "draw")
        mixture = np.array(request.mixture, dtype=np.float64)
        if mixture.shape != (self.prompts,):
            raise self._refuse(
                f"gave a mixture of shape {mixture.shape}; expected {self.prompts} weights"
            )
        if not abs(mixture.sum() - 1) <= SUMS_TO_ONE:
            raise self._refuse(f"gave a mixture that sums to {mixture.sum():.6g}, not to 1")
        self._linearisations += 1
        if self._linearisations > MAX_LINEARISATIONS:
            raise self._refuse(f"asked for more than {MAX_LINEARISATIONS:,} linearisations")
        linearised = self._linearised.setdefault(mixture.tobytes(), np.zeros(self.draws, bool))
        before = np.count_nonzero(linearised)
        linearised[draws] = True
        if np.count_nonzero(linearised) != before + len(draws):
            raise self._refuse("asked for the same linearisation twice")
        return Linearise(draws, mixture)

    def _indices(self, returned: Any, count: int, what: str) -> Ints:
        """Return int64 [n], n >= 1, each below `count`."""
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


def _checked_outcome(outcome: Outcome, classes: int, who: str) -> Outcome:
    """Return a copy of the outcome.

    The score of a class without a draw is infinite; all others, the winner's included, are finite.
    """
    ranking = _column(outcome.ranking, "iu", "ranking", classes, who)
    if not np.array_equal(np.sort(ranking), np.arange(classes)):
        raise PluginError(who, f"outcome(): its ranking is not an order of the {classes} classes")
    scores = _column(outcome.scores, "f", "scores", classes, who).astype(np.float64)
    draws = _column(outcome.draws, "iu", "draws", classes, who)
    if (draws < 0).any():
        raise PluginError(who, "outcome(): a number of draws is negative")
    scored = np.isfinite(scores)
    if not (scored | ((scores == np.inf) & (draws == 0))).all() or not scored[ranking[0]]:
        raise PluginError(
            who, "outcome(): a score is not finite (infinity is for a class without a draw)"
        )
    margin, stderr, confidence = (
        _number(value) for value in (outcome.margin, outcome.margin_stderr, outcome.confidence)
    )
    if margin is None or stderr is None or confidence is None:
        raise PluginError(who, "outcome(): margin, margin_stderr or confidence is not a number")
    if stderr < 0 or confidence < 0 or confidence > 1:  # nan: not known
        raise PluginError(
            who,
            f"outcome(): margin_stderr {stderr:g} must be 0 or more, confidence {confidence:g}"
            " between 0 and 1",
        )
    if outcome.decided_by is not None and outcome.decided_by not in DECIDED_BY:
        raise PluginError(
            who,
            f"outcome(): decided_by is {one_line(outcome.decided_by)}; one of"
            f" {', '.join(DECIDED_BY)}, or None, is wanted",
        )
    ranking, draws = ranking.astype(np.int64), draws.astype(np.int64)
    return Outcome(ranking, scores, draws, margin, stderr, confidence, outcome.decided_by)


def _column(returned: Any, kinds: str, name: str, classes: int, who: str) -> NDArray[Any]:
    values = np.array(returned)
    if values.shape != (classes,) or values.dtype.kind not in kinds:
        wanted = "floats" if "f" in kinds else "integers"
        raise PluginError(
            who,
            f"outcome(): {name} is {values.dtype} {list(values.shape)}; {wanted} [{classes}], one"
            " per class, are wanted",
        )
    return values


def _float_or_none(value: Any) -> float | None:
    return None if value is None else float(value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    return float(value)
