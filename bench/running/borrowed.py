"""What a run is given by other runs (candidates, level weights) and by a split to learn from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.contracts.dataset import Shortlisted, asks_for_images, n_answers, pairing_of
from bench.contracts.strategy import Floats, Ints
from bench.discovery.loading import load_plugins
from bench.errors import UserError, quoted, refusing, warn_user
from bench.inputs.data import DEFAULT_FIT_SPLIT, load_split, slugify
from bench.inputs.estimand import Weighting
from bench.inputs.split import Split
from bench.inputs.subsets import select_subset
from bench.inputs.weights import Weights
from bench.running.parts.settings import Names
from bench.stats.calibration import level_weights
from bench.store.folder import find_run, read_manifest, requested_records
from bench.store.formats.cells import DrawTable, has_part, read_cells, read_draws
from bench.store.formats.decisions import as_decisions
from bench.store.formats.documents import Manifest
from bench.store.formats.identity import Candidates, digest
from bench.store.formats.journal import Record


@dataclass(frozen=True)
class Shortlist:
    """Candidates of every image or item asked for, from an earlier run."""

    source: Candidates  # the earlier run, and the number of candidates per image
    trained_on: str | None  # training data of that run's backbone
    of_sample: Mapping[str, Shortlisted]  # sample id → classes, texts or images


def find_candidates(names: Names, split: Split | None) -> Shortlist | None:
    """Return the candidates from the run of `--candidates-from` (UserError if it does not fit).

    None if all classes are scored, or the images are not there (`split` is None), as in a plan.
    """
    config = names.config
    if config.candidates_from is None or split is None:
        return None
    path = find_run(config.candidates_from, config.results, exact=True)
    manifest, option = read_manifest(path), f"--candidates-from {config.candidates_from}"
    _check_same_question(names, manifest, split, option)
    records = {r["sample_id"]: r for r in requested_records(path, manifest)}
    kept = {name: [entry[0] for entry in record["top"]] for name, record in records.items()}
    sample_ids = select_subset(split.sample_ids, split.labels, config.limit, config.shard)
    if missing := [sample_id for sample_id in sample_ids if not kept.get(sample_id)]:
        raise UserError(
            f"{option}: the run has not decided {len(missing)} of {len(sample_ids)} images, such as"
            f" {quoted(missing[0])}."
        )
    fewest = min(len(kept[sample_id]) for sample_id in sample_ids)
    if fewest < config.top:
        raise UserError(
            f"--top {config.top}: must be at most {fewest}, the number of best classes per image"
            f" that {manifest.run_id} keeps."
        )
    source = Candidates(run_id=manifest.run_id, identity=digest(manifest.identity), top=config.top)
    of_sample, known = {}, _known_ranks(records)
    for sample_id in sample_ids:
        best = Shortlisted(tuple(kept[sample_id][: config.top]))
        if split.items is not None:
            rest = tuple(kept[sample_id][config.top :])
            best = replace(best, rest=rest, rank=known.get(sample_id))
        of_sample[sample_id] = best
    return Shortlist(source, manifest.backbone.trained_on, of_sample)


def _known_ranks(records: Mapping[str, Record]) -> dict[str, int]:
    """Return the ranks of the items whose right answer has one, and was not eliminated."""
    ranked = {name: record for name, record in records.items() if record.get("rank")}
    decided = as_decisions([*ranked.values()])
    if decided.ranks is None or decided.first_ranks is None:
        return {}
    fixed = decided.ranks == decided.first_ranks
    return {
        name: int(rank)
        for name, rank, known in zip(ranked, decided.ranks, fixed, strict=True)
        if known
    }


def _check_same_question(names: Names, manifest: Manifest, split: Split, option: str) -> None:
    """Raise UserError unless the manifest's run can be a source of candidates."""
    items = split.items
    if items is not None and min(items.shapes[0]) > 1:
        images, texts = items.shapes[0]
        raise UserError(
            f"{option}: an item of {images} images and {texts} texts is answered by a text for each"
            " image at once; a shortlist keeps texts of one image, or images for one text."
        )
    if manifest.identity.dataset.fingerprint != split.fingerprint:
        others = f"{manifest.dataset.name}/{manifest.dataset.split}"
        raise UserError(
            f"{option}: the run must be on the images of {split.name}/{split.split}, got one on"
            f" {others}."
        )
    if list(manifest.classes) != list(split.classes):
        raise UserError(f"{option}: the names of the run's {len(manifest.classes)} classes differ.")
    fewest, of_what = len(split.classes), "classes"
    if items is not None:
        counts = [n_answers(*shape) for shape in items.shapes]
        fewest, name = min(counts), quoted(split.sample_ids[counts.index(min(counts))])
        of_what = ("images" if asks_for_images(*items.shapes[0]) else "texts") + f" of item {name}"
    if names.config.top >= fewest:
        raise UserError(
            f"--top {names.config.top}: must be below {fewest}, the number of {of_what}. To score"
            " all of them, leave --candidates-from out."
        )


