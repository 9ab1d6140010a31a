"""The toolkit's wheel in a fresh environment, and a third party's package beside it."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from helpers.command import PATIENCE
from helpers.places import ROOT

pytestmark = pytest.mark.slow  # pip builds, installs and removes
THIRD_PARTY = ROOT / "tests" / "third_party"
SOURCES = {"bench": "bench", "plugins/bench_plugins": "bench_plugins"}  # folder → its package
IMPORT_ALL = """
import sys
from importlib import import_module
from importlib.util import find_spec
for name in sys.stdin.read().split():
    try:
        print(import_module(name).__file__)
    except ModuleNotFoundError as error:
        if error.name != "torchvision":  # it is in an extra
            raise
        print(find_spec(name).origin)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toolkit's wheel, built of a copy that holds no earlier build."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in SOURCES:
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, ignore=skipped)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    pip("wheel", "--no-deps", "--wheel-dir", target, source)
    [built] = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, that finds its requirements in the present one.

    They are on its path rather than installed again: torch alone is gigabytes.
    """
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder)  # this environment's pip is used
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip("--python", python, "install", "--no-deps", wheel)
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    # `addsitedir` also reads the .pth files there. What is installed here comes first.
    (Path(site) / "beside.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    )
    return python


def pip(*arguments: object) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def bench_there(python: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), "-m", "bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "BENCH_LOAD_PLUGINS": "bench-example"},
        timeout=PATIENCE,
    )


def names_of(python: Path, kind: str) -> set[str]:
    return {row["name"] for row in json.loads(bench_there(python, "list", kind, "--json").stdout)}


def test_the_wheel_is_whole(wheel: Path, python: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    for folder, package in SOURCES.items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{package}/{path.relative_to(ROOT / folder).as_posix()}" in packed
    files = [Path(name) for name in packed if name.endswith(".py") and "__main__" not in name]
    names = [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files]
    done = subprocess.run(
        [python, "-c", IMPORT_ALL],
        input="\n".join(names),
        capture_output=True,
        text=True,
        cwd=python.parent,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    imported = done.stdout.split()
    assert len(imported) == len(names) > 100
    environment = str(python.parents[1])
    assert all(path.startswith(environment) for path in imported), "not the wheel's own"
    assert "tiny-digits" in names_of(python, "backbones")


def test_installed_used_and_uninstalled(python: Path, tmp_path: Path) -> None:
    assert sys.prefix not in str(python)
    assert "shades" not in names_of(python, "datasets")
    pip("--python", python, "install", "--no-deps", THIRD_PARTY)
    assert "shades" in names_of(python, "datasets")
    assert "brightness" in names_of(python, "backbones")
    assert "first-draws" in names_of(python, "strategies")

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

    pip("--python", python, "uninstall", "-y", "bench-example")
    assert "shades" not in names_of(python, "datasets")
    gone = bench_there(python, "run", "shades")
    assert gone.returncode == 2 and "Unknown dataset 'shades'" in gone.stderr
    # What it left behind can still be read.
    shown = bench_there(python, "show", results["dataset"]["run_id"], "--results", tmp_path)
    assert shown.returncode == 0 and "accuracy" in shown.stdout
