"""Find the labels of class names, for class-conditional models such as DiT."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._components import PIPELINE_INDEX

IMAGENET_CLASSES = 1000  # a model with as many is assumed to have ImageNet's, in WordNet order


def labels_of(weights: Weights, texts: Sequence[str]) -> list[int]:
    """Return the label of each text, a class number or name. Raises UserError if it is neither."""
    return _labels(f"The weights {weights.location} are", *_names(weights), texts)


def labels_in_memory(pipe: Any, texts: Sequence[str]) -> list[int]:
    """Return the label of each text, as `labels_of` does, for a pipeline with its own names."""
    count = int(pipe.transformer.config.num_embeds_ada_norm)
    names = {_normalised(name): {int(label)} for name, label in pipe.labels.items()}
    if count == IMAGENET_CLASSES:
        names |= {name: {label} for name, label in _imagenet().items()}
    return _labels(f"The pipeline {type(pipe).__name__} is", count, names, texts)


def _labels(
    who: str, count: int, labels_by_name: Mapping[str, set[int]], texts: Sequence[str]
) -> list[int]:
    labels: list[int] = []
    for text in texts:
        name = _normalised(text)
        matches = {int(name)} if name.isdecimal() else labels_by_name.get(name, set())
        if len(matches) != 1 or not max(matches) < count:
            numbers = " and ".join(map(str, sorted(matches))) if len(matches) > 1 else ""
            problem = (
                f"is the name of the classes {numbers}; use the number"
                if numbers
                else f"is not one of its {count} classes. Use a number from 0 to {count - 1} or one"
                f" of its {len(labels_by_name)} names"
            )
            raise UserError(
                f"{who} a class-conditional model: {text!r:.100} {problem}. It cannot score a"
                " dataset with other classes."
            )
        labels += matches
    return labels


@lru_cache(maxsize=2)
def _names(weights: Weights) -> tuple[int, dict[str, set[int]]]:
    """Return the number of classes, and the labels of each name.

    Names are those of the pipeline's index and, with 1,000 classes, of ImageNet.
    """
    name = "transformer/config.json"
    count = weights.read(name).get("num_embeds_ada_norm")
    if not isinstance(count, int) or count < 1:
        raise weights.error(
            name, f"has num_embeds_ada_norm {count!r:.100}; expected the number of classes"
        )
    index = weights.read(PIPELINE_INDEX) if weights.find(PIPELINE_INDEX) else {}
    names_by_label = index.get("id2label") or {}
    if not isinstance(names_by_label, dict):
        raise weights.error(PIPELINE_INDEX, "has an id2label that is not a JSON object")
    labels_by_name: dict[str, set[int]] = {}
    for label, names in names_by_label.items():
        if not str(label).isdecimal() or int(label) >= count or not isinstance(names, str):
            raise weights.error(
                PIPELINE_INDEX,
                f"has the label {label!r:.100} in id2label; expected numbers from 0 to"
                f" {count - 1}, each with the name of a class",
            )
        for name in [names, *names.split(",")]:
            labels_by_name.setdefault(_normalised(name), set()).add(int(label))
    if count == IMAGENET_CLASSES:
        labels_by_name.update({name: {label} for name, label in _imagenet().items()})
    return count, labels_by_name


def _imagenet() -> dict[str, int]:
    folder = files("bench_plugins.datasets") / "declared"
    return {
        _normalised(name): label
        for file in ("imagenet_classes.txt", "imagenet_wnids.txt")
        for label, name in enumerate(
            (folder / file).read_text("utf-8").split("\n")[:IMAGENET_CLASSES]
        )
    }


def _normalised(text: str) -> str:
    """Return a name in lower case, with spaces for underscores and hyphens, without article."""
    words = text.replace("_", " ").replace("-", " ").lower().split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)
