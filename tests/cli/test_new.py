"""`bench new` writes packages that work as they stand."""

import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.command import bench

KINDS = ("dataset", "backbone", "strategy", "metric", "plugin")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One package of each kind, as a user writes it."""
    folder = tmp_path_factory.mktemp("new")
    made = {}
    for kind in KINDS:
        done = bench("new", kind, f"made.by-{kind}", "--into", folder, "--json")
        assert done.code == 0, done.err
        made[kind] = Path(done.json["folder"])
        assert {
            p.relative_to(made[kind]).as_posix() for p in made[kind].rglob("*") if p.is_file()
        } == set(done.json["files"])
    return made


def installed(packages: dict[str, Path], site: Path) -> dict[str, str]:
    """Lay out what pip would: metadata and entry points; return the environment that finds them."""
    for folder in packages.values():
        project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
        info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        points = project["entry-points"]["bench"].items()
        lines = "".join(f"{name} = {module}\n" for name, module in points)
        (info / "entry_points.txt").write_text(f"[bench]\n{lines}")
    paths = [str(site), *(str(folder / "src") for folder in packages.values())]
    kept = {name: value for name, value in os.environ.items() if name != "BENCH_LOAD_PLUGINS"}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}


def run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_each_passes_its_own_tests(written: dict[str, Path], tmp_path: Path) -> None:
    """In one process, since torch takes seconds to import."""
    tests = [str(folder / "tests") for folder in written.values()]
    settings = ("-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-W", "ignore")
    command = [sys.executable, "-m", "pytest", *settings, f"--rootdir={tmp_path}", *tests]
    run(command, tmp_path, installed(written, tmp_path / "site"))


@pytest.mark.skipif(find_spec("ruff") is None, reason="ruff is not installed")
def test_each_is_formatted_and_passes_ruff(written: dict[str, Path], tmp_path: Path) -> None:
    folders = [str(folder) for folder in written.values()]
    ruff = [sys.executable, "-m", "ruff"]
    run([*ruff, "check", "--no-cache", *folders], tmp_path, dict(os.environ))
    run([*ruff, "format", "--check", "--no-cache", *folders], tmp_path, dict(os.environ))


@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed")
@pytest.mark.slow
def test_each_passes_mypy(written: dict[str, Path], tmp_path: Path) -> None:
    """The package that has all parts has the code of the others; the toolkit is found installed."""
    settings = ("--follow-imports=silent", f"--cache-dir={tmp_path}")
    run([sys.executable, "-m", "mypy", *settings], written["plugin"], dict(os.environ))


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("dataset", "Flowers", "Flowers"),
        ("dataset", "2flowers", "2flowers"),
        ("dataset", "my--flowers", "my--flowers"),
        ("dataset", "../flowers", "../flowers"),
        ("dataset", "digits", "dataset 'digits'"),
        ("metric", "auroc", "metric 'auroc'"),
        ("plugin", "race", "strategy 'race'"),
        ("backbone", "plugins", "plugins"),
        ("dataset", "there", "bench-there"),
        ("dataset", "my-birds", "file"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(
    kind: str, name: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "bench-there").mkdir()
    (tmp_path / "file").touch()
    into = tmp_path / "file" if name == "my-birds" else tmp_path
    done = bench("new", kind, name, "--into", into)
    assert done.refuses(said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench-there", "file"]


def test_it_says_what_to_do_next(tmp_path: Path) -> None:
    done = bench("new", "strategy", "bench-mine", "--into", tmp_path)
    assert "pip install -e '.[test]'" in done.out and str(tmp_path / "bench-mine") in done.out
