"""One whole run that the tests of the store compare theirs with."""

import shutil
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.scoring import LIMIT, command
from helpers.sketch import sketched as sketched


@pytest.fixture(scope="module")
def whole(sketched: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of a few images with its errors, which no test changes."""
    results = tmp_path_factory.mktemp("whole")
    done = bench(*command("tiny-digits", results, "--limit", LIMIT, "--save-errors", "--json"))
    assert done.code == 0, done.err
    return Path(done.json["results_dir"])


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    """The same run, to be changed."""
    return Path(shutil.copytree(whole, tmp_path / "copied" / whole.name))
