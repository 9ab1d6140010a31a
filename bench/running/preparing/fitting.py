"""Whether a run's backbone learns, and from which images."""

from __future__ import annotations

from dataclasses import replace

from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.inputs.data import FOLDER, slug
from bench.inputs.fitting import USUAL, FitSplit, load_fit_split
from bench.inputs.split import Split
from bench.running.resolve import Resolved


def name_fit_split(resolved: Resolved, scored: Split | None) -> Resolved:
    """Return the run with what its backbone will have learned from, where it learns.

    Raises:
        UserError: a setting means nothing to this backbone, or the dataset has no other split.
    """
    config, spec, data = resolved.config, resolved.backbone, resolved.dataset
    name = resolved.backbone_name
    if not spec.learns:
        if config.fit_split:
            raise UserError(f"--fit-split: backbone {name!r} learns nothing from a split.")
        return resolved
    if config.template or config.prompts:
        raise UserError(
            f"Backbone {name!r} learns classes from images and reads no prompts; leave --template"
            " and --prompts out."
        )
    if data.items:
        raise UserError(
            f"Backbone {name!r} learns classes, and dataset {data.name!r} has items with texts of"
            " their own."
        )
    known = load_plugins().datasets
    if data.name not in known or known.get(data.name) is not data:
        raise UserError(
            f"Backbone {name!r} learns from labelled images: name a registered dataset, or a folder"
            " that has another split."
        )
    called = slug(str(resolved.data.data_dir)) if data.name == FOLDER else data.name
    split = f"{scored.name if scored else called}/{config.fit_split or USUAL}"
    return replace(resolved, trained_on=split)


def find_fit_split(resolved: Resolved, scored: Split | None) -> FitSplit | None:
    """Return the images that the backbone learns from; None where it does not learn.

    Args:
        resolved: the run's names and settings.
        scored: the split that is scored; None: pictures of the user's own are.

    Raises:
        UserError: there are no such images.
    """
    if not resolved.backbone.learns:
        return None
    config, data, learner = resolved.config, resolved.data, f"Backbone {resolved.backbone_name!r}"
    return load_fit_split(
        resolved.dataset, config.fit_split, data.data_dir, data.options, scored, learner
    )
