"""A setting and a loss are written down once: made in a copy of the toolkit, and used there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.command import PATIENCE
from helpers.places import ROOT

SETTING = """
    tilt: float = setting(
        0.0, "How far the error is tilted.", DENOISERS, identity="scoring", classify=True
    )

    @field_validator("plan")
"""
IDENTITY = """
import json, sys
from bench.running.prepare import prepare
from bench.running.settings import make_config
config = {"dataset": "digits", "strategy": "full", "params": {"draws": 2}, "limit": 1}
print(json.dumps([prepare(make_config({**config, **more})).manifest.identity.plain()["scoring"]
    for more in ({}, {"tilt": 0.0}, {"tilt": 0.5})]))
"""


@pytest.fixture
def toolkit(tmp_path: Path) -> Path:
    """A copy of the toolkit, run in place of the installed one where it is the working folder."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "bench", tmp_path / "bench", ignore=ignored)
    return tmp_path


def replaced(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {file}"
    file.write_text(text.replace(old, new), "utf-8")


def python(toolkit: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=toolkit, capture_output=True, text=True, timeout=PATIENCE)


def test_a_setting_is_one_field_of_its_part(toolkit: Path) -> None:
    part = toolkit / "bench" / "running" / "parts" / "measure.py"
    replaced(part, '\n    @field_validator("plan")\n', SETTING)
    for command in ("run", "classify"):
        shown = " ".join(python(toolkit, "-m", "bench", command, "--help").stdout.split())
        assert "--tilt FLOAT How far the error is tilted. [for denoisers]" in shown
    plain, default, tilted = json.loads(python(toolkit, "-c", IDENTITY).stdout)
    assert plain == default and tilted == {**plain, "tilt": 0.5}
    run = ("-m", "bench", "run", "digits", "--backbone", "random", "--limit", 1)
    refused = python(toolkit, *run, "--tilt", "0.5", "--results", toolkit / "results")
    assert refused.returncode == 2
    assert "--tilt is for denoisers. Backbone 'random' is a classifier" in refused.stderr


def test_a_loss_is_one_name_and_one_case(toolkit: Path) -> None:
    losses = toolkit / "bench" / "inputs" / "estimand.py"
    replaced(losses, 'Loss = Literal["l2", ', 'Loss = Literal["l4", "l2", ')
    replaced(
        losses,
        "        case _:\n",
        '        case "l4":\n            return difference.pow(4).flatten(1).mean(dim=1)\n'
        "        case _:\n",
    )
    run = ("-m", "bench", "run", "digits", "--strategy", "full", "--set", "draws=2", "--limit", 1)
    done = python(toolkit, *run, "--loss", "l4", "--results", toolkit / "results", "--json")
    assert done.returncode == 0, done.stderr
    folder = Path(json.loads(done.stdout)["results_dir"])
    assert json.loads((folder / "manifest.json").read_text())["identity"]["scoring"]["loss"] == "l4"
    refused = python(toolkit, *run, "--loss", "l5", "--results", toolkit / "results")
    assert refused.returncode == 2 and "l4" in refused.stderr
