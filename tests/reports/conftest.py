"""Stored runs that the tests of the report share, whose data is opened in this process."""

from pathlib import Path

import pytest
from helpers.opened_here import opened_here as opened_here
from helpers.reporting import save_pictures, store_reported, store_run
from helpers.sketch import sketched as sketched

CLASSES = ["ant", "bee", "cat"]


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run of every kind, and a result of others."""
    folder = tmp_path_factory.mktemp("stored")
    data = save_pictures(folder / "data", CLASSES, 10)
    results = folder / "results"
    store_run(results, "zero", data, CLASSES, errors=True)
    store_run(results, "trained", data, CLASSES, gap=0.2, trained_on="pictures/train")
    store_run(results, "subset", data, CLASSES, n=15, draws=5, draw_plan="grid:0-200")
    store_run(results, "replayed", data, CLASSES, draws=8, replayed_from="zero")
    store_reported(results)
    return folder
