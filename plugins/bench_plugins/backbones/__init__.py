"""Register the first-party backbones: generative models, CLIP-like classifiers and baselines.

`models.toml`, `autoregressive.toml`, `masked.toml` and `classifiers.toml` declare all of them.
Diffusion models are run by the pipelines of diffusers; see `pipeline` and `families`.
"""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import hookimpl
from bench.contracts.specs import Parameter
from bench_plugins.backbones._facts import facts_of

_PARAMETER_TYPES = {"int": int, "float": float, "str": str}


@hookimpl
def register_backbones(register: Callable[..., None]) -> None:
    """Register each model that a TOML file declares, and each family for weights of the user's own.

    By default a model is zero-shot: it was not trained on a benchmark's images.
    """
    for file in ("models.toml", "classifiers.toml", "autoregressive.toml", "masked.toml"):
        declared = _read(file)
        models, shared = declared["models"], declared["shared"]
        weights = {name: model["weights"] for name, model in models.items() if "weights" in model}
        weights |= declared.get("features", {})
        families: dict[str, Any] = {}
        for name, family in declared["families"].items():
            own, of_models = family.pop("own"), family.pop("models", {})
            facts = facts_of(next(iter(own.get("pipelines", ())), ""))
            family.update({"dtype": facts.half} if facts and facts.half else {})
            user = {"name": name, "family": name, "trained_on": "unknown", **own}
            register(**_fields(weights, shared, family, user))
            families[name] = {**family, **of_models}
        for name, model in models.items():
            family = families.get(model.get("family"), {})
            model = {"name": name, **model}
            register(**_fields(weights, {"trained_on": None}, shared, family, model))


def _fields(weights: Mapping[str, str], *tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a spec; later tables take precedence, and add parameters.

    `weights` are those of each value of the parameter `features`.
    """
    fields: dict[str, Any] = {key: value for table in tables for key, value in table.items()}
    fields = {k: tuple(value) if isinstance(value, list) else value for k, value in fields.items()}
    parameters = {k: v for table in tables for k, v in table.get("parameters", {}).items()}
    fields["parameters"] = {name: _parameter(weights, **p) for name, p in parameters.items()}
    if "features" in parameters:
        fields["weights_by"] = {"features": weights}
    return {**fields, "target": f"{__name__}.{fields['target']}"}


def _parameter(weights: Mapping[str, str], **declared: Any) -> Parameter:
    text = declared["help"].replace("{features}", ", ".join(weights))
    kind = _PARAMETER_TYPES.get(declared.get("type", ""))
    return Parameter(**{"default": None, **declared, "help": text, "type": kind})


def declared_pipelines(family: str) -> tuple[str, ...]:
    """Return the names of a family's pipeline classes, the most common one first."""
    return tuple(_read("models.toml")["families"][family]["own"]["pipelines"])


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(name).read_text("utf-8"))
