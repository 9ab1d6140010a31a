"""A run's decisions as arrays with an element per image, and the scores of all classes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Bools, Floats, Ints
from bench.discovery.queries import exhaustive_strategy
from bench.errors import UserError
from bench.machine.libraries import pc
from bench.store.formats.arrow import booleans, strings, values
from bench.store.formats.cells import read_cells, read_draws
from bench.store.formats.documents import Manifest
from bench.store.formats.journal import TOP_CLASSES, Record, read_table, to_table

FAILED = -1  # prediction of a failed image, which equals no class and so counts as wrong
NO_RUNNER_UP = -2  # runner-up of a failed image, or if there is only one class


@dataclass(frozen=True)
class Decisions:
    """Decisions on n images. All columns have the length n.

    Columns from `in_top5` to `draws` and from `ranks` to `answers` are None without `top`, others
    from `in_candidates` on if no image has a value.
    """

    sample_ids: Any  # pyarrow strings
    labels: Ints  # true classes
    predictions: Ints  # -1 if the image failed
    margins: Floats  # runner-up's score minus the winner's, NaN if unknown
    margin_stderr: Floats  # standard error of the margin, NaN if unknown
    confidence: Floats  # as in records, NaN if unknown
    evaluations: Ints  # number of forward passes
    linearisations: Ints  # number of draws for which a gradient was taken
    equivalents: Floats  # cost of both in evaluation equivalents
    seconds: Floats  # scoring time
    failed: Bools  # whether the image could not be scored
    in_top5: Bools | None = None  # whether the true class is among the five best
    runner_up: Ints | None = None  # second best class, or `NO_RUNNER_UP`
    gaps: Floats | None = None  # [n, 9], scores of places 2 to 10 minus the winner's, inf if absent
    draws: Ints | None = None  # number of draws of the winner, 0 if the image failed
    in_candidates: Bools | None = None  # whether the true class was a candidate
    groups: NDArray[np.str_] | None = None  # name of the group, "" if the image has none
    image_right: Bools | None = None  # as in records, False if the image failed
    group_right: Bools | None = None  # as in records, False if the image failed
    decided_by: Any = None  # pyarrow strings as in records, null if not reported
    ranks: Ints | None = None  # last possible rank of items' right answers, 0 if the item failed
    first_ranks: Ints | None = None  # first possible rank, lower if the answer was eliminated
    answers: Ints | None = None  # number of answers of each item
    clusters: Ints | None = None
    """Number of the image that each item is about; None unless several are about the same one."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> Bools:
        """Whether each prediction is right, bool [n]; False for a failed image."""
        return np.equal(self.labels, self.predictions)

    def right_by_id(self) -> dict[str, bool]:
        """Return whether each prediction is right, by sample id."""
        return dict(zip(self.sample_ids.to_pylist(), self.correct.tolist(), strict=True))

    def right_in(self, order: Iterable[str]) -> Floats:
        """Return whether images in this order are right, up to the first that is not decided."""
        right = self.right_by_id()
        return np.array([right[name] for name in takewhile(right.__contains__, order)], np.float64)


def read_decisions(path: Path, manifest: Manifest, top: bool = False) -> Decisions:
    """Read a run's decisions on the samples of its manifest, in the order of the manifest.

    Undecided samples are left out. `margin_stderr` and `confidence` are NaN for a run without
    `Manifest.margin_errors_known`. `top` adds the columns `in_top5` to `draws`: 50 % longer.
    """
    table = read_table(path, len(manifest.classes), top)
    decided = _from_table(_rows(table, manifest.samples))
    if manifest.margin_errors_known:
        return decided
    unknown = np.full(len(decided), np.nan)
    return replace(decided, margin_stderr=unknown, confidence=unknown)


def _rows(table: Any, samples: Sequence[str]) -> Any:
    """Return the rows of these samples in their order, without samples that have no row."""
    sample_ids, stored = strings(samples), table["sample_id"].combine_chunks()
    if sample_ids.equals(stored):
        return table
    return table.take(pc.index_in(sample_ids, value_set=stored).drop_null())


def as_decisions(records: Sequence[Record]) -> Decisions:
    """Return records as columns, including those of `top`."""
    return _from_table(to_table(records))


