"""What a run learns from other images: the fit of its backbone, and weights over the levels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.contracts.dataset import asks_for_images, pairing_of
from bench.contracts.strategy import Floats, Ints
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.inputs.data import FOLDER, slug
from bench.inputs.estimand import Weighting
from bench.inputs.fitting import USUAL, FitSplit, load_fit_split
from bench.inputs.split import Split
from bench.running.resolve import Resolved
from bench.stats.level_weights import (
    BUCKETS,
    accuracy_of,
    bucket_errors,
    bucket_of,
    cross_validated,
    fit_weights,
)
from bench.store.cells import holds_part, read_cells
from bench.store.documents import Manifest
from bench.store.draw_table import DrawTable, read_draws
from bench.store.folder import asked_records, find_run, read_manifest

if TYPE_CHECKING:
    from bench.running.settings import RunConfig


@dataclass(frozen=True)
class Learned:
    """Weights, and what they were learned from.

    Attributes:
        weighting: with a weight for each level of the model.
        trained_on: `dataset/split`.
        said: what they are expected to gain, for the user.
    """

    weighting: Weighting
    trained_on: str
    said: str


def learn_weighting(
    weighting: Weighting, config: RunConfig, backbone: str, weights: str | None, fingerprint: str
) -> Learned:
    """Fit the weights that a recorded run's labelled images ask for.

    Args:
        weighting: `learned:RUN`.
        config: the settings of the run that will use them.
        backbone: the backbone's registered name.
        weights: the fingerprint of its weights.
        fingerprint: of the images that will be scored.

    Raises:
        UserError: the run does not fit, or is of the same images.
    """
    path = find_run(weighting.source, config.results)
    manifest = read_manifest(path)
    draws = read_draws(path, manifest.draws)
    if draws is None:
        raise UserError(
            f"--weighting {weighting}: {path} does not say which levels its errors are of. Record"
            " it with: --strategy full --save-errors"
        )
    _check_alike(weighting, manifest, config, backbone, weights, fingerprint)
    buckets, labels, owners = _read(path, manifest, draws)
    if len(np.unique(owners)) < 2:
        raise UserError(f"--weighting {weighting}: it holds the errors of {len(labels)} images.")
    found = fit_weights(buckets, labels)
    data = f"{manifest.dataset.name}/{manifest.dataset.split}"
    left_out, even = (
        cross_validated(buckets, labels, owners=owners),
        accuracy_of(np.ones(BUCKETS), buckets, labels),
    )
    of_level = bucket_of(np.arange(draws.n_levels), draws.n_levels)
    listed = {level: float(found[bucket]) for level, bucket in enumerate(of_level)}
    return Learned(
        replace(weighting, weights=listed),
        data,
        f"Weights learned from {len(labels)} images of {data}: accuracy {left_out:.3f} on those"
        f" left out of the fit, {even:.3f} with equal weights. The run counts as trained on it.",
    )


def _check_alike(
    weighting: Weighting,
    manifest: Manifest,
    config: RunConfig,
    backbone: str,
    weights: str | None,
    fingerprint: str,
) -> None:
    identity = manifest.identity
    if identity.dataset.fingerprint == fingerprint:
        raise UserError(
            f"--weighting {weighting}: it recorded the images that are to be scored. Learn from"
            " another split."
        )
    there = {
        "backbone": (identity.backbone.name, identity.backbone.weights),
        "--loss": identity.scoring.loss,
        "--space": identity.scoring.space,
        "--weighting": identity.scoring.weighting,
    }
    here = {
        "backbone": (backbone, weights),
        "--loss": config.loss,
        "--space": config.space,
        "--weighting": None,
    }
    if differing := [name for name in here if here[name] != there[name]]:
        raise UserError(
            f"--weighting {weighting}: it was recorded with another {differing[0]}, whose errors"
            " need other weights."
        )


def _read(path: Path, manifest: Manifest, draws: DrawTable) -> tuple[Floats, Ints, Ints]:
    """Return the errors per bucket, float64 [images, classes, 20], labels and owners of images.

    Of items, every image is a question with classes of its own: its texts, or where there is one
    text, the images. One that has fewer of them has NaN in the other places.
    """
    columns, n = np.array(manifest.class_of_column), len(draws.levels)
    buckets = bucket_of(draws.levels, draws.n_levels)
    found: list[Floats] = []
    labels: list[int] = []
    owners: list[int] = []
    for number, record in enumerate(asked_records(path, manifest)):
        if record["error"] is not None or not holds_part(path / "errors", record["sample_id"]):
            continue
        images, texts = record.get("shape") or (1, len(columns))
        errors = read_cells(path / "errors", record["sample_id"], (images * texts, n))
        if np.isnan(errors).any():
            raise UserError(f"{path} does not hold every cell of {record['sample_id']!r}.")
        exact = errors.astype(np.float64)
        if "shape" not in record:
            # A class is its best prompt by the mean over all draws.
            order = np.lexsort((exact.mean(axis=1), columns))
            best = order[np.unique(columns[order], return_index=True)[1]]
            found.append(bucket_errors(exact[best], buckets))
            labels.append(record["label"])
        elif asks_for_images(images, texts):
            found.append(bucket_errors(exact, buckets))
            labels.append(record["label"])
        else:
            found += list(bucket_errors(exact.reshape(images, texts, n), buckets))
            labels += pairing_of(record["label"], images, texts)
        owners += [number] * (len(labels) - len(owners))
    most = max((len(each) for each in found), default=1)
    table = np.full((len(found), most, BUCKETS), np.nan)
    for each, errors_of_image in zip(table, found, strict=True):
        each[: len(errors_of_image)] = errors_of_image
    _, whose = np.unique(owners, return_inverse=True)
    return table, np.array(labels, dtype=np.int64), whose


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
