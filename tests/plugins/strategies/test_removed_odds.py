"""Runs and calibrations with `odds`, which `race` no longer has, are read and cannot be resumed."""

import shlex
import shutil
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.places import ROOT

from bench.running.command import reproducing_command
from bench.store.calibrations import read_calibration
from bench.store.folder import read_manifest

EXAMPLES = ROOT / "tests" / "store" / "odds"
ODDS = [-1.0, -0.5, 0.1, -0.1, -0.2, 0.1, 0.05]


def stored(example: str, results: Path) -> Path:
    """Return a copy of an example in a folder of results."""
    folder = results / read_manifest(EXAMPLES / example).run_id
    shutil.copytree(EXAMPLES / example, folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A race with odds on ten digits, beside a run of another backbone on the same images."""
    path = stored("race", tmp_path_factory.mktemp("results"))
    other = ("run", "digits", "--backbone", "random", "--limit", 10, "--results", path.parent)
    assert bench(*other).code == 0
    return path


def test_it_is_not_resumed(run: Path) -> None:
    words = shlex.split(reproducing_command(read_manifest(run)))[1:]
    assert "odds=-1,-0.5,0.1,-0.1,-0.2,0.1,0.05" in words
    refused = bench(*words, "--results", run.parent)
    assert refused.refuses("'odds'"), refused.err
    assert len(refused.err.strip().splitlines()) == 1


def test_its_calibration_is_read_and_not_used(tmp_path: Path) -> None:
    path = stored("calibration", tmp_path)
    calibration = read_calibration(path).calibration
    assert calibration.images == 40 and len(calibration.settings) == 11
    assert all(setting.strategy.params["odds"] == ODDS for setting in calibration.settings)
    assert bench("show", path).code == 0
    race = ("--strategy", "race", "--risk", 0.1, "--set", "draws=20", "--dtype", "float32")
    planned = bench("run", "digits", *race, "--results", tmp_path, "--dry-run")
    # It is as if nothing was calibrated: some of the run's own images are to be swept.
    assert planned.code == 0 and "swept" in planned.out + planned.err, planned.err
