"""A plugin's strategy behind the guard: what it asks for and concludes is checked once, here.

What is handed on is a request within the problem and new, and an outcome that ranks every class.
A check takes a few numpy operations per request, and none per cell in Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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

MOST_LINEARISATIONS = 10_000  # requests per image; a strategy may have ever new mixtures
SUMS_TO_ONE = 1e-4  # how far float32 weights of thousands of prompts may be off


@dataclass(frozen=True)
class Rules:
    """What requests and outcomes of a problem must fit.

    Attributes:
        prompts: P.
        draws: N.
        classes: C.
        can_linearise: whether linearisations may be asked for.
    """

    prompts: int
    draws: int
    classes: int
    can_linearise: bool

    @staticmethod
    def of(problem: Problem) -> Rules:
        """Return the rules of a problem."""
        return Rules(
            prompts=len(problem.class_of_prompt),
            draws=len(problem.timesteps),
            classes=len(np.unique(problem.class_of_prompt)),
            can_linearise=problem.can_linearise,
        )


class CheckedStrategy(Strategy):
    """A plugin's strategy, whose every word is checked.

    Args:
        strategy: made from its parameters, with the contract's base or without.
        who: what a message calls it.

    Attributes:
        bounds_cost: whether it says what an image costs at the most.

    Raises:
        PluginError: its attributes are not of their type.
    """

    def __init__(self, strategy: object, who: str) -> None:
        self.who = who
        self.strategy: Strategy = with_defaults(strategy, Strategy)
        self.bounds_cost = offers(strategy, Strategy.at_most)
        self._rules: tuple[Problem, Rules] | None = None
        with guard(who, "reading `draws`, `settled` and `level`"):
            draws: Any = self.strategy.draws
            self.settled = {str(key): value for key, value in self.strategy.settled.items()}
            self.linearises = self.strategy.linearises is True
            self.same_draws = self.strategy.same_draws is True
            self.level = None if self.strategy.level is None else float(self.strategy.level)
        if isinstance(draws, bool) or not isinstance(draws, int | np.integer) or draws < 1:
            raise PluginError(who, f"its `draws` is {one_line(draws)}, not a number of 1 or more")
        self.draws = int(draws)

    def start(self, problem: Problem) -> CheckedSession:
        """Begin an image."""
        if self._rules is None or self._rules[0] is not problem:
            self._rules = problem, Rules.of(problem)
        with guard(self.who, "start()", passing=()):
            session = self.strategy.start(problem)
        return CheckedSession(session, self._rules[1], self.who)

    def check(self, problem: Problem) -> None:
        """Refuse a problem that it cannot be used on.

        Raises:
            UserError: it says so.
        """
        try:
            with guard(self.who, "check()", passing=(ValueError, UserError)):
                self.strategy.check(problem)
        except ValueError as error:
            raise UserError(f"{self.who}: {one_line(error)}.") from None

    def at_most(self, problem: Problem) -> float:
        """Return the largest cost per image, in evaluations."""
        with guard(self.who, "at_most()"):
            return float(self.strategy.at_most(problem))

    def at_least(self, problem: Problem) -> float | None:
        """Return the lowest cost per image, in evaluations, None where it does not say."""
        with guard(self.who, "at_least()"):
            least = self.strategy.at_least(problem)
            return None if least is None else float(least)

    def cheapest(self, problem: Problem, errors: Floats) -> float | None:
        """Return what the cheapest proof of a decision costs, None where it does not say."""
        with guard(self.who, "cheapest()"):
            cost = self.strategy.cheapest(problem, errors)
            return None if cost is None else float(cost)

    def replaces(self, problem: Problem) -> Replaced | None:
        """Return what it is used instead of, None where it does not say or never takes more."""
        with guard(self.who, "replaces()"):
            other: Any = self.strategy.replaces(problem)
        if other is not None and not isinstance(other, Replaced):
            raise PluginError(self.who, f"replaces() returned a {type(other).__name__}")
        return other


class CheckedSession:
    """One image under way: passes on what is asked and told, and refuses what cannot be meant."""

    def __init__(self, session: Session, rules: Rules, who: str) -> None:
        self.session, self.rules, self.who = session, rules, who
        self._asked = np.zeros((rules.prompts, rules.draws), dtype=bool)
        self._cells = 0
        self._linearised: dict[bytes, NDArray[np.bool_]] = {}  # by mixture, which draws
        self._linearisations = 0
        self._request: Any = None  # as the plugin made it

    def ask(self) -> Evaluate | Linearise | None:
        """Return what is wanted next, in arrays of its own, or None when decided.

        Raises:
            PluginError: it is no request, or one that cannot be answered or brings nothing new.
        """
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
            f"returned a {type(request).__name__}; Evaluate, Linearise or None is wanted"
        )

    def tell(self, request: Evaluate | Linearise, reply: Reply) -> None:
        """Hand over the reply to the last request."""
        with guard(self.who, "tell()", passing=()):
            self.session.tell(self._request, reply)

    def outcome(self) -> Outcome:
        """Return the decision.

        Raises:
            PluginError: it does not rank and score every class.
        """
        with guard(self.who, "outcome()", passing=()):
            outcome: Any = self.session.outcome()
            if not isinstance(outcome, Outcome):
                kind = type(outcome).__name__
                raise PluginError(self.who, f"outcome() returned a {kind}; an Outcome is wanted")
            return _checked_outcome(outcome, self.rules, self.who)

    def _evaluate(self, request: Evaluate) -> Evaluate:
        prompts = self._indices(request.prompts, self.rules.prompts, "prompt")
        draws = self._indices(request.draws, self.rules.draws, "draw")
        self._asked[prompts[:, None], draws] = True
        self._cells += len(prompts) * len(draws)
        # So a cell that is named twice shows, within a request and across them.
        if np.count_nonzero(self._asked) != self._cells:
            raise self._refuse("asked for a cell twice")
        return Evaluate(prompts, draws)

    def _linearise(self, request: Linearise) -> Linearise:
        if not self.rules.can_linearise:
            raise self._refuse("asked for a linearisation, which this backbone does not offer")
        draws = self._indices(request.draws, self.rules.draws, "draw")
        mixture = np.array(request.mixture, dtype=np.float64)
        if mixture.shape != (self.rules.prompts,):
            raise self._refuse(
                f"gave a mixture of shape {mixture.shape}; {self.rules.prompts} weights are wanted"
            )
        if not abs(mixture.sum() - 1) <= SUMS_TO_ONE:
            raise self._refuse(f"gave a mixture that sums to {mixture.sum():.6g}, not to 1")
        self._linearisations += 1
        if self._linearisations > MOST_LINEARISATIONS:
            raise self._refuse(f"asked for more than {MOST_LINEARISATIONS:,} linearisations")
        known = self._linearised.setdefault(
            mixture.tobytes(), np.zeros(self.rules.draws, dtype=bool)
        )
        before = np.count_nonzero(known)
        known[draws] = True
        if np.count_nonzero(known) != before + len(draws):
            raise self._refuse("asked for the same linearisation twice")
        return Linearise(draws, mixture)

    def _indices(self, given: Any, count: int, what: str) -> Ints:
        """Return int64 [n], n >= 1, each below `count`."""
        values = np.array(given)
        if values.size == 0:
            raise self._refuse(f"asked for no {what}")
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise self._refuse(
                f"gave {what}s as {values.dtype} {list(values.shape)}; a list of integers is wanted"
            )
        indices = values.astype(np.int64, copy=False)
        if indices.view(np.uint64).max() >= count:  # as unsigned, negative ones are large
            strange = indices[(indices < 0) | (indices >= count)][0]
            raise self._refuse(f"asked for {what} {strange}; there are {count}, from 0 on")
        return indices

    def _refuse(self, said: str) -> PluginError:
        return PluginError(self.who, f"ask() {said}")


def _checked_outcome(outcome: Outcome, rules: Rules, who: str) -> Outcome:
    """Return the outcome in arrays and numbers of its own.

    A class without a draw has no score: infinity. All others, the winner's among them, are finite.
    """
    ranking = _column(outcome.ranking, "iu", "ranking", rules.classes, who)
    if not np.array_equal(np.sort(ranking), np.arange(rules.classes)):
        raise PluginError(who, f"outcome(): its ranking is no order of the {rules.classes} classes")
    scores = _column(outcome.scores, "f", "scores", rules.classes, who).astype(np.float64)
    draws = _column(outcome.draws, "iu", "draws", rules.classes, who)
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
        raise PluginError(who, "outcome(): margin, margin_stderr or confidence is no number")
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
    return Outcome(
        ranking.astype(np.int64),
        scores,
        draws.astype(np.int64),
        margin,
        stderr,
        confidence,
        outcome.decided_by,
    )


def _column(given: Any, kinds: str, name: str, classes: int, who: str) -> NDArray[Any]:
    values = np.array(given)
    if values.shape != (classes,) or values.dtype.kind not in kinds:
        wanted = "floats" if "f" in kinds else "integers"
        raise PluginError(
            who,
            f"outcome(): {name} is {values.dtype} {list(values.shape)}; {wanted} [{classes}], one"
            " per class, are wanted",
        )
    return values


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    return float(value)
