"""Runs against the reference and against each other: what differs, in words."""

import shutil
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from oracle.cases import BY_SCORE, UNIFORM, Case
from oracle.models import BY_HAND, MASKED, TOKENS
from oracle.question import Array, Decision, Question
from oracle.reference import decide, errors, interval
from oracle.session import FailedError, RefusedError, Session
from oracle.tokens import masked_errors, token_errors

from bench.store.folder import read_manifest, read_records
from bench.store.formats.cells import has_part, read_cells
from bench.store.formats.identity import digest
from bench.store.summary import read_summary

TOLERANCE = 5e-6  # of an error or a score; relative above 1
UNSTABLE = {"sana": 4.0}  # times as much: its attention divides by sums that are nearly zero
OF_DIFFERENCES = 100.0  # times as much, of differences of two sums that are as much larger
SHOWN = 2  # differences of a run from the reference, or from another run
ROUNDED = ("prediction", "score", "margin", "margin_stderr", "confidence", "top")
Record = Mapping[str, Any]
Records = Mapping[str, Record]


@dataclass(frozen=True)
class Run:
    """A run that a route made."""

    case: Case
    folder: Path
    part: bool = False  # whether some pictures may be undecided
    like: Path | None = None  # a run with the same records
    exactly: bool = True  # whether these are the same to the last digit


