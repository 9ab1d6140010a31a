"""Find the labels of class names, for class-conditional models such as DiT."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

from bench.errors import UserError

IMAGENET_CLASSES = 1000  # a model with as many is assumed to have ImageNet's, in WordNet order


def labels_of(who: str, count: int, names: Mapping[Any, Any], texts: Sequence[str]) -> list[int]:
    """Return the label of each text, a class number or name. Raises UserError if it is neither.

    The model `who` has `count` classes; `names` are those of its pipeline (label → names, as an
    index has them, or name → label, as an object has). With 1,000 classes, it has ImageNet's too.
    """
    labels_by_name: dict[str, set[int]] = {}
    for name, label in _pairs(names):
        labels_by_name.setdefault(_normalised(name), set()).add(label)
    if count == IMAGENET_CLASSES:
        labels_by_name |= {name: {label} for name, label in _imagenet().items()}
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
                f"{who} is class-conditional: {text!r:.100} {problem}. It cannot score a dataset"
                " with other classes."
            )
        labels += matches
    return labels


def _pairs(names: Mapping[Any, Any]) -> Iterator[tuple[str, int]]:
    for key, value in names.items():
        if isinstance(value, int):
            yield str(key), value
        else:
            yield from ((name, int(key)) for name in {value, *value.split(",")})


@lru_cache(maxsize=1)
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
