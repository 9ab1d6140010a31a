"""The classifiers and baselines that stand in the same table as diffusion models."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.contracts.specs import Parameter

FILE = Path(__file__).with_name("classifiers.toml")
_ROOM = "bench_plugins.backbones"
# One draw, so that every strategy does the same; `full` says it most plainly.
_CLASSIFIER: dict[str, Any] = {"scorer": "classifier", "strategy": "full", "draws": 1}
_SEED: dict[str, Any] = {"seed": Parameter(0, "seed of its own; --seed is that of the noise")}


def register_classifiers(register: Callable[..., None]) -> None:
    """Register them; nothing is imported for that."""
    declared = tomllib.loads(FILE.read_text("utf-8"))
    _register_models(register, declared)
    _register_baselines(register)
    known = {name: model["weights"] for name, model in declared["models"].items()}
    _register_learners(register, {**known, **declared["features"]})


def _register_models(register: Callable[..., None], declared: dict[str, Any]) -> None:
    """Register each family for weights of the user's own, and each model."""
    for name, family in declared["families"].items():
        register(
            name,
            target=f"{_ROOM}.{family['target']}",
            summary=f"{family['title']} with weights of your own: --weights FOLDER-OR-HUB-ID",
            family=name,
            trained_on="unknown",
            **_CLASSIFIER,
        )
    for name, model in declared["models"].items():
        target = declared["families"][model["family"]]["target"]
        # Zero-shot unless it says otherwise: images from the web, none of a dataset's own.
        given = {"trained_on": None, **_CLASSIFIER, **model}
        register(name, target=f"{_ROOM}.{target}", **given)


def _register_baselines(register: Callable[..., None]) -> None:
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


def _register_learners(register: Callable[..., None], known: dict[str, str]) -> None:
    named = f"{', '.join(known)}; embedding: the model that --weights names"
    parameters: dict[str, Any] = {
        "features": Parameter(
            "pixels", f"what is learned from: pixels, or image embeddings: {named}"
        ),
        "resolution": Parameter(None, "side of the square of pixels; None: 16", type=int),
    }
    learner = {"learns": True, "weights_by": {"features": known}, **_CLASSIFIER}
    register(
        "nearest-mean",
        target=f"{_ROOM}.learned:NearestMean",
        summary="the class whose mean features are nearest; of pixels, without any weights",
        parameters=parameters,
        **learner,
    )
    register(
        "linear-probe",
        target=f"{_ROOM}.learned:LinearProbe",
        summary="logistic regression on features, cross-validated; of pixels, without any weights",
        parameters={**parameters, **_SEED},
        **learner,
    )
