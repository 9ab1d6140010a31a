"""Damaged input of every kind: it is refused, or gives the result of the undamaged input.

A case is made from its surface and its number alone. The first cases and those that once failed
always run; `pytest -m slow` runs all of them, in one process.
"""

import contextlib
import random
import resource
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from helpers.matrix import matrix
from helpers.opened_here import Opened
from helpers.surfaces import READERS, SURFACES, Surface, read_with

from bench.contracts.specs import BackboneSpec
from bench.discovery.loading import load_plugins
from bench.reports.figures import images

SECONDS, BYTES = 20, 2 * 2**30  # processor time and memory that one case may take
PATIENCE = 10 * SECONDS  # for one that waits, on a machine that is busy with other things
REFUSED = (2, 3)
SHARE, MOST = 20, 3  # of the cases, one of so many always runs, and so many per surface
MANY = {
    "table": 1000,
    "tar": 1000,
    "declaration": 1000,
    "parquet": 600,
    "cache": 700,
    "embeddings": 60,
    "run": 1200,
    "learned": 300,
    "error table": 300,
    "submission": 400,
}
# Surface → cases that once failed.
FAILED = {"tar": (16,), "declaration": (215,), "parquet": (496,), "run": (179,)}


Undamaged = tuple[Path, Any]  # the folder, and the result


class Hang(BaseException):
    """A case took too long."""


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Limit the time and the memory that the block takes."""

    def stop(*_: object) -> None:
        raise Hang

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, before[1]))
    handlers = {kind: signal.signal(kind, stop) for kind in (signal.SIGALRM, signal.SIGPROF)}
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for kind, handler in handlers.items():
            signal.signal(kind, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the classifier."""
    spec = BackboneSpec(
        name="colours", target="helpers.surfaces:Colours", scorer="classifier", trained_on=None
    )
    monkeypatch.setitem(load_plugins().backbones._specs, "colours", spec)


@pytest.fixture(scope="module")
def opened_here() -> None:
    """Replace nothing: damaged data is read by the process that has limits."""


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Undamaged]:
    """Return a surface's undamaged folder, with its cache beside it, and its result."""

    @cache
    def of(name: str) -> Undamaged:
        surface, folder = SURFACES[name], tmp_path_factory.mktemp(name) / "whole/input"
        surface.make(folder)
        copied = shutil.copytree(folder.parent, folder.parents[1] / "used") / folder.name
        done, result = surface.use(copied, random.Random(0))
        assert done.code == 0, done.err
        return folder, result

    return of


@pytest.mark.parametrize("surface", matrix(SURFACES, {*SURFACES} - {"learned"}))
def test_damaged_input_is_refused_or_harmless(
    surface: str, undamaged: Callable[[str], Undamaged], tmp_path: Path
) -> None:
    cases = {*range(few(surface)), *FAILED.get(surface, ())}
    check(surface, cases, *undamaged(surface), tmp_path)


@pytest.mark.parametrize("surface", matrix(READERS, {*READERS} - {"learned"}))
def test_every_command_reads_what_is_not_damaged(
    surface: str,
    undamaged: Callable[[str], Undamaged],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A command that is refused for another reason would find no damage."""
    monkeypatch.setattr(images, "_Process", Opened)
    folder = shutil.copytree(undamaged(surface)[0], tmp_path / "input")
    codes = {command: read_with(command, folder).code for command in READERS[surface]}
    assert codes == dict.fromkeys(READERS[surface], 0)


@pytest.mark.slow
@pytest.mark.parametrize("surface", matrix(SURFACES, {*SURFACES} - {"learned"}))
def test_thousands_of_damaged_inputs(
    surface: str, undamaged: Callable[[str], Undamaged], tmp_path: Path
) -> None:
    check(surface, range(few(surface), MANY[surface]), *undamaged(surface), tmp_path)


def few(surface: str) -> int:
    """Return how many cases of a surface always run."""
    return min(MANY[surface] // SHARE, MOST)


def check(surface: str, cases: Iterable[int], whole: Path, wanted: Any, place: Path) -> None:
    """Try the cases; fail with all that are wrong."""
    wrong = []
    for case in sorted(cases):
        folder = place / str(case)
        shutil.copytree(whole.parent, folder, symlinks=True)
        seed = f"{surface} {case}"
        if problem := tried(SURFACES[surface], folder / whole.name, wanted, seed):
            wrong.append(f"{seed}: {problem}")
            print(wrong[-1])  # at once, with `pytest -s`
        shutil.rmtree(folder)
    assert not wrong, "\n".join([f"{len(wrong)} cases:", *wrong])


def tried(surface: Surface, folder: Path, wanted: Any, seed: str) -> str | None:
    """Damage the input and use it; return what is wrong, None if nothing is."""
    rng = random.Random(seed)
    surface.damage(folder, rng)
    try:
        with bounded():
            done, found = surface.use(folder, rng)
    except Hang:
        return f"took more than {SECONDS} s of processor time, or {PATIENCE} s"
    except Exception as error:
        return f"ended the test: {error!r:.300}"
    if "Error: Unexpected" in done.err or "Traceback" in done.err or done.code not in (0, *REFUSED):
        return f"exit {done.code}: {done.err.strip()[-300:]}"
    if done.code == 0 and found != wanted and not is_part(found, wanted, done.err):
        return f"exit 0 with {found}: {done.err.strip()[-300:]}"
    return None


def is_part(found: Any, wanted: Any, said: str) -> bool:
    """Tell whether all that is missing is images that a warning names."""
    return "Warning: Left out of" in said and found[0].keys() < wanted[0].keys()
