"""The texts of a run: the prompts of its classes, or those of its items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.contracts.dataset import asks_for_images
from bench.contracts.specs import DatasetSpec
from bench.errors import UserError, did_you_mean
from bench.inputs.items import ItemRows, ItemTable
from bench.inputs.prompts import PLACEHOLDER, Prompts, from_file, from_labels, from_template
from bench.inputs.split import Split
from bench.inputs.subsets import limited
from bench.inputs.templates import from_templates, make_columns, read_templates
from bench.running.resolve import Resolved
from bench.running.scorers import kind_of
from bench.running.settings import RunConfig
from bench.store.documents import Items


def item_texts(resolved: Resolved, split: Split) -> Prompts:
    """Return the texts of the items asked for, each once.

    Raises:
        UserError: a setting or the strategy cannot serve items.
    """
    assert split.items is not None
    check_items(resolved, split.items.table)
    asked = limited(split.sample_ids, split.labels, resolved.config.limit)
    return split.items.pool(asked)


def make_prompts(resolved: Resolved, classes: tuple[str, ...]) -> Prompts:
    """Return the run's prompts, from the file, the template or the dataset's template."""
    config, spec = resolved.config, resolved.dataset
    if resolved.backbone.learns:
        return from_template(PLACEHOLDER, classes)
    if config.prompts:
        prompts = from_file(Path(config.prompts), classes)
    elif resolved.backbone.labels in spec.labels and config.template is None:
        prompts = from_labels(spec.labels[str(resolved.backbone.labels)], classes)
    elif (template := resolved.template) is None:
        prompts = from_template(spec.template, classes, spec.phrases)
    else:
        given = [template] if isinstance(template, str) else template
        prompts = from_templates(read_templates(_of_sets(given, spec)), classes, spec.phrases)
    _check_rule(resolved, prompts)
    return prompts


def _of_sets(given: Sequence[str], spec: DatasetSpec) -> list[str]:
    """Return the templates, `@NAME` replaced by those of the dataset's set of that name."""
    templates: list[str] = []
    for value in given:
        if not value.startswith("@"):
            templates.append(value)
            continue
        if value[1:] not in spec.templates:
            sets = ", ".join(f"@{name}" for name in spec.templates) or "none"
            raise UserError(
                f"--template {value}: dataset {spec.name!r} has no such set of templates."
                f"{did_you_mean(value[1:], spec.templates)} It has: {sets}."
            )
        templates += spec.templates[value[1:]]
    return templates


def _check_rule(resolved: Resolved, prompts: Prompts) -> None:
    """Refuse a rule that these prompts do not allow."""
    rule = resolved.config.template_rule
    if rule == "spread" and kind_of(resolved).one_draw:
        raise UserError(
            f"--template-rule spread: {resolved.backbone_name!r} is a classifier, which has one"
            " draw; use mean or best."
        )
    make_columns(np.array(prompts.class_of_prompt), rule, 1)


def uneven_counts(config: RunConfig, prompts: Prompts) -> list[str]:
    """Say so where a class has more prompts than another, and the best one counts."""
    counts = Counter(prompts.class_of_prompt).values()
    if config.template_rule != "best" or len(set(counts)) == 1:
        return []
    return [
        f"Classes have {min(counts)} to {max(counts)} prompts. A class is as good as its best"
        " prompt, so those with more have an advantage."
    ]


def check_items(resolved: Resolved, table: ItemTable) -> None:
    """Refuse what cannot be used with these items.

    Raises:
        UserError: a setting is about classes, or the strategy cannot decide such items.
    """
    config, name = resolved.config, resolved.dataset.name
    given = {
        "--template": config.template is not None,
        "--template-rule": config.template_rule != "best",
        "--prompts": config.prompts is not None,
        "--class-names": config.class_names is not None,
        "--skip-unlabelled": config.skip_unlabelled,
    }
    for option in (option for option, said in given.items() if said):
        raise UserError(
            f"{option} is about classes, and every item of dataset {name!r} has texts of its own."
        )
    strategy = resolved.strategy_spec.name
    if resolved.strategy.linearises:
        raise UserError(
            f"Strategy {strategy!r} linearises at a mixture of prompts that all images share, and"
            f" every item of dataset {name!r} has texts of its own. `race` needs no gradients."
        )
    if asks_for_images(*table.shapes[0]) and not resolved.strategy.same_draws:
        raise UserError(
            f"The items of dataset {name!r} ask which image fits a text. Strategy {strategy!r}"
            " gives up texts of one image, and does not compare images. Use --strategy full."
        )


def warn_of_items(resolved: Resolved, split: Split) -> list[str]:
    """Say so where the strategy serves the text score alone."""
    assert split.items is not None
    images, texts = split.items.table.shapes[0]
    if images == 1 or texts == 1 or resolved.strategy.same_draws:
        return []
    return [
        f"Strategy {resolved.strategy_spec.name!r} gives up texts of one image before others: there"
        " will be a text score, and no image and group score, which compare errors across images."
        " --strategy full gives all three."
    ]


def describe_items(resolved: Resolved, items: ItemRows, pool: Prompts) -> Items:
    """Return what the manifest says of the items."""
    table = items.table
    expected = table.chance
    images = table.shapes[0][0]
    both = {"image_chance": expected.image, "group_chance": expected.group}
    return Items(
        images=images,
        texts=max(texts for _, texts in table.shapes),
        pool=len(pool.texts),
        chance=expected.answer,
        images_compared=resolved.strategy.same_draws,
        **(both if expected.image is not None else {}),
    )
