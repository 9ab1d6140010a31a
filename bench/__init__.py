"""A plugin-based benchmarking toolkit for diffusion classifiers.

import bench

run = bench.run("digits", strategy="full", params={"draws": 50}, limit=60)
print(run.metrics.accuracy)
run.samples  # one row per image
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api import (
        classify,
        compare,
        leaderboard,
        load_backbone,
        load_dataset,
        load_run,
        load_study,
        metrics,
        prompts,
        run,
        tradeoff_figure,
    )
    from bench.contracts.hooks import hookimpl
    from bench.discovery.declared import register_modules, register_toml

__version__ = "0.1.0"
__all__ = [
    "classify",
    "compare",
    "hookimpl",
    "leaderboard",
    "load_backbone",
    "load_dataset",
    "load_run",
    "load_study",
    "metrics",
    "prompts",
    "register_modules",
    "register_toml",
    "run",
    "tradeoff_figure",
]
_ELSEWHERE = {
    "hookimpl": "bench.contracts.hooks",
    "register_modules": "bench.discovery.declared",
    "register_toml": "bench.discovery.declared",
}


def __getattr__(name: str) -> Any:
    """Import the Python interface on first use: plugins import this package at every start."""
    if name in __all__:
        return getattr(import_module(_ELSEWHERE.get(name, "bench.api")), name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names alone, which are imported on first use."""
    return sorted(__all__)