def _from_table(table: Any) -> Decisions:
    labels = values(table["label"])
    top = _top_columns(table, labels) | _rank_columns(table) if "top" in table.column_names else {}
    groups = _unless_null(table["group"])
    # Records without equivalents have no linearisations, so their cost is their evaluations.
    equivalents = pc.coalesce(table["equivalents"], table["evaluations"].cast("double"))
    return Decisions(
        sample_ids=table["sample_id"].combine_chunks(),
        labels=labels,
        predictions=values(table["prediction"], FAILED),
        margins=values(table["margin"], np.nan),
        margin_stderr=values(table["margin_stderr"], np.nan),
        confidence=values(table["confidence"], np.nan),
        evaluations=values(table["evaluations"]),
        linearisations=values(table["linearisations"], 0),
        equivalents=values(equivalents),
        seconds=values(table["seconds"]),
        failed=booleans(table["error"].is_valid()),
        **top,
        in_candidates=_optional_booleans(table["in_candidates"]),
        groups=None if groups is None else np.array(groups.fill_null("").to_pylist()),
        clusters=cluster_numbers(table["cluster"].to_pylist()),
        image_right=_optional_booleans(table["image_right"]),
        group_right=_optional_booleans(table["group_right"]),
        decided_by=_unless_null(table["decided_by"]),
    )


def _rank_columns(table: Any) -> dict[str, Ints]:
    """Return ranks and numbers of answers; nothing if a decided item has no rank, as in early ones.

    Places are known among answers that were evaluated on as many draws as the winner. One that was
    eliminated may have any place behind these; of a shortlist, any that the list has.
    """
    ranks, failed = values(table["rank"], 0), booleans(table["error"].is_valid())
    if not len(ranks) or ((ranks == 0) & ~failed).any() or table["shape"].null_count:
        return {}
    sizes, _, _, draws = _top_entries(table)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    of_winner = draws[np.cumsum(sizes) - sizes - (sizes == 0)][owner] if len(draws) else draws
    compared, evaluated = (
        np.bincount(owner[mask], minlength=len(sizes)) for mask in (draws == of_winner, draws > 0)
    )
    shape = values(table["shape"].combine_chunks().flatten()).reshape(-1, 2)
    answers = shape.max(axis=1)  # of one image, or of one text
    unknown = (ranks > compared) & (compared < sizes)
    last = answers
    if (in_candidates := _optional_booleans(table["in_candidates"])) is not None:
        unknown &= in_candidates & (ranks <= evaluated)  # others have the first run's rank
        last = evaluated
    return {
        "ranks": np.where(unknown, last, ranks),
        "first_ranks": np.where(unknown, compared + 1, ranks),
        "answers": answers,
    }


def cluster_numbers(names: Iterable[str | None]) -> Ints | None:
    """Return the number of the image that each item is about; None unless several share one.

    `names` are the images' hashes. Early records of failed items have none: together these count as
    about one image, so that they do not make an interval narrower.
    """
    numbers: dict[str | None, int] = {}
    clusters = [numbers.setdefault(name, len(numbers)) for name in names]
    known = len(numbers) > (None in numbers)
    return np.array(clusters, dtype=np.int64) if known and len(numbers) < len(clusters) else None


def _unless_null(column: Any) -> Any:
    return None if column.null_count == len(column) else column.combine_chunks()


def _optional_booleans(column: Any) -> Bools | None:
    return None if _unless_null(column) is None else booleans(column.fill_null(False))


def _top_columns(table: Any, labels: Ints) -> dict[str, NDArray[Any]]:
    sizes, classes, scores, n_draws = _top_entries(table)
    start = np.cumsum(sizes) - sizes  # index of each image's first entry
    in_top5 = np.zeros(len(labels), dtype=bool)
    runner_up = np.full(len(labels), NO_RUNNER_UP, dtype=np.int64)
    gaps = np.full((len(labels), TOP_CLASSES - 1), np.inf)
    draws = np.zeros(len(labels), dtype=np.int64)
    draws[sizes > 0] = n_draws[start[sizes > 0]]
    for rank in range(min(TOP_CLASSES, int(sizes.max(initial=0)))):  # 0 is the winner
        has = sizes > rank
        entry = start[has] + rank
        if rank < 5:
            in_top5[has] |= classes[entry] == labels[has]
        if rank == 1:
            runner_up[has] = classes[entry]
        if rank > 0:
            gaps[has, rank - 1] = scores[entry] - scores[start[has]]
    gaps[np.isnan(gaps)] = np.inf  # a class without a draw has no score
    return {"in_top5": in_top5, "runner_up": runner_up, "gaps": gaps, "draws": draws}


