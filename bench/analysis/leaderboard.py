"""The leaderboard: stored runs, and results that others reported, ranked within their kind."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.store.folder import list_runs, read_manifest, read_summary

REPORTED = "reported.json"  # results quoted from papers, with their source


def leaderboard(results: Path, dataset: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of every dataset's board, best accuracy first.

    Rows of one board share dataset, version and split. A rank is counted only among rows of a
    kind: measured on the whole split, and either zero-shot or trained on the same thing. Subsets,
    replays and reported results stand beside them without a rank.

    Args:
        results: the folder of runs; `published/` and `reported.json` files below it are included.
        dataset: only this one.

    Raises:
        UserError: the folder does not exist, or a file of reported results is damaged.
    """
    if not results.is_dir():
        raise UserError(
            f"There is no folder {results}. `bench run digits` makes the first run in ./results."
        )
    rows = [*_measured(results), *_reported(results)]
    rows = [row for row in rows if dataset in (None, row["dataset"])]
    for row in rows:  # reported results name no version: they stand beside the newest
        if row["kind"] == "reported":
            same = [r for r in rows if (r["dataset"], r["split"]) == (row["dataset"], row["split"])]
            row["version"] = max((r["version"] or 0 for r in same), default=0) or None
    rows.sort(key=lambda r: (r["dataset"], r["version"] or 0, r["split"], -r["accuracy"]))
    ranks: dict[tuple[Any, ...], int] = {}
    for row in rows:
        row["rank"] = None
        if row["kind"] == "measured":
            board = (row["dataset"], row["version"], row["split"], row["trained_on"])
            ranks[board] = row["rank"] = ranks.get(board, 0) + 1
    return rows


def _measured(results: Path) -> Iterable[dict[str, Any]]:
    for path in list_runs(results):
        summary = read_summary(path)
        if summary is None:
            continue
        manifest = read_manifest(path)
        data, metrics, cost = summary["dataset"], summary["metrics"], summary["cost"]
        yield {
            "kind": _kind(summary),
            "dataset": data["name"],
            "version": data["version"],
            "split": data["split"],
            "backbone": summary["backbone"]["name"],
            "trained_on": summary["backbone"]["trained_on"],
            "strategy": summary["strategy"]["name"],
            "params": summary["strategy"]["params"],
            "accuracy": metrics["accuracy"],
            "accuracy_ci95": metrics["accuracy_ci95"],
            "precision_weighted": metrics["precision_weighted"],
            "recall_weighted": metrics["recall_weighted"],
            "f1_weighted": metrics["f1_weighted"],
            "n_samples": data["n_samples"],
            "evaluations_per_image": cost["evaluations_per_image"],
            "seconds": cost["seconds"],
            "source": f"run {manifest['run_id']}",
        }


def _kind(summary: Mapping[str, Any]) -> str:
    if "replayed_from" in summary:
        return "replayed"
    data = summary["dataset"]
    return "measured" if data["n_samples"] == data["n_total"] else "subset"


def _reported(results: Path) -> Iterable[dict[str, Any]]:
    for path in sorted(results.rglob(REPORTED)):
        try:
            entries = json.loads(path.read_text("utf-8"))
            for entry in entries:
                yield {
                    "kind": "reported",
                    "version": None,
                    "params": {},
                    "accuracy_ci95": None,
                    "precision_weighted": None,
                    "recall_weighted": None,
                    "f1_weighted": None,
                    "n_samples": None,
                    "evaluations_per_image": None,
                    "seconds": None,
                    "trained_on": None,
                    **entry,
                    "accuracy": float(entry["accuracy"]),
                    "split": str(entry["split"]),
                }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} does not hold reported results: {error!r}.") from None
