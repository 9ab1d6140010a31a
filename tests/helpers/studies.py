"""A small study as a file, and one made up of stored runs, as `bench study` keeps it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bench.store.formats.documents import StoredConfig
from bench.store.locking import locked
from bench.store.runs import read_run
from bench.store.studies import Study, StudyCell, study_folder, write_study

GRID = """
datasets = ["digits"]
limit = 40
pilot = 10

[[grid]]
backbones = ["random"]
params = {seed = [0, 1]}

[[grid]]
backbones = ["majority"]
seeds = [0, 1]

[[exclude]]
backbone = "majority"
seed = 1
"""


def store_study(
    results: Path,
    runs: Sequence[Path],
    name: str = "small",
    over: Literal["images", "seeds"] | None = None,
    shifts: Sequence[tuple[str, str]] = (),
) -> Path:
    """Store a complete study of runs that differ in their backbone; returns its folder.

    Args:
        results: where the runs are stored.
        runs: their folders.
        name: of the study.
        over: of runs that differ in their seed too, what tests are over.
        shifts: of runs on several datasets, pairs of a dataset and a shifted one.
    """
    cells = []
    for path in runs:
        manifest = read_run(path).manifest
        axes = {"dataset": manifest.config.dataset, "backbone": manifest.backbone.name}
        cells.append(
            StudyCell(
                axes={**axes, "seed": str(manifest.identity.seed)} if over else axes,
                config=StoredConfig(dataset=manifest.config.dataset),
                run_id=manifest.run_id,
                images=len(manifest.samples),
                status="complete",
            )
        )
    folder = study_folder(results, name)
    made = "2026-01-01T00:00:00+00:00"
    study = Study(
        name=name,
        file=f"{name}.toml",
        created=made,
        updated=made,
        axes=["dataset", "backbone", *(["seed"] if over else [])],
        cells=cells,
        shifts=list(shifts),
        over=over or "images",
    )
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder) as writable:
        write_study(writable, study)
    return folder
