"""Registration of the families and models that `models.toml` declares."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.contracts.specs import Parameter

TYPES = {"int": int, "float": float, "str": str}
FILE = Path(__file__).with_name("models.toml")


def register_families(register: Callable[..., None], shared: Mapping[str, Parameter]) -> None:
    """Register each family's folders, and each model.

    Args:
        register: the toolkit's.
        shared: parameters that every family has.
    """
    declared = tomllib.loads(FILE.read_text("utf-8"))
    for name, family in declared["families"].items():
        register(
            family.get("folder", f"folder-{name}"),
            summary=f"any {family['title']} pipeline folder: --backbone ./folder",
            trained_on="unknown",
            pipelines=tuple(family["pipelines"]),
            **_of_family(name, family, shared),
        )
    for name, model in declared["models"].items():
        # Zero-shot unless it says otherwise: images from the web, none of a dataset's own.
        own = {key: value for key, value in model.items() if key != "family"}
        of_family = _of_family(model["family"], declared["families"][model["family"]], shared)
        register(name, **{"trained_on": None, **of_family, **own})


def _of_family(
    name: str, family: Mapping[str, Any], shared: Mapping[str, Parameter]
) -> dict[str, Any]:
    own = {
        key: Parameter(
            given.get("default"),
            given["help"],
            TYPES[given["type"]] if "type" in given else None,
            given.get("later", False),
        )
        for key, given in family.get("parameters", {}).items()
    }
    kept = (
        "dtype",
        "requires",
        "telling",
        "template",
        "labels",
        "trained_on",
        "version",
        "correction",
    )
    return {
        "target": f"bench_plugins.backbones.{family['target']}",
        "family": name,
        "parameters": {**shared, **own},
        **{key: family[key] for key in kept if key in family},
    }