def _top_entries(table: Any) -> tuple[Ints, Ints, Floats, Ints]:
    """Return the number of entries of each image, and the class, score and draws of each entry."""
    entries = table["top"].combine_chunks()
    classes, scores, draws = values(entries.flatten().flatten(), np.nan).reshape(-1, 3).T
    sizes = values(entries.value_lengths(), 0)
    return sizes, classes.astype(np.int64), scores, draws.astype(np.int64)


def class_scores(path: Path, manifest: Manifest, sample_ids: Any) -> Floats:
    """Return the mean error of each class on the same draws, float64 [n, C]; lower is better.

    `sample_ids` (n pyarrow strings) must have records in the run's folder `path`. Raises UserError
    if images have texts or candidates of their own, one failed, a class was stopped early, or the
    run stores neither all scores nor all errors.
    """
    classes = len(manifest.classes)
    if manifest.items or manifest.identity.candidates:
        raise UserError(
            "its images have texts or candidates of their own, so no class has a score on all."
        )
    if classes > TOP_CLASSES:
        return _scores_from_errors(path, manifest, sample_ids)
    scores, draws = _scores_from_records(path, classes, sample_ids)
    if (draws == 0).all(axis=1).any():
        raise UserError("an image failed and has no scores; the same `bench run` tries it again.")
    if np.isnan(scores).any() or (draws != draws.max()).any():
        raise UserError(
            f"its strategy {manifest.strategy.name} stopped some classes early, so their scores"
            " are means over fewer draws (censored). Use a strategy that evaluates all classes on"
            f" the same draws, such as {exhaustive_strategy()}."
        )
    return scores


def _scores_from_records(path: Path, classes: int, sample_ids: Any) -> tuple[Floats, Ints]:
    """Return scores [n, C], NaN if a class has none, and their number of draws, int64 [n, C]."""
    table = read_table(path, classes, top=True)
    stored = table["sample_id"].combine_chunks()
    rows = table.take(pc.index_in(sample_ids, value_set=stored))
    sizes, columns, entry_scores, entry_draws = _top_entries(rows)
    cells = np.repeat(np.arange(len(sizes)), sizes), columns
    scores = np.full((len(sizes), classes), np.nan)
    draws = np.zeros((len(sizes), classes), dtype=np.int64)
    scores[cells], draws[cells] = entry_scores, entry_draws
    return scores, draws


def _scores_from_errors(path: Path, manifest: Manifest, sample_ids: Any) -> Floats:
    """Return scores [n, C] from the stored errors. A class has the score of its best prompt."""
    class_of_prompt = np.array([label for _, label in manifest.prompts])
    count, draws = manifest.strategy.params.get("draws"), read_draws(path)
    if draws is None or not count or manifest.identity.scoring.reduction not in (None, "mean"):
        raise UserError(
            f"its records keep only the {TOP_CLASSES} best of {len(manifest.classes)} classes."
            " With --save-errors, a run of a denoiser stores those of all."
        )
    shape, weights = (len(class_of_prompt), len(draws.weights)), draws.weights
    scores = np.full((len(sample_ids), len(manifest.classes)), np.inf)
    for row, sample_id in enumerate(sample_ids.to_pylist()):
        try:
            errors = read_cells(path / "errors", sample_id, shape).astype(np.float64)
        except FileNotFoundError:
            raise UserError(f"it stores no errors of image {sample_id!r}.") from None
        drawn = np.isfinite(errors).any(axis=0)
        if not np.isfinite(errors[:, drawn]).all() or not drawn.any():
            raise UserError(
                f"its strategy {manifest.strategy.name} evaluated image {sample_id!r} with only"
                " some of the prompts (censored). Use a strategy that evaluates all classes on the"
                f" same draws, such as {exhaustive_strategy()}."
            )
        means = np.average(errors[:, drawn], axis=1, weights=weights[drawn])
        np.minimum.at(scores[row], class_of_prompt, means)
    return scores


def shared_rows(a: Decisions, b: Decisions) -> tuple[Ints, Ints]:
    """Return the rows in A and in B of the samples that both have, int64 [n], in A's order."""
    place = values(pc.index_in(a.sample_ids, value_set=b.sample_ids), -1)
    rows = np.flatnonzero(place >= 0)
    return rows, place[rows].astype(np.int64)
