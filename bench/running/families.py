"""Which backbone loads a pipeline's folder: what its `model_index.json` says decides."""

from __future__ import annotations

from pathlib import Path

from bench.contracts.specs import BackboneSpec
from bench.discovery.registry import Registry
from bench.errors import AbsentError, UserError
from bench.inputs.weight_files import find_file, read_object
from bench.inputs.weights import locate, resolve

INDEX = "model_index.json"


def family_of(weights: str, revision: str | None, registry: Registry[BackboneSpec]) -> str | None:
    """Return the name of the backbone for a pipeline; None where the pipeline does not say.

    Args:
        weights: a folder, or a Hub id.
        revision: of the Hub.
        registry: the backbones.

    Raises:
        UserError: it is of a family that no backbone loads; it says which there are.
    """
    said = _pipeline(weights, revision)
    if said is None:
        return None
    known = {name: spec for spec in registry if spec.takes_folders for name in spec.pipelines}
    if said not in known:
        names = ", ".join(sorted(known))
        raise UserError(
            f"{weights}: {INDEX} says _class_name {said!r:.100}, which no backbone loads. Folders"
            f" of these are loaded: {names}."
        )
    return known[said].name


def _pipeline(weights: str, revision: str | None) -> str | None:
    """Return the class that the index names; None where there is no index, or not yet."""
    location = locate(weights)
    if Path(location).is_absolute():
        path = find_file(Path(location), INDEX)
    else:
        try:
            path = resolve(weights, revision).find(INDEX)
        except AbsentError:  # which is said where the weights are looked for
            return None
    if path is None:
        return None
    said = read_object(path, f"{weights}: {INDEX}").get("_class_name")
    return said if isinstance(said, str) else None
