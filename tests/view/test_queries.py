"""Images of a run's page are chosen by class, and by a further label."""

from __future__ import annotations

from pathlib import Path

from helpers.runs import store

from bench.store.decisions import read_decisions
from bench.store.folder import read_manifest
from bench.view.pages import select_samples


def test_images_are_chosen_by_a_further_label(tmp_path: Path) -> None:
    run = store(tmp_path, [0, 1, 2, 0], [0, 1, 1, 2])
    manifest = read_manifest(run)
    decided = read_decisions(run, manifest)
    columns = {"place": {"s0000": "sea", "s0002": "sea", "s0003": "land"}}
    query = {"show": "all", "sort": "order", "column": "place", "value": "sea"}
    for changes, rows in (
        ({}, [0, 2]),
        ({"show": "wrong"}, [2]),
        ({"value": ""}, [0, 1, 2, 3]),
        ({"column": "other"}, [0, 1, 2, 3]),
        ({"value": "air"}, []),
    ):
        chosen = select_samples(decided, manifest.classes, {**query, **changes}, columns)
        assert chosen.tolist() == rows