class Comparison:
    """Compares the runs of a session with the reference, and those of one identity with each other.

    Attributes:
        seen: identity → the first case that had it, and the records of its runs.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.seen: dict[str, tuple[Case, dict[str, Record]]] = {}
        self._tables: dict[Any, tuple[Array, Array]] = {}

    def check(self, case: Case, go: Callable[[Session, Case], Iterator[Run | str]]) -> list[str]:
        """Take the route of a case, and return what is wrong with its runs."""
        found: list[str] = []
        try:
            for made in go(self.session, case):
                if isinstance(made, str):
                    found.append(made)
                else:
                    who = made.folder.relative_to(self.session.root)
                    found += [f"{who}: {problem}" for problem in self.problems(made)]
        except (RefusedError, FailedError) as error:
            found.append(f"{type(error).__name__}: {error}")
        except Exception:
            found.append(traceback.format_exc())
        if not found:
            shutil.rmtree(self.session.place(case, ""))
        return found

    def problems(self, run: Run) -> Iterator[str]:
        """Yield what is wrong with a run."""
        case, records = run.case, read_records(run.folder)
        labels = self.session.pictures(case).labels
        failed = {name: r["error"] for name, r in records.items() if r["error"] is not None}
        decided = {name: r["label"] for name, r in records.items() if name not in failed}
        if failed or not decided or not decided.items() <= labels.items():
            yield f"it decided {decided} of {labels}; failed: {failed}"
            return
        if len(decided) < len(labels) and not run.part:
            yield f"it decided {len(decided)} of {len(labels)} pictures"
        if case.kind in (*BY_HAND, *TOKENS, *MASKED):
            yield from islice(self._against_reference(run, records), SHOWN)
        yield from _of_accuracy(run.folder, records)
        if run.like is not None:
            # A measured batch size may be another one the next time, which changes the rounding.
            exactly = run.exactly and case.settings["batch_size"] != "auto"
            yield from _unlike(
                records, read_records(run.like), exactly, str(run.like.name), _patience(case)
            )
        identity = digest(read_manifest(run.folder).identity)
        first, known = self.seen.setdefault(identity, (case, {}))
        same = f"the run of the same identity in [{first}]"
        yield from _unlike(records, known, False, same, _patience(case))
        known.update((name, record) for name, record in records.items() if name not in known)

    def _against_reference(self, run: Run, records: Records) -> Iterator[str]:
        """Compare prompts, errors and decisions with the reference."""
        case, q = run.case, self.session.question(run.case)
        if (prompts := tuple(map(tuple, read_manifest(run.folder).prompts))) != q.prompts:
            yield f"its prompts are {prompts}, and should be {q.prompts}"
            return
        table, weights = self._table(case, q)
        names = list(self.session.pictures(case).files)
        table = table[[names.index(name) for name in records]]
        cells = _recorded(run.folder, list(records), q)
        wanted, classes = in_columns(table, q)
        if cells is not None:
            yield from _differences(cells, wanted, _patience(case))
            wanted[np.isnan(cells)] = np.nan
        elif case.settings["strategy"] not in BY_SCORE:
            return  # a replay records no errors, so which cells it used is not known
        elif case.settings["strategy"] == "uniform":
            sub_grid = [(2 * k + 1) * q.draws // (2 * UNIFORM) for k in range(UNIFORM)]
            wanted[..., np.setdiff1d(range(q.draws), sub_grid)] = np.nan
        for (name, record), rows in zip(records.items(), wanted, strict=True):
            found = list(_of_scores(record, rows, classes, weights, _patience(case)))
            if not found and case.settings["strategy"] in BY_SCORE:
                (used,) = np.nonzero(~np.isnan(rows[0]))
                pair = used // 2 if q.plan == "antithetic" else used
                decision = decide(rows[:, used], classes, weights[used], pair)
                found += _of_decision(record, decision, _patience(case))
                if record["evaluations"] != (wanted_cost := len(used) * _per_draw(case, q)):
                    found.append(f"it took {record['evaluations']} evaluations, not {wanted_cost}")
            yield from (f"{name}: {problem}" for problem in found)

    def _table(self, case: Case, q: Question) -> tuple[Array, Array]:
        key = (case.kind, case.lora, case.which, case.count, case.form == "tar", q)
        if key not in self._tables:
            files, models = self.session.pictures(case).files, self.session.models
            if case.kind in TOKENS:
                made = token_errors(models.folder(case.kind), case.kind, files, q)
            elif case.kind in MASKED:
                made = masked_errors(models.folder(case.kind), files, q)
            else:
                made = errors(models.pipe(case.kind, case.lora), files, q)
            self._tables[key] = made
        return self._tables[key]


def in_columns(table: Array, q: Question) -> tuple[Array, Array]:
    """Return errors of prompts as a run records them, [I, C, N], and the class of each column."""
    classes = np.array([number for _, number in q.prompts])
    if q.template_rule == "best":
        return table.copy(), classes
    of_class = [table[:, classes == number].mean(axis=1) for number in np.unique(classes)]
    return np.stack(of_class, axis=1), np.unique(classes)


def _recorded(folder: Path, names: list[str], q: Question) -> Array | None:
    """Return the recorded errors of images, float32 [I, C, N]; None of a run that has none."""
    if not has_part(folder / "errors", names[0]):
        return None
    columns = len(q.prompts) if q.template_rule == "best" else len({c for _, c in q.prompts})
    return np.stack([read_cells(folder / "errors", name, (columns, q.draws)) for name in names])


def _differences(cells: Array, wanted: Array, patience: float) -> Iterator[str]:
    off = np.nan_to_num(np.abs(cells - wanted) / np.maximum(1, np.abs(wanted)) / patience)
    if off.max() > TOLERANCE:
        place = np.unravel_index(off.argmax(), off.shape)
        yield (
            f"{np.mean(off > TOLERANCE):.0%} of its errors are wrong, by up to {off.max():.2g}: at"
            f" image, column and draw {tuple(map(int, place))} {cells[place]:.6f} in place of"
            f" {wanted[place]:.6f}"
        )


def _per_draw(case: Case, q: Question) -> int:
    """Return the evaluations of one draw for all prompts of an image, which share the null.

    Those of a likelihood are its cells.
    """
    return len(q.prompts) + (q.guidance is not None and case.kind not in TOKENS)


def _of_scores(
    record: Record, rows: Array, classes: Array, weights: Array, patience: float
) -> Iterator[str]:
    """Compare the score of each class with those of its prompts on as many draws."""
    for number, score, draws in record["top"]:
        prompts = [row for row in rows[classes == number] if np.sum(~np.isnan(row)) == draws]
        means = [np.average(r[~np.isnan(r)], weights=weights[~np.isnan(r)]) for r in prompts]
        if not any(_close(score, mean, patience) for mean in means):
            yield f"the score of class {number} is {score:.6f} of {draws} draws, not {means}"


def _of_decision(record: Record, decision: Decision, patience: float) -> Iterator[str]:
    """Compare the decision of a strategy whose best class has the lowest score."""
    scores, best = decision.scores, min(decision.scores.values())
    shown = scores[record["prediction"]], record["score"]
    if not all(_close(score, best, patience) for score in shown):
        yield f"the prediction is {record['prediction']}, with {record['score']:.6f}: {decision}"
    if [number for number, *_ in record["top"]] == [*scores]:
        margins = (
            (record["margin"], decision.margin),
            (record["margin_stderr"] or 0, decision.stderr),
        )
        if not all(_close(a, b, patience, best) for a, b in margins):
            yield f"margin and standard error are wrong: {margins}"


def _of_accuracy(folder: Path, records: Records) -> Iterator[str]:
    """Compare the accuracy with that of the images which the manifest asks for.

    A batch that answers the question of `--until` may decide images beyond those; their records are
    kept, and do not count.
    """
    manifest = read_manifest(folder)
    summary = read_summary(folder, manifest)
    counted = [records[name] for name in manifest.samples if name in records]
    right, n = sum(r["prediction"] == r["label"] for r in counted), len(counted)
    if summary is None:
        yield "it has no summary"
        return
    metrics = summary.metrics
    found = [metrics.accuracy, *metrics.accuracy_ci95]
    if not np.allclose(found, [right / n, *interval(right, n)], rtol=0, atol=1e-9):
        yield f"accuracy and interval are {found}, with {right} of {n} right"


def _unlike(
    records: Records, others: Records, exactly: bool, who: str, patience: float
) -> Iterator[str]:
    """Compare the records of images that two runs have."""
    wrong = []
    for name in sorted(records.keys() & others.keys()):
        one, other = records[name], others[name]
        fields = {field for field in (*one, *other) if one.get(field) != other.get(field)}
        fields -= {"seconds"} if exactly else {"seconds", *ROUNDED}
        scores, wanted = ({c: score for c, score, _ in r["top"]} for r in (one, other))
        close = all(_close(score, wanted.get(c, np.inf), patience) for c, score in scores.items())
        if fields or not close:
            wrong.append(f"{name}: {sorted(fields)}, scores {scores} and {wanted}")
    if wrong:
        yield f"{len(wrong)} images differ from {who}: {'; '.join(wrong[:SHOWN])}"


def _patience(case: Case) -> float:
    relative = case.params.get("relative", False)
    return OF_DIFFERENCES if relative else UNSTABLE.get(case.kind, 1.0)


def _close(value: float, other: float, patience: float = 1.0, scale: float | None = None) -> bool:
    scale = max(1.0, abs(other if scale is None else scale))
    return abs(value - other) <= TOLERANCE * patience * scale
