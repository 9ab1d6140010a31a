"""Strategies by what they are for: the toolkit knows none by name."""

from __future__ import annotations

from bench.contracts.specs import StrategySpec
from bench.discovery.loading import load_plugins
from bench.errors import UserError


def exhaustive() -> str:
    """Return the name of the strategy that evaluates every prompt on every draw.

    Others are compared with its decisions, and its recordings are replayed.

    Raises:
        UserError: no installed strategy does so.
    """
    for spec in load_plugins().strategies:
        if spec.exhaustive:
            return spec.name
    raise UserError("No installed strategy evaluates every prompt on every draw (exhaustive=True).")


def learning(parameter: str) -> StrategySpec:
    """Return the strategy that has a parameter learned from recordings.

    Raises:
        UserError: no installed strategy does so.
    """
    for spec in load_plugins().strategies:
        if parameter in spec.learned:
            return spec
    raise UserError(f"No installed strategy learns its parameter {parameter!r} from recordings.")
