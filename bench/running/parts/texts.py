"""The prompts of a run: from a file, its template, labels of the weights, or a tree of classes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.contracts.backbone import Denoiser
from bench.contracts.dataset import asks_for_images
from bench.contracts.specs import BackboneSpec, DatasetSpec
from bench.discovery.backbones import has_own
from bench.discovery.declaration_checks import PLACEHOLDER
from bench.errors import UserError, did_you_mean
from bench.inputs.hierarchy import read_hierarchy
from bench.inputs.items import ItemTable
from bench.inputs.prompts import (
    Prompts,
    from_file,
    from_labels,
    from_template,
    from_templates,
    make_columns,
    read_templates,
)
from bench.running.parts.decision import ConfiguredStrategy
from bench.running.parts.declaration import Chapter, Text, setting
from bench.running.parts.model import BackboneSource
from bench.store.formats.fields import without_none
from bench.store.formats.identity import digest, prompts_digest

Rule = Literal["best", "mean"]
_of_texts = partial(setting, "prompts", of_classes=True, learns=False)


class TextSettings(Chapter):
    """What is asked."""

    template: Text | list[Text] | None = _of_texts(
        identity="resolved", commands="prompts", most_used=True
    )
    """A prompt template with {class}, or a file of them, one per line; repeat for more (default:
    the dataset's)."""
    prompts: Text | None = _of_texts(
        identity="content",
        commands="prompts",
        excludes={"template": "the file contains complete prompts"},
    )
    """A CSV file of prompts with the columns prompt,classname,classidx; a class may have
    several."""
    template_rule: Rule = setting("score", default="best", identity="run", of_classes=True)
    """How the prompts of a class are combined into its score: best (the best prompt's score), or
    mean (of their errors)."""
    hierarchy: Text | None = setting(
        "prompts",
        identity="content",
        commands="study",
        ability="uses_hierarchy",
        excludes={
            "prompts": "the file has no prompts for inner nodes; use --template",
            "candidates_from": "a shortlist leaves out classes of the tree",
        },
    )
    """A tree of the classes, for strategies that descend one: CSV with the columns
    node,parent,words, or TOML."""
    candidates_from: Text | None = setting(
        "score",
        identity="content",
        of_split=True,
        excludes={"sweep": "a sweep records all classes"},
    )
    """A stored run on the same images or items; only its --top best classes, texts or images are
    scored."""
    top: int = setting(
        "score", default=5, identity="content", needs="candidates_from", of_split=True, gt=1
    )
    """Number of classes, texts or images that --candidates-from keeps."""


def find_template(config: TextSettings, backbone: BackboneSpec) -> str | list[str] | None:
    """Return the user's template, else the backbone's; None for the dataset's or a file."""
    return config.template or (None if config.prompts else backbone.template)


def make_prompts(
    config: TextSettings,
    dataset: DatasetSpec,
    source: BackboneSource,
    decider: ConfiguredStrategy,
    classes: tuple[str, ...],
) -> Prompts:
    """Return the run's prompts, from a file, the template or the dataset's template.

    For a strategy that descends a tree of classes, the prompts of its inner nodes follow.
    """
    if not decider.strategy.uses_hierarchy:
        return _class_prompts(config, dataset, source.spec, classes)
    name = decider.spec.name
    if config.hierarchy is None:
        raise UserError(
            f"Strategy {name!r} needs a tree of classes: --hierarchy FILE, a CSV file with the"
            " columns node,parent,words."
        )
    if source.spec.learns or source.spec.labels:
        raise UserError(
            f"Strategy {name!r} cannot be used: backbone {source.name!r} scores only the classes,"
            " not the inner nodes."
        )
    tree = read_hierarchy(Path(config.hierarchy), classes)
    prompts = _class_prompts(config, dataset, source.spec, (*classes, *tree.words))
    return replace(prompts, parents=tree.parents)


def _class_prompts(
    config: TextSettings, dataset: DatasetSpec, backbone: BackboneSpec, classes: tuple[str, ...]
) -> Prompts:
    if backbone.learns:
        return from_template(PLACEHOLDER, classes)
    if config.prompts:
        prompts = from_file(Path(config.prompts), classes)
    elif backbone.labels in dataset.labels and config.template is None:
        prompts = from_labels(dataset.labels[str(backbone.labels)], classes)
    elif (template := find_template(config, backbone)) is None:
        prompts = from_template(dataset.template, classes, dataset.phrases)
    else:
        values = [template] if isinstance(template, str) else template
        templates = read_templates(_with_sets(values, dataset))
        prompts = from_templates(templates, classes, dataset.phrases)
    # Refuses a rule that does not fit.
    make_columns(np.array(prompts.class_of_prompt), config.template_rule)
    return prompts


def _with_sets(values: Sequence[str], spec: DatasetSpec) -> list[str]:
    """Return the templates, each `@NAME` expanded to the dataset's set of that name."""
    for value in values:
        if value.startswith("@") and value[1:] not in spec.templates:
            sets = ", ".join(f"@{name}" for name in spec.templates) or "none"
            raise UserError(
                f"--template {value}: dataset {spec.name!r} has no such set of templates."
                f"{did_you_mean(value[1:], spec.templates)} It has: {sets}."
            )
    sets_of = {f"@{name}": texts for name, texts in spec.templates.items()}
    return [template for value in values for template in sets_of.get(value, (value,))]


def uneven_prompts_warning(config: TextSettings, prompts: Prompts) -> str | None:
    """Return a warning if each class has its best prompt's score, but not as many prompts."""
    counts = Counter(prompts.class_of_prompt).values()
    if config.template_rule != "best" or len(set(counts)) == 1:
        return None
    return (
        f"Classes have {min(counts)} to {max(counts)} prompts. A class gets the score of its best"
        " prompt, so classes with more prompts have an advantage."
    )


def text_score_warning(decider: ConfiguredStrategy, items: ItemTable) -> str | None:
    """Return a warning if the strategy allows no image and group scores of items."""
    images, texts = items.shapes[0]
    if images == 1 or texts == 1 or decider.strategy.same_draws:
        return None
    return (
        f"Strategy {decider.spec.name!r} compares texts of one image only: there"
        " will be a text score, but no image and group score, which compare errors across images."
        " --strategy full gives all three."
    )


def null_warning(subtracted: bool, backbone: BackboneSpec, items: ItemTable | None) -> str | None:
    """Return a warning if images are ranked for a text by errors that no null is subtracted from.

    Some images have a higher error whatever the text, and would be ranked by that.
    """
    if subtracted or items is None or not asks_for_images(*items.shapes[0]):
        return None
    if not has_own(backbone, Denoiser.encode_null):
        return None
    return (
        "Each text ranks images by their errors, some of which are higher whatever the text:"
        " --subtract-null subtracts the error of the null prompt, as published recalls of images"
        " do. The recall of this run is without it."
    )


def texts_identity(prompts: Prompts, items: ItemTable | None) -> dict[str, Any]:
    """Return the entries of the identity for texts and tree; the data's covers those of items."""
    tree = None if prompts.parents is None else digest({"tree": prompts.parents})
    texts = digest({"texts": "of each item"}) if items else prompts_digest(prompts.pairs)
    return {"prompts": texts, **without_none(hierarchy=tree)}
