"""The classifiers and baselines that stand in the same table as diffusion models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.contracts.specs import Parameter

_ROOM = "bench_plugins.backbones"
# One draw, so that every strategy does the same; `full` says it most plainly.
_CLASSIFIER: dict[str, Any] = {"scorer": "classifier", "strategy": "full", "draws": 1}
_FEATURES: dict[str, Any] = {
    "features": Parameter("pixels", "what is learned from: pixels"),
    "resolution": Parameter(None, "side of the square of pixels; None: 16", type=int),
}
_SEED: dict[str, Any] = {"seed": Parameter(0, "seed of its own; --seed is that of the noise")}


def register_classifiers(register: Callable[..., None]) -> None:
    """Register them; nothing is imported for that."""
    register(
        "random",
        target=f"{_ROOM}.chance:Random",
        summary="guesses: the row of chance",
        trained_on=None,
        parameters=_SEED,
        **_CLASSIFIER,
    )
    register(
        "majority",
        target=f"{_ROOM}.chance:Majority",
        summary="always the most frequent class of the split it is fitted on",
        learns=True,
        **_CLASSIFIER,
    )
    register(
        "nearest-mean",
        target=f"{_ROOM}.learned:NearestMean",
        summary="the class whose mean features are nearest; of pixels, without any weights",
        learns=True,
        parameters=_FEATURES,
        **_CLASSIFIER,
    )
    register(
        "linear-probe",
        target=f"{_ROOM}.learned:LinearProbe",
        summary="logistic regression on features, cross-validated; of pixels, without any weights",
        learns=True,
        parameters={**_FEATURES, **_SEED},
        **_CLASSIFIER,
    )
