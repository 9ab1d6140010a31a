"""Labels of a model that takes classes, such as those of ImageNet, instead of texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._parts import PIPELINE_INDEX

IMAGENET = 1000  # classes, in the order of their WordNet ids


def labels_of(weights: Weights, texts: Sequence[str]) -> list[int]:
    """Return the label of each text.

    Raises:
        UserError: a text names no class of the model, or two.
    """
    count, names = _names(weights)
    chosen: list[int] = []
    for text in texts:
        word = _plain(text)
        labels = {int(word)} if word.isdecimal() else names.get(word, set())
        if len(labels) != 1 or not max(labels) < count:
            which = " and ".join(map(str, sorted(labels))) if len(labels) > 1 else ""
            problem = (
                f"is the name of the classes {which}; write the number"
                if which
                else f"is not one of its {count} classes: it takes their numbers, from 0, and the"
                f" {len(names)} names that are known"
            )
            raise UserError(
                f"The weights {weights.location} are a model of class labels: {text!r:.100}"
                f" {problem}. A dataset with other classes cannot be scored with it."
            )
        chosen += labels
    return chosen


@lru_cache(maxsize=2)
def _names(weights: Weights) -> tuple[int, dict[str, set[int]]]:
    """Return the number of classes, and the labels of each name in the pipeline's index."""
    name = "transformer/config.json"
    count = weights.read(name).get("num_embeds_ada_norm")
    if not isinstance(count, int) or count < 1:
        raise weights.error(name, f"has num_embeds_ada_norm {count!r:.100}; expected classes")
    index = weights.read(PIPELINE_INDEX) if weights.find(PIPELINE_INDEX) else {}
    names_by_label = index.get("id2label") or {}
    if not isinstance(names_by_label, dict):
        raise weights.error(
            PIPELINE_INDEX, "has an id2label that is not an object of names by label"
        )
    labels_by_name: dict[str, set[int]] = {}
    for label, names in names_by_label.items():
        if not str(label).isdecimal() or int(label) >= count or not isinstance(names, str):
            raise weights.error(
                PIPELINE_INDEX, f"names label {label!r:.100}, which is not one of {count}"
            )
        for word in [names, *names.split(",")]:
            labels_by_name.setdefault(_plain(word), set()).add(int(label))
    if count == IMAGENET:
        labels_by_name.update({name: {label} for name, label in _imagenet().items()})
    return count, labels_by_name


def _imagenet() -> dict[str, int]:
    folder = files("bench_plugins.datasets") / "declared"
    return {
        _plain(name): label
        for file in ("imagenet_classes.txt", "imagenet_wnids.txt")
        for label, name in enumerate((folder / file).read_text("utf-8").split("\n")[:IMAGENET])
    }


def _plain(text: str) -> str:
    """Return a name without case, underscores and article."""
    words = text.replace("_", " ").replace("-", " ").lower().split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)
