"""Stored runs to make a report of: whole folders, written as `bench run` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from helpers.runs import a_manifest

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.strategy import ErrorTable, Evaluate, Problem, Reply
from bench.inputs.draws import timestep_grid
from bench.reports.run_view import read_view
from bench.stats.metrics import summarize
from bench.store.decisions import as_decisions
from bench.store.fields import to_json
from bench.store.folder import read_records
from bench.store.journal import make_record
from bench.store.writing import RunFolder
from bench_plugins.exporters.hub import ModelIndex

N_DRAWS = 20


def save_pictures(folder: Path, classes: list[str], each: int) -> Path:
    """Save `each` pictures a class as the folder dataset reads them, of a colour of its own."""
    from PIL import Image

    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            colour = (40 * label + 20, 8 * index, 120)
            Image.new("RGB", (200, 160), colour).save(folder / name / f"{index}.png")
    return folder


def store_run(results: Path, run_id: str, data: Path, classes: list[str], **changes: Any) -> Path:
    """Score every picture of `data` with made-up errors and store the run.

    Args:
        results: where runs are stored.
        run_id: the run's name.
        data: from `save_pictures`, with these classes in alphabetical order.
        classes: their names.
        changes: `gap`, how far the true class is ahead (0.02); `n`, images scored (all);
            `draws` evaluated; `errors`, whether they are kept; `trained_on`, `replayed_from`,
            `backbone`, `complete`, `draw_plan`, `loss`.
    """
    ids = [f"{name}/{path.name}" for name in classes for path in sorted((data / name).iterdir())]
    labels = [classes.index(i.split("/")[0]) for i in ids]
    n = changes.get("n", len(ids))
    step = len(ids) // n
    draws = np.arange(changes.get("draws", N_DRAWS))
    scoring = {"loss": changes.get("loss", "l2"), "draw_plan": changes.get("draw_plan", "grid")}
    replayed = {k: v for k, v in changes.items() if k == "replayed_from"}
    manifest = a_manifest(
        ids[::step][:n],
        len(classes),
        dataset="pictures",
        split="all",
        backbone=changes.get("backbone", "toy"),
        trained_on=changes.get("trained_on"),
        n_total=len(ids),
        scoring=scoring,
        draws=len(draws),
        run_id=run_id,
        config={"dataset": "folder", "data_dir": str(data), "backbone": "toy"},
        classes=classes,
        prompts=[[f"a photo of {name}", index] for index, name in enumerate(classes)],
        **replayed,
    )
    problem = Problem(np.arange(len(classes)), timestep_grid(N_DRAWS, 1000), np.ones(N_DRAWS), 0)
    everything = Evaluate(np.arange(len(classes)), draws)
    run = results / run_id
    with RunFolder(run, manifest) as folder:
        for position in range(0, len(ids), step):
            rng = np.random.default_rng(position)
            errors = 0.5 + 0.05 * rng.standard_normal((len(classes), len(draws)))
            errors[labels[position]] -= changes.get("gap", 0.02)
            values = errors.astype(np.float32)
            table = ErrorTable(problem)
            table.tell(everything, Reply(values, values.size))
            sample = Sample(ids[position], labels[position], {})
            decided = Decided(sample, evaluations=values.size, equivalents=float(values.size))
            decided.outcome = table.outcome()
            decided.cells = [(everything, values)]
            kept = decided if changes.get("errors") else None
            folder.append(make_record(decided, 0.5), kept, problem.timesteps)
        if changes.get("complete", True):
            records = list(read_records(run).values())
            folder.finish(summarize(manifest, as_decisions(records), 1.0, None))
    return run


def store_reported(results: Path, **changes: Any) -> None:
    """Write one result of others on the same pictures."""
    entry = {"dataset": "pictures", "split": "all", "backbone": "theirs", "strategy": "adaptive"}
    results.mkdir(exist_ok=True)
    (results / "reported.json").write_text(
        to_json([{**entry, "accuracy": 0.9, "source": "a paper, table 1", **changes}])
    )


def model_card(run: Path, folder: Path) -> str:
    """Return the YAML header of a model card that a run is exported as, below a folder."""
    folder.mkdir(exist_ok=True)
    ModelIndex().write(read_view(run), folder)
    return (folder / "README.md").read_text("utf-8")
