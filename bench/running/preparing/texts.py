"""The texts of a run: the prompts of its classes, or those of its items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.contracts.specs import DatasetSpec
from bench.errors import UserError, did_you_mean
from bench.inputs.prompts import PLACEHOLDER, Prompts, from_file, from_labels, from_template
from bench.inputs.split import Split
from bench.inputs.subsets import limited
from bench.inputs.templates import from_templates, make_columns, read_templates
from bench.running.preparing.item_checks import check_items
from bench.running.resolve import Resolved
from bench.running.scorers.choose import kind_of
from bench.running.settings import RunConfig


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
