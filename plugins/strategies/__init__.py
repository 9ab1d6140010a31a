"""Strategies: each decides which cells are evaluated, and when an image is decided."""

from __future__ import annotations

from collections.abc import Callable

from bench import hookimpl
from bench.contracts.specs import Parameter

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
        "full-linearised",
        target="bench_plugins.strategies.full:FullLinearised",
        summary="full with every draw linearised too: what replays of screening need, recorded",
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
            "schedule": Parameter(
                None, "the paper's own for a dataset, such as pets, instead of samples and keep"
            ),
        },
    )
    register(
        "uniform",
        target="bench_plugins.strategies.uniform:Uniform",
        summary="a few draws of every prompt, evenly spread",
        parameters={"samples": Parameter(50, "draws a prompt"), "draws": _DRAWS},
    )
    register(
        "halving",
        target="bench_plugins.strategies.halving:Halving",
        summary="sequential halving: keep the better half of the prompts, on a fixed budget",
        parameters={
            "budget": Parameter(40, "evaluations an image, divided by the number of prompts"),
            "draws": _DRAWS,
        },
    )
    register(
        "paired-ttest",
        target="bench_plugins.strategies.paired_ttest:PairedTTest",
        summary="Clark & Jaini: drop prompts that a paired t-test tells from the best",
        parameters={
            "min_scores": Parameter(20, "draws before the first test"),
            "cutoff": Parameter(2e-3, "p below which a prompt is dropped"),
            "draws": _DRAWS,
        },
    )
    register(
        "race",
        target="bench_plugins.strategies.race:Race",
        summary="drop prompts whose paired difference from the leader is beyond doubt",
        parameters={
            "delta": Parameter(0.02, "level of the bound; lower is surer and dearer"),
            "bound": Parameter("t", "t (fast), betting or serfling (guaranteed)"),
            "first": Parameter(4, "draws before the first look"),
            "growth": Parameter(8, "a round adds a growth-th of the draws seen so far"),
            "order": Parameter("even", "timesteps to ask for first, such as 650-850,400-650"),
            "span": Parameter(
                0.0, "the largest difference of two errors, where guaranteed; 0: unknown"
            ),
            "draws": _DRAWS,
        },
        default=True,
    )
    register(
        "screen-race",
        target="bench_plugins.strategies.screen_race:ScreenRace",
        summary="rank all prompts by one gradient a draw, race those that could still win",
        parameters={
            "reach": Parameter(
                1.5, "keep prompts so many standard deviations from the best (bench learn-screen)"
            ),
            "samples": Parameter(4, "draws to linearise"),
            "screens": Parameter(1, "screens at the most; the second at the mean of who is left"),
            "delta": Parameter(0.02, "level of the race's bound; lower is surer and dearer"),
            "first": Parameter(4, "draws before the race's first look"),
            "growth": Parameter(8, "a round adds a growth-th of the draws seen so far"),
            "order": Parameter("even", "timesteps that the race asks for first"),
            "draws": _DRAWS,
        },
    )