def learn_weighting(
    names: Names, weights: Weights | None, split: Split
) -> tuple[Weighting, str, str]:
    """Fit the level weights of `learned:RUN` to the labelled images of that recorded run.

    `weights` and `split` are those of the run that will be scored. Also returns the `dataset/split`
    of the fit and a message about the gain. Raises UserError if the recorded run does not fit or
    has the same images.
    """
    config, weighting = names.config, names.config.weighting
    path = find_run(weighting.source, config.results, exact=True)
    manifest = read_manifest(path)
    draws = read_draws(path, manifest.draws)
    if draws is None:
        raise UserError(
            f"--weighting {weighting}: {path} has no record of the noise levels of its errors."
            " Record it with --strategy full --save-errors."
        )
    identity, scoring = manifest.identity, manifest.identity.scoring
    if identity.dataset.fingerprint == split.fingerprint:
        raise UserError(
            f"--weighting {weighting}: the run has the images that are to be scored. Learn from"
            " another split."
        )
    used = names.backbone.name, weights and weights.fingerprint
    pairs = {
        "backbone": ((identity.backbone.name, identity.backbone.weights), used),
        "--loss": (scoring.loss, config.loss),
        "--space": (scoring.space, config.space),
        "--weighting": (scoring.weighting, None),  # recorded errors must not be weighted
    }
    for name, (recorded, scored) in pairs.items():
        if recorded != scored:
            raise UserError(
                f"--weighting {weighting}: the run was recorded with another {name}, whose errors"
                " need other weights."
            )
    buckets, labels, owners = _bucketed_errors(path, manifest, draws)
    if len(np.unique(owners)) < 2:
        raise UserError(f"--weighting {weighting}: the run must have errors of several images.")
    bucket_of_level = level_weights.bucket_of(np.arange(draws.n_levels), draws.n_levels)
    weight_of_level = level_weights.fit_weights(buckets, labels)[bucket_of_level]
    data = f"{manifest.dataset.name}/{manifest.dataset.split}"
    fitted = level_weights.cross_validated(buckets, labels, owners=owners)
    equal = level_weights.accuracy_of(np.ones(level_weights.BUCKETS), buckets, labels)
    learned_from = f"{owners.max() + 1} {'images' if manifest.items is None else 'items'} of {data}"
    gain = (
        f"Weights learned from {learned_from}: cross-validated accuracy {fitted:.3f},"
        f" {equal:.3f} with equal weights. The run to be scored counts as trained on it."
    )
    return replace(weighting, weights=dict(enumerate(weight_of_level.tolist()))), data, gain


def _bucketed_errors(path: Path, manifest: Manifest, draws: DrawTable) -> tuple[Floats, Ints, Ints]:
    """Return recorded errors averaged in buckets of noise levels, with labels, for a fit.

    The results are errors, float64 [Q, C, BUCKETS] (questions, classes padded with NaN, buckets),
    and of each question, int64 [Q], the label and the number of its image or item.
    """
    buckets = level_weights.bucket_of(draws.levels, draws.n_levels)
    tables: list[Floats] = []
    labels: list[int] = []
    owners: list[int] = []
    recorded = [
        record
        for record in requested_records(path, manifest)
        if record["error"] is None and has_part(path / "errors", record["sample_id"])
    ]
    for number, record in enumerate(recorded):
        for errors, label in _questions(path, manifest, record, len(draws.levels)):
            tables.append(level_weights.bucket_errors(errors, buckets))
            labels.append(label)
            owners.append(number)
    padded = np.full((len(tables), max(map(len, tables), default=1), level_weights.BUCKETS), np.nan)
    for row, table in zip(padded, tables, strict=True):
        row[: len(table)] = table
    return padded, np.array(labels, dtype=np.int64), np.array(owners, dtype=np.int64)


