"""A third party's package, installed with pip into a fresh environment beside the toolkit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from helpers.places import ROOT

PACKAGE = ROOT / "tests" / "third_party"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment that finds the toolkit and its requirements in the present one.

    They are on its path rather than installed again: torch alone is gigabytes.
    """
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    # `addsitedir` also reads the .pth files there, by which an editable install is found.
    (Path(site) / "beside.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    )
    return python


def pip(python: Path, *arguments: object) -> None:
    subprocess.run(
        [str(python), "-m", "pip", "-q", "--disable-pip-version-check", *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )


def bench_there(python: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), "-m", "bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "BENCH_LOAD_PLUGINS": "bench-example"},
        timeout=300,
    )


def names(python: Path, kind: str) -> set[str]:
    return {row["name"] for row in json.loads(bench_there(python, "list", kind, "--json").stdout)}


def test_installed_used_and_uninstalled(python: Path, tmp_path: Path) -> None:
    assert sys.prefix not in str(python)
    assert "shades" not in names(python, "datasets")
    pip(python, "install", "--no-deps", PACKAGE)
    assert "shades" in names(python, "datasets")
    assert "brightness" in names(python, "backbones")
    assert "first-draws" in names(python, "strategies")

    # Its dataset with its own backbone; its backbone on ours; its strategy on ours.
    runs: dict[str, list[object]] = {
        "dataset": ["shades"],
        "backbone": ["digits", "--backbone", "brightness", "--limit", 20],
        "strategy": ["digits", "--strategy", "first-draws", "--limit", 10, "--set", "draws=10"],
    }
    results = {}
    for kind, arguments in runs.items():
        done = bench_there(python, "run", *arguments, "--results", tmp_path, "--json")
        assert done.returncode == 0, done.stderr
        results[kind] = json.loads(done.stdout)
    assert results["dataset"]["metrics"]["accuracy"] == 1.0
    assert results["dataset"]["cost"]["evaluations_per_image"] == 2  # one draw: its logits
    assert results["backbone"]["dataset"]["n_samples"] == 20
    assert results["strategy"]["cost"]["evaluations_per_image"] == 10 * 2

    mistake = bench_there(python, "run", "shades", "--strategy", "first-draws", "--set", "first=0")
    assert mistake.returncode == 2 and "first must be at least 1" in mistake.stderr

    pip(python, "uninstall", "-y", "bench-example")
    assert "shades" not in names(python, "datasets")
    gone = bench_there(python, "run", "shades")
    assert gone.returncode == 2 and "Unknown dataset 'shades'" in gone.stderr
    # What it left behind can still be read.
    shown = bench_there(python, "show", results["dataset"]["run_id"], "--results", tmp_path)
    assert shown.returncode == 0 and "accuracy" in shown.stdout
