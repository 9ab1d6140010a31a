"""Stored runs to make a report of: whole folders, written as `bench run` writes them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from helpers.recorded import store_errors
from helpers.runs import a_manifest

from bench.contracts.strategy import Floats32
from bench.reports.run_view import read_view
from bench.store.formats.fields import to_json
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
        draws=changes.get("draws", N_DRAWS),
        run_id=run_id,
        config={"dataset": "folder", "data_dir": str(data), "backbone": "toy"},
        classes=classes,
        prompts=[[f"a photo of {name}", index] for index, name in enumerate(classes)],
        **replayed,
    )
    kept = (lambda sample: True) if changes.get("errors") else None
    complete = changes.get("complete", True)
    own = labels[::step][:n]

    def tables() -> Iterator[Floats32]:
        for position, label in zip(range(0, len(ids), step), own, strict=False):
            rng = np.random.default_rng(position)
            errors = 0.5 + 0.05 * rng.standard_normal((len(classes), changes.get("draws", N_DRAWS)))
            errors[label] -= changes.get("gap", 0.02)
            yield errors.astype(np.float32)

    return store_errors(
        results / run_id, manifest, own, tables(), N_DRAWS, kept=kept, complete=complete
    )


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