def _questions(
    path: Path, manifest: Manifest, record: Record, n_draws: int
) -> Iterator[tuple[Floats, int]]:
    """Yield what an image or an item asks: errors, float64 [C, N], and the right one of C classes.

    An image has one question, and a class the errors of its best prompt, by mean error. Of an item,
    each image asks for its text; or one text asks for its image, and the classes are the images.
    Several right answers are one class, as the prompts of a class are.
    """
    columns = np.array(manifest.class_of_column)
    images, texts = record.get("shape") or (1, len(columns))
    stored = read_cells(path / "errors", record["sample_id"], (images * texts, n_draws))
    if np.isnan(stored).any():
        raise UserError(f"{path} does not hold every cell of {record['sample_id']!r}.")
    errors = stored.astype(np.float64)
    if "shape" not in record:
        best_first = np.lexsort((errors.mean(axis=1), columns))  # by class, then by mean error
        _, firsts = np.unique(columns[best_first], return_index=True)
        yield errors[best_first[firsts]], record["label"]
    elif 1 in (images, texts):
        label, *others = right = record.get("right", [record["label"]])
        errors[label] = errors[right[errors[right].mean(axis=1).argmin()]]
        yield np.delete(errors, others, axis=0), label  # they follow the label
    else:
        pairing = pairing_of(record["label"], images, texts)
        yield from zip(errors.reshape(images, texts, n_draws), pairing, strict=True)


def fit_data(names: Names, scored: Split | None) -> str:
    """Return what a backbone that learns is fitted on, as `dataset/split` (UserError)."""
    config, data, name = names.config, names.dataset, names.source.name
    if data.items:
        raise UserError(
            f"Backbone {name!r} learns classes, but dataset {data.name!r} has items with texts of"
            " their own."
        )
    if scored is not None and scored.rest is not None:
        return f"{scored.name}/{scored.rest.split}"
    registry = load_plugins().datasets
    if data.name not in registry or registry.get(data.name) is not data:
        raise UserError(
            f"Backbone {name!r} learns from labelled images of another split: use a registered"
            " dataset, or a folder with several splits, or --holdout 0.5."
        )
    if scored is not None:
        dataset = scored.name
    else:
        dataset = slugify(str(names.data.data_dir)) if data.paths else data.name
    return f"{dataset}/{config.fit_split or DEFAULT_FIT_SPLIT}"


def find_fit_split(names: Names, scored: Split | None) -> Split | None:
    """Return the images that the backbone is fitted on; None if it does not learn.

    `scored` are the images to be scored, None if these are the user's own. Images that are also in
    `scored` are left out with a warning. Raises UserError if there is no such split, it is the
    scored one or has other classes, or a class has no image.
    """
    if not names.backbone.learns:
        return None
    learner, chosen = f"Backbone {names.source.name!r}", names.config.fit_split
    chosen = chosen or DEFAULT_FIT_SPLIT
    if scored is not None and scored.split == chosen:
        raise UserError(
            f"{learner} would learn from {quoted(chosen)}, the split that is scored. --fit-split"
            " names another split to learn from, or --split another one to score."
        )
    needs = f"{learner} learns from labelled images of a split, {quoted(chosen)}: "
    advice = (
        " --fit-split names another one; in a folder, train/ and test/ are splits. --holdout 0.5"
        " scores one half of a split and learns from the other."
    )
    if scored is not None and scored.rest is not None:
        split, chosen = scored.rest, scored.rest.split
    else:
        with refusing(needs, UserError, after=advice):
            split = load_split(names.data, chosen)
    if scored is not None:
        if split.classes != scored.classes:
            raise UserError(
                f"The split to learn from, {quoted(chosen)}, has other classes than the scored one,"
                f" {scored.split!r}: {len(split.classes)} and {len(scored.classes)}."
            )
        split = _drop_scored(split, scored)
    counts = np.bincount(split.labels, minlength=len(split.classes))
    if absent := [split.classes[label] for label in np.flatnonzero(counts == 0)]:
        raise UserError(
            f"The split {quoted(chosen)} has no image to learn {quoted(absent[0])} from"
            + (f", and {len(absent) - 1} other classes" if len(absent) > 1 else "")
            + f". {learner} needs one of every class."
        )
    return split


def _drop_scored(split: Split, scored: Split) -> Split:
    """Return the images of a split that are not scored; a warning counts the others."""
    held_out = set(scored.hash_images())
    remaining = [n for n, digest in enumerate(split.hash_images()) if digest not in held_out]
    left_out = len(split.sample_ids) - len(remaining)
    if not left_out:
        return split
    if not remaining:
        raise UserError(f"All images of {split.split!r}, the split to learn from, are scored, too.")
    warn_user(
        f"{left_out} of {len(split.sample_ids)} images of split {split.split!r} are scored too,"
        " and are not learned from."
    )
    return split.select(remaining)
