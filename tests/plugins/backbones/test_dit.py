"""How a DiT finds its label: numbers, WordNet ids, ImageNet's names; and ObjectNet's classes."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from helpers.command import bench
from helpers.refusals import refused

from bench.discovery.loading import load_plugins
from bench_plugins.backbones._pipelines.labels import labels_of

IMAGENET = load_plugins().datasets.get("imagenet")
OBJECTNET = load_plugins().datasets.get("objectnet")


def found(texts: Iterable[Any], **names: str) -> list[int]:
    """Return what a model of 1,000 labels, with these names, finds."""
    return labels_of("It", 1000, names, list(texts))


def test_numbers_wordnet_ids_and_the_dataset_s_names_are_labels() -> None:
    assert IMAGENET.classes is not None and len(IMAGENET.found) == 1000
    for spelt in (map(str, range(1000)), IMAGENET.found, IMAGENET.classes):
        assert found(spelt) == list(range(1000))


def test_imagenet_s_own_names_are_labels() -> None:
    """As torchvision lists them; the pipeline's index holds names of this kind."""
    names = pytest.importorskip("torchvision.models._meta")._IMAGENET_CATEGORIES
    own = {str(label): name for label, name in enumerate(names)}
    count = Counter(name.lower() for name in names)
    ours = {str(name).lower() for name in IMAGENET.classes or ()}
    for label, name in enumerate(names):
        if count[name.lower()] == 1 and name.lower() not in ours:
            assert found([name], **own) == [label]
    # The dog and the garment share a name, which the datasets' list has for the garment.
    assert [label for label, name in enumerate(names) if name.lower() == "cardigan"] == [264, 474]
    assert found(["cardigan", "Cardigan Welsh Corgi"], **own) == [474, 264]
    with refused("7 and 8"):
        found(["thing"], **{"7": "a thing", "8": "thing"})
    with refused("not one of its 20 classes"):
        labels_of("It", 20, {"99": "a thing"}, ["thing"])


def test_objectnet_s_113_classes_are_125_labels() -> None:
    asked = bench("prompts", "objectnet", "--backbone", "dit-256", "--json").json
    assert len(asked) == 125 and len({row["class"] for row in asked}) == 113
    labels = found(row["prompt"] for row in asked)
    assert len(set(labels)) == 125 and IMAGENET.classes is not None
    of: dict[str, set[str]] = {}
    for row, label in zip(asked, labels, strict=True):
        of.setdefault(row["class"], set()).add(IMAGENET.classes[label])
    assert of["skirt"] == {"hoop skirt", "miniskirt", "overskirt"} and of["wok"] == {"wok"}
    # A name that both have means the same label, but for the cup and the clothes iron.
    both = set(OBJECTNET.classes or ()) & set(IMAGENET.classes)
    assert len(both) > 50 and all(name in of[name] for name in both)
    plain = bench("prompts", "objectnet", "--backbone", "sd21", "--json").json
    assert plain[0]["prompt"] == "a photo of an alarm clock." and len(plain) == 113
