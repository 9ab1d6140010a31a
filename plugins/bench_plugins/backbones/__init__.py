"""Register the first-party backbones: generative models, CLIP-like classifiers and baselines.

`models.toml`, `autoregressive.toml` and `classifiers.toml` declare the models with published
weights. Diffusion models are run by the pipelines of diffusers; see `pipeline` and `families`.
"""

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import hookimpl
from bench.contracts.specs import Parameter

# An environment variable, because transformers warns even while diffusers is imported.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

_PARAMETERS: dict[str, Any] = {
    "normalize": Parameter(
        "half", "half: pixels in [-1, 1]; cifar10: that of the published notebook"
    ),
    "resolution": Parameter(None, "image side in pixels; None: the model's own", type=int),
}
_PARAMETER_TYPES = {"int": int, "float": float, "str": str}
# A classifier has a single draw, and with one draw every strategy equals `full`.
_CLASSIFIER: dict[str, Any] = {"scorer": "classifier", "strategy": "full", "draws": 1}
_TOKENS: dict[str, Any] = {
    "scorer": "likelihood",
    "strategy": "full",
    "draws": 1,  # of an image, or of each of its --views: the tokens are in a fixed order
    "requires": "transformers>=5.4",
    "parameters": {
        "guidance": Parameter(
            1.0, "scale of the prompt against the null prompt; 1: the prompt alone"
        ),
        "relative": Parameter(False, "error is −log p(image | prompt) + log p(image)"),
    },
}
_SEED: dict[str, Any] = {"seed": Parameter(0, "the backbone's own seed; --seed is for the noise")}


@hookimpl
def register_backbones(register: Callable[..., None]) -> None:
    """Register the backbones."""
    _register_declared(register, _read("models.toml"), parameters=_PARAMETERS)
    classifiers = _read("classifiers.toml")
    _register_declared(register, classifiers, **_CLASSIFIER)
    _register_declared(register, _read("autoregressive.toml"), **_TOKENS)
    register(
        "tokens",
        target=_target("autoregressive:LiveAutoregressive"),
        summary="a pipeline object of transformers with Janus or Emu3, in Python: backbone=pipe",
        trained_on="unknown",
        objects=("transformers.AnyToAnyPipeline", "transformers.ImageTextToTextPipeline"),
        **_TOKENS,
    )
    register(
        "random",
        target=_target("learned:Random"),
        summary="random guesses, the chance baseline",
        trained_on=None,
        parameters=_SEED,
        **_CLASSIFIER,
    )
    register(
        "majority",
        target=_target("learned:Majority"),
        summary="always predicts the most frequent class of the split it is fitted on",
        learns=True,
        **_CLASSIFIER,
    )
    weights = {name: model["weights"] for name, model in classifiers["models"].items()}
    _register_learners(register, {**weights, **classifiers["features"]})


def _register_declared(
    register: Callable[..., None], declared: Mapping[str, Any], **shared: Any
) -> None:
    """Register each model in a TOML file, and each family for weights of the user's own.

    `shared` are fields of all specs; those in the file take precedence.
    """
    families: dict[str, Any] = {}
    for name, declaration in declared["families"].items():
        target = _target(declaration["target"])
        family = {**shared, **declaration, "family": name, "target": target}
        own, models = family.pop("own"), family.pop("models", {})
        if "parameters" in declaration:
            parameters = _parameters(declaration["parameters"])
            family["parameters"] = {**shared["parameters"], **parameters}
        own |= {key: tuple(value) for key, value in own.items() if isinstance(value, list)}
        register(own.pop("name", name), trained_on="unknown", **{**family, **own})
        # By default a model is zero-shot: it was not trained on a benchmark's images.
        families[name] = {"trained_on": None, **family, **models}
    for name, model in declared["models"].items():
        register(name, **{**families[model["family"]], **model})


def _register_learners(register: Callable[..., None], weights: dict[str, str]) -> None:
    """Register the classifiers that learn. `weights` maps names of features to weights."""
    choices = f"{', '.join(weights)}; embedding: the model that --weights names"
    parameters: dict[str, Any] = {
        "features": Parameter("pixels", f"pixels, or image embeddings of a model: {choices}"),
        "resolution": Parameter(
            None, "image side in pixels for features=pixels; None: 16", type=int
        ),
    }
    learner = {"learns": True, "weights_by": {"features": weights}, **_CLASSIFIER}
    register(
        "nearest-mean",
        target=_target("learned:NearestMean"),
        summary="nearest class mean of features; without weights, of pixels",
        parameters=parameters,
        **learner,
    )
    register(
        "linear-probe",
        target=_target("learned:LinearProbe"),
        summary="cross-validated logistic regression on features; without weights, of pixels",
        parameters={**parameters, **_SEED},
        **learner,
    )


def declared_pipelines(family: str) -> tuple[str, ...]:
    """Return the names of a family's pipeline classes, the most common one first."""
    return tuple(_read("models.toml")["families"][family]["own"]["pipelines"])


def _parameters(declared: Mapping[str, Any]) -> dict[str, Parameter]:
    types = {name: _PARAMETER_TYPES.get(fields.get("type")) for name, fields in declared.items()}
    return {
        name: Parameter(**{"default": None, **fields, "type": types[name]})
        for name, fields in declared.items()
    }


def _target(module_and_class: str) -> str:
    return f"{__name__}.{module_and_class}"


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(name).read_text("utf-8"))
