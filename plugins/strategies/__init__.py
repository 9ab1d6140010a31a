"""Strategies: each decides which cells are evaluated, and when an image is decided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from bench import hookimpl
from bench.contracts.specs import Parameter

_DRAWS = Parameter(500, "N, the draws of the plan")
_CEILING = Parameter(
    None,
    "the most evaluation equivalents per image; adaptive: what adaptive's default takes on these"
    " draws (default: none)",
    type=float | Literal["adaptive"],
    later=True,
)
# A low level costs little where prompts are far apart, and a first look at few draws saves most. So
# the first look becomes small while the level is low, and then the level rises.
_SAFEST_FIRST = tuple(
    {"first": first, "delta": delta}
    for first, delta in (
        *((8, 1e-5), (4, 1e-5), (3, 1e-5)),
        *((2, delta) for delta in (1e-5, 1e-4, 1e-3, 5e-3, 0.02, 0.05, 0.1, 0.2)),
    )
)
# A winner that is out of reach is lost, whatever the race does, so the widest reach comes first.
_SCREENS_SAFEST_FIRST = tuple(
    {"reach": reach, "first": first, "delta": delta}
    for reach, first, delta in (
        *((4.0, 4, 1e-5), (4.0, 2, 1e-4), (3.0, 2, 1e-3)),
        *((reach, 2, 0.02) for reach in (2.5, 2.0, 1.5, 1.0, 0.5)),
    )
)


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
        "full-linearised",
        target="bench_plugins.strategies.full:FullLinearised",
        summary="full, with every draw linearised too: record it to replay screening",
        parameters={"draws": _DRAWS},
    )
    register(
        "adaptive",
        target="bench_plugins.strategies.adaptive:Adaptive",
        summary="the published elimination: more draws in each stage for fewer prompts",
        parameters={
            "samples": Parameter(
                None,
                "draws of each stage, such as 50,500 (default: a tenth of the draws, then all)",
                type=tuple[int, ...],
            ),
            "keep": Parameter((5, 1), "prompts kept after each stage; ends with 1"),
            "draws": Parameter(
                None, "N, the draws of the plan (default: the largest of samples)", type=int
            ),
            "schedule": Parameter(
                None,
                "the paper's schedule for a dataset, such as pets, instead of samples and keep",
            ),
        },
    )
    register(
        "uniform",
        target="bench_plugins.strategies.uniform:Uniform",
        summary="every prompt on a few evenly spread draws",
        parameters={
            "samples": Parameter(
                None, "draws per prompt (default: 50, or all where there are fewer)", type=int
            ),
            "draws": _DRAWS,
        },
    )
    register(
        "halving",
        target="bench_plugins.strategies.halving:Halving",
        summary="sequential halving: keep the better half in each round, on a fixed budget",
        parameters={
            "budget": Parameter(
                None,
                "evaluations per image divided by the number of prompts"
                " (default: 40, or the draws where there are fewer)",
                type=int,
            ),
            "draws": _DRAWS,
        },
    )
    register(
        "paired-ttest",
        target="bench_plugins.strategies.paired_ttest:PairedTTest",
        summary="Clark & Jaini 2023: drop prompts that a paired t-test finds worse than the best",
        parameters={
            "min_scores": Parameter(20, "draws before the first test"),
            "cutoff": Parameter(2e-3, "a prompt is dropped below this p"),
            "draws": _DRAWS,
        },
    )
    register(
        "race",
        target="bench_plugins.strategies.race:Race",
        summary="drop a prompt as soon as its paired difference from the leader is significant",
        parameters={
            "delta": Parameter(0.02, "level of the bound; lower is safer and costs more"),
            "bound": Parameter("t", "t (fast), or betting or serfling (they need a span)"),
            "first": Parameter(4, "draws before the first look"),
            "growth": Parameter(8, "each round adds 1/growth of the draws seen so far"),
            "order": Parameter(
                "even", "levels to ask for first, such as 650-850,400-650 (bench learn-order)"
            ),
            "span": Parameter(
                0.0,
                "betting, serfling: the largest possible difference of two errors; 0: unknown, and"
                " nothing is promised",
            ),
            "draws": _DRAWS,
            "ceiling": replace(
                _CEILING,
                help="the most evaluation equivalents per image; adaptive: what adaptive's default"
                " takes on these draws; schedule: the same, and its decision where the bound gives"
                " none (default: none)",
                type=float | Literal["adaptive", "schedule"],
            ),
            "deviation": Parameter(
                0.0,
                "standard deviation of a difference between prompts on a draw, learned from other"
                " images (bench learn-order); 0: unknown",
                later=True,
            ),
        },
        default=True,
        safest_first=_SAFEST_FIRST,
    )
    register(
        "screen-race",
        target="bench_plugins.strategies.screen_race:ScreenRace",
        summary="rank all prompts by one gradient per draw, then race those that can still win",
        parameters={
            "reach": Parameter(
                1.5,
                "keep prompts within so many standard deviations of the best (bench learn-screen)",
            ),
            "samples": Parameter(4, "draws to linearise"),
            "screens": Parameter(1, "most screens; the second is at the mean of the kept prompts"),
            "delta": Parameter(0.02, "level of the race's bound; lower is safer and costs more"),
            "first": Parameter(4, "draws before the race's first look"),
            "growth": Parameter(8, "each round adds 1/growth of the draws seen so far"),
            "order": Parameter("even", "levels that the race asks for first"),
            "draws": _DRAWS,
            "ceiling": _CEILING,
        },
        safest_first=_SCREENS_SAFEST_FIRST,
    )
