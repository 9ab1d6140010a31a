"""What a strategy may offer besides its contract, and whether it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import getattr_static
from typing import Any, Protocol, TypeGuard

from bench.contracts.abilities import declares
from bench.contracts.strategy import Floats, Problem


class NeedsLinearisations(Protocol):
    """A strategy that is of no use without linearisations.

    Attributes:
        linearises: True, a class attribute.
    """

    linearises: bool


class UsesSameDraws(Protocol):
    """A strategy that evaluates every prompt on the same draws, whatever the errors are.

    Its scores compare across the images of an item, too. One that gives prompts up serves the text
    score of such an item alone.

    Attributes:
        same_draws: True, a class attribute.
    """

    same_draws: bool


class BoundsItsCost(Protocol):
    """A strategy that knows what an image costs at the most.

    Without it, the plan assumes every prompt on every draw.
    """

    def at_most(self, problem: Problem) -> float:
        """Return an upper bound of what `Reply.cost` sums to, at the prices of the problem."""


class KnowsItsLeast(Protocol):
    """A strategy whose cost depends on the image, and that knows what one costs at the least."""

    def at_least(self, problem: Problem) -> float:
        """Return a lower bound of what `Reply.cost` sums to, at the prices of the problem."""


class KnowsItsOracle(Protocol):
    """A strategy that proves its decisions, and knows what the cheapest proof would have cost."""

    def cheapest(self, problem: Problem, errors: Floats) -> float:
        """Return the cost of one image, in evaluation equivalents, if its winner were known.

        Args:
            problem: what the image asks.
            errors: float64 [P, N], of every prompt on every draw.
        """


@dataclass(frozen=True)
class Replaced:
    """What a strategy is used instead of.

    Attributes:
        strategy: its registered name.
        equivalents: what it takes per image.
        settings: the parameters with which the one in its place never takes more.
    """

    strategy: str
    equivalents: float
    settings: Mapping[str, Any]


class KnowsWhatItReplaces(Protocol):
    """A strategy that is used to save what another one takes, and may turn out dearer."""

    def replaces(self, problem: Problem) -> Replaced | None:
        """Return the other one; None: this one never takes more, as it is set."""


class ChecksProblem(Protocol):
    """A strategy that cannot be used on every problem, such as one with too small a budget."""

    def check(self, problem: Problem) -> None:
        """Raise ValueError where it cannot be used; called before anything is scored."""


class SettlesParameters(Protocol):
    """A strategy some of whose parameters follow from others.

    Attributes:
        settled: those parameters with their values, as they are to be recorded.
    """

    settled: Mapping[str, Any]


def needs_linearisations(strategy: object) -> TypeGuard[NeedsLinearisations]:
    """Whether it says `linearises = True`."""
    return getattr_static(strategy, "linearises", False) is True


def uses_same_draws(strategy: object) -> TypeGuard[UsesSameDraws]:
    """Whether it says `same_draws = True`."""
    return getattr_static(strategy, "same_draws", False) is True


def bounds_its_cost(strategy: object) -> TypeGuard[BoundsItsCost]:
    """Whether it has `at_most`."""
    return declares(strategy, "at_most")


def knows_its_least(strategy: object) -> TypeGuard[KnowsItsLeast]:
    """Whether it has `at_least`."""
    return declares(strategy, "at_least")


def knows_its_oracle(strategy: object) -> TypeGuard[KnowsItsOracle]:
    """Whether it has `cheapest`."""
    return declares(strategy, "cheapest")


def knows_what_it_replaces(strategy: object) -> TypeGuard[KnowsWhatItReplaces]:
    """Whether it has `replaces`."""
    return declares(strategy, "replaces")


def checks_problem(strategy: object) -> TypeGuard[ChecksProblem]:
    """Whether it has `check`."""
    return declares(strategy, "check")


def settles_parameters(strategy: object) -> TypeGuard[SettlesParameters]:
    """Whether it has `settled`."""
    return declares(strategy, "settled")
