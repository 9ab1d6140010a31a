"""What the tests share: a private environment, small pipelines and pictures."""

import gc
import os
import random
import tomllib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import refusals
from helpers.hub import Hub, a_hub, point_datasets
from helpers.own_folder import watched
from hypothesis import settings

from bench.discovery.finding import find_plugins

# On a busy machine an example takes as long as it takes.
settings.register_profile("bench", deadline=None)
settings.load_profile("bench")

# No test reads or writes the user's cache, variables or results, and none depends on which
# plugins of others are installed. At import: tests list what is registered to be parametrised.
for _name in [name for name in os.environ if name.startswith("BENCH_")]:
    if _name != "BENCH_TEST_UCMERCED":
        del os.environ[_name]
os.environ["BENCH_LOAD_PLUGINS"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"
_project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
_declared = {*_project["project"]["entry-points"]["bench"]}
if _missing := _declared - {plugin.name for plugin in find_plugins()}:
    pytest.exit(f"Not installed: the plugins {_missing}. Run `pip install -e .` again.", 4)
# Tests run side by side, and what they compute is small: one thread each. A container may have
# fewer cores than `os.cpu_count` says, and threads without a core wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["GOMP_SPINCOUNT"] = "10000"
gc.set_threshold(50_000)  # as `bench` does

MORE = ("matrix", "long")  # marks of the tests that are drawn


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options by which some of the further tests are drawn (`MORE`)."""
    parser.addoption(
        "--draw", type=int, help="run so many tests of each of the marks matrix and long"
    )
    parser.addoption("--draw-seed", type=int, default=0, help="the seed by which they are drawn")
    parser.addoption("--refusals", type=Path, help="write what was refused in the tests to a page")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give the tests of a file to one process, which makes its fixtures once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log) if config.getoption("dist") == "load" else None


@pytest.hookimpl(trylast=True)  # after `-m` and `-k` have selected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Draw tests of each mark in `MORE`; every process of pytest-xdist draws the same ones.

    A test without these marks is run, and one with both counts as one more case.
    """
    count = config.getoption("--draw")
    if count is None:
        return
    seeded, left_out = random.Random(config.getoption("--draw-seed")), set[pytest.Item]()
    for mark in MORE:
        marked = [t for t in items if next(filter(t.get_closest_marker, MORE), None) == mark]
        left_out |= {*seeded.sample(marked, max(len(marked) - count, 0))}
    config.hook.pytest_deselected(items=[test for test in items if test in left_out])
    items[:] = [test for test in items if test not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Let no test touch files that are not its own."""
    with watched():
        return (yield)


def pytest_collection_finish() -> None:
    """Keep what was imported for the tests out of every later search for garbage."""
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let Python's last search at its exit find all again: libraries report leaks otherwise."""
    gc.unfreeze()
    if hasattr(session.config, "workeroutput"):  # a process of pytest-xdist
        session.config.workeroutput["refusals"] = [*refusals.rows]
    elif file := session.config.getoption("refusals"):
        file.write_text(refusals.page(refusals.rows), "utf-8")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node: Any) -> None:
    """Gather what the tests of another process were refused with."""
    refusals.rows.update(map(tuple, getattr(node, "workeroutput", {}).get("refusals", [])))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, to which the clients of this process turn, with caches of their own."""
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "own-cache"))
    with a_hub() as served:
        point_datasets(served, tmp_path / "cache", monkeypatch)
        yield served


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give the tests a cache of their own."""
    os.environ["BENCH_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["HF_DATASETS_CACHE"] = str(tmp_path_factory.mktemp("datasets"))


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random pipelines that keep the traits of SD 1.5 (epsilon) and SD 2.1 (v-prediction)."""
    from helpers.pipelines import save_pipeline

    folder = tmp_path_factory.mktemp("pipelines")
    return {kind: save_pipeline(folder / kind, kind) for kind in ("sd15", "sd21")}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser, for tests that are skipped where there is none."""
    from helpers.browser import opened_browser

    with opened_browser() as opened:
        yield opened


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two classes of four pictures each, of several sizes and modes."""
    from PIL import Image

    for index in range(8):
        name = "cat" if index % 2 else "hot_dog"
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True, exist_ok=True)
        mode, colour = ("L", 25 * index) if index < 2 else ("RGB", (30 * index, 10, 200))
        Image.new(mode, (20 + index, 24), colour).save(folder / f"{index}.png")
    return tmp_path / "pictures"


@pytest.fixture
def captions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register a dataset of `helpers.captions`, which a test may exchange, and its denoiser."""
    from helpers.captions import one_image
    from helpers.given import Given

    from bench.contracts.specs import BackboneSpec, DatasetSpec
    from bench.discovery.loading import load_plugins

    dataset = DatasetSpec(name="captions", target="helpers.given:Given", items=True)
    backbone = BackboneSpec(name="painter", target="helpers.captions:Painter", trained_on=None)
    monkeypatch.setitem(load_plugins().datasets._specs, "captions", dataset)
    monkeypatch.setitem(load_plugins().backbones._specs, "painter", backbone)
    monkeypatch.setattr(Given, "rows", one_image())
