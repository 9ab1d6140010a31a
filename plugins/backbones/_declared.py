"""Registration of the models that `models.toml` and `classifiers.toml` declare, and baselines."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.contracts.specs import Parameter

_ROOM = "bench_plugins.backbones"
_PARAMETER_TYPES = {"int": int, "float": float, "str": str}
_FAMILY_KEYS = (
    "dtype", "requires", "telling", "template", "labels", "trained_on", "version", "correction",
)  # fmt: skip
# One draw, so that every strategy does the same; `full` says it most plainly.
_CLASSIFIER: dict[str, Any] = {"scorer": "classifier", "strategy": "full", "draws": 1}
_SEED: dict[str, Any] = {"seed": Parameter(0, "seed of its own; --seed is that of the noise")}


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(name).read_text("utf-8"))


def register_families(register: Callable[..., None], shared: Mapping[str, Parameter]) -> None:
    """Register the folders of each family, and each model; all have the parameters `shared`."""
    declared = _read("models.toml")
    for name, family in declared["families"].items():
        register(
            family.get("folder", f"folder-{name}"),
            summary=f"any {family['title']} pipeline folder: --backbone ./folder",
            trained_on="unknown",
            pipelines=tuple(family["pipelines"]),
            **_family_fields(name, family, shared),
        )
    for name, model in declared["models"].items():
        # Zero-shot unless it says otherwise: images from the web, none of a dataset's own.
        family = declared["families"][model["family"]]
        fields = _family_fields(model["family"], family, shared)
        register(name, **{"trained_on": None, **fields, **family.get("models", {}), **model})


def _family_fields(
    name: str, family: Mapping[str, Any], shared: Mapping[str, Parameter]
) -> dict[str, Any]:
    own = {
        key: Parameter(
            stated.get("default"),
            stated["help"],
            _PARAMETER_TYPES[stated["type"]] if "type" in stated else None,
            stated.get("later", False),
        )
        for key, stated in family.get("parameters", {}).items()
    }
    return {
        "target": f"{_ROOM}.{family['target']}",
        "family": name,
        "parameters": {**shared, **own},
        **{key: family[key] for key in _FAMILY_KEYS if key in family},
    }


def register_classifiers(register: Callable[..., None]) -> None:
    """Register classifiers for weights of the user's own, declared ones, baselines and learners."""
    declared = _read("classifiers.toml")
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
        family = declared["families"][model["family"]]
        fields = {"target": f"{_ROOM}.{family['target']}", "trained_on": None, **_CLASSIFIER}
        register(name, **{**fields, **family.get("models", {}), **model})
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
    weights = {name: model["weights"] for name, model in declared["models"].items()}
    _register_learners(register, {**weights, **declared["features"]})


def _register_learners(register: Callable[..., None], weights: dict[str, str]) -> None:
    named = f"{', '.join(weights)}; embedding: the model that --weights names"
    parameters: dict[str, Any] = {
        "features": Parameter(
            "pixels", f"what is learned from: pixels, or image embeddings: {named}"
        ),
        "resolution": Parameter(None, "side of the square of pixels; None: 16", type=int),
    }
    learner = {"learns": True, "weights_by": {"features": weights}, **_CLASSIFIER}
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
