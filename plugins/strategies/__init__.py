"""Strategies: each decides which cells are evaluated, and when an image is decided."""

from __future__ import annotations

from collections.abc import Callable

from bench import hookimpl
from bench.specs import Parameter

_DRAWS = Parameter(500, "N, the draws of the plan")


@hookimpl
def register_strategies(register: Callable[..., None]) -> None:
    """Register the strategies."""
    register(
        "full",
        target="bench_plugins.strategies.full:Full",
        summary="every prompt on every draw",
        parameters={"draws": _DRAWS},
    )
    register(
        "adaptive",
        target="bench_plugins.strategies.adaptive:Adaptive",
        summary="the published elimination: a sub-grid of draws a stage, keep the best prompts",
        parameters={
            "samples": Parameter((50, 500), "draws of each stage's sub-grid"),
            "keep": Parameter((5, 1), "prompts kept after each stage; the last is 1"),
            "draws": Parameter(None, "N, the draws of the plan; the largest of samples", type=int),
        },
        default=True,
    )
