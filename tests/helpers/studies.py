"""A small study as a file, and one made up of stored runs, as `bench study` keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.store.documents import Settings
from bench.store.runs import read_run
from bench.store.studies import Study, StudyCell, study_folder, write_study

GRID = """
datasets = ["digits"]
backbones = ["random", "majority"]
seeds = [0, 1]
limit = 40
pilot = 10

[[exclude]]
backbone = "majority"
seed = 1
"""


def store_study(results: Path, runs: Sequence[Path], name: str = "small") -> Path:
    """Store a complete study of runs that differ in their backbone; returns its folder."""
    cells = []
    for path in runs:
        manifest = read_run(path).manifest
        cells.append(
            StudyCell(
                axes={"backbone": manifest.backbone.name},
                config=Settings(dataset=manifest.config.dataset),
                run_id=manifest.run_id,
                images=len(manifest.samples),
                status="complete",
            )
        )
    folder = study_folder(results, name)
    made = "2026-01-01T00:00:00+00:00"
    study = Study(
        format=1,
        name=name,
        file=f"{name}.toml",
        created=made,
        updated=made,
        axes=["backbone"],
        cells=cells,
    )
    write_study(folder, study)
    return folder
