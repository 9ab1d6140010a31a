"""Stored documents are read as what they must be, or refused by name; of any earlier format."""

import copy
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import bench
from helpers.matrix import matrix
from helpers.refusals import refused
from helpers.runs import a_manifest, a_record, store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.errors import UserError
from bench.stats.metrics.summarise import summarize
from bench.store.folder import list_runs, read_manifest, requested_records
from bench.store.formats.cells import part_path, read_cells, read_first_order, read_timesteps
from bench.store.formats.decisions import read_decisions
from bench.store.formats.documents import MANIFEST_FORMAT, MIGRATIONS, Manifest
from bench.store.formats.identity import digest
from bench.store.formats.journal import is_record, read_table
from bench.store.summary import Summary, read_summary

FORMATS = Path(__file__).parent / "formats"
LABELS = [i % 3 for i in range(12)]
DOCUMENTS = ("manifest.json", "summary.json")
few = settings(
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


# What any version of the toolkit ever wrote loads for ever.


def test_every_format_has_an_example_and_a_way_to_the_next() -> None:
    assert sorted(int(folder.name) for folder in FORMATS.iterdir()) == list(
        range(1, MANIFEST_FORMAT + 1)
    )
    assert sorted(MIGRATIONS) == list(range(MANIFEST_FORMAT))


@pytest.mark.parametrize("run", sorted(FORMATS.iterdir()), ids=lambda path: path.name)
def test_a_run_of_any_format_is_read_whole(run: Path) -> None:
    manifest = read_manifest(run)
    summary = read_summary(run, manifest)
    assert summary is not None and digest(manifest.identity)[:8] == manifest.run_id[-8:]
    decided, records = read_decisions(run, manifest, top=True), requested_records(run, manifest)
    assert len(decided) == len(records) == len(manifest.samples) == summary.dataset.n_samples
    again = summarize(manifest, decided, None, None)
    assert again.metrics.accuracy == summary.metrics.accuracy
    assert again.cost.equivalents_per_image == summary.cost.equivalents_per_image
    timesteps = read_timesteps(run / "errors", manifest.samples[0], 4)
    errors = read_cells(run / "errors", manifest.samples[0], (len(manifest.prompts), 4))
    [(mixture, first)] = read_first_order(run / "first_order", manifest.samples[0], errors.shape)
    assert timesteps.tolist() == [125, 375, 625, 875] and np.isfinite(errors).all()
    assert mixture.sum() == pytest.approx(1) and (first == 2 * errors).all()


@pytest.mark.parametrize("run", sorted(FORMATS.iterdir()), ids=lambda path: path.name)
def test_what_is_read_is_written_again_as_it_was(run: Path) -> None:
    for model, name in ((Manifest, DOCUMENTS[0]), (Summary, DOCUMENTS[1])):
        content = json.loads((run / name).read_text("utf-8"))
        content["of a newer version"] = {"kept": [1, None]}
        assert model.model_validate(content).plain() == content


# A run that cannot be read is named and left out, in every command.


def damaged(file: Path, content: str) -> None:
    file.write_text(content, "utf-8")


def no_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")


def blocked(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def led_away(file: Path) -> None:
    elsewhere = file.parent.parent.parent / f"elsewhere {file.name}"
    shutil.move(file, elsewhere)
    file.symlink_to(elsewhere)


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def enormous(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.truncate(600_000_000)  # a hole: it takes no room on the disk


DAMAGE: dict[str, Callable[[Path], None]] = {
    "empty": lambda file: damaged(file, ""),
    "no object": lambda file: damaged(file, "[]"),
    "null": lambda file: damaged(file, "null"),
    "an empty object": lambda file: damaged(file, "{}"),
    "deep": lambda file: damaged(file, "[" * 100_000),
    "a number of 5,000 digits": lambda file: damaged(file, "9" * 5000),
    "NaN": lambda file: damaged(file, '{"format": NaN}'),
    "not UTF-8": no_text,
    "a FIFO": blocked,
    "a link that leads out": led_away,
    "a folder": a_folder,
    "a hole of 600 MB": enormous,
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    store(tmp_path / "results", LABELS, LABELS)
    return tmp_path / "results"


@pytest.mark.parametrize(
    ("kind", "name"),
    matrix(product(DAMAGE, DOCUMENTS), [(kind, DOCUMENTS[n % 2]) for n, kind in enumerate(DAMAGE)]),
)
def test_a_damaged_run_is_named_and_left_out(results: Path, name: str, kind: str) -> None:
    """Of a run without a sound summary, what its records say is shown."""
    bad = store(results, LABELS, LABELS, seed=1)
    DAMAGE[kind](bad / name)
    listed = bench("leaderboard", "--results", results, "--json")
    assert listed.code == 0 and len(listed.json) == 1
    assert "Left out" in listed.err and str(bad / name) in listed.err
    assert bench("runs", "--results", results).code == 0
    page = results.parent / "page.html"
    done = bench("report", "--results", results, "--out", page, "--images", 0, "--json")
    without = [bad] if name == "manifest.json" else []
    assert done.code == 0 and [Path(n["name"]) for n in done.json["left_out"]] == without
    good = next(path for path in list_runs(results) if path != bad)
    shown = bench("show", bad)
    assert shown.code == (2 if without else 0) and str(bad / name) in shown.err
    for arguments in (["export", bad], ["results", "add", bad]):
        done = bench(*arguments, *(["--into", results.parent / "p"] * (arguments[1] == "add")))
        assert done.code == 2 and "Unexpected" not in done.err, arguments
    if name == "manifest.json":
        for arguments in (["compare", good, bad], ["replay", bad, "--strategy", "full"]):
            done = bench(*arguments)
            assert done.refuses(bad / name), arguments


@pytest.mark.parametrize("kind", ["a FIFO", "a link that leads out"])
def test_a_journal_is_opened_in_its_folder_only(results: Path, kind: str) -> None:
    bad = store(results, LABELS, LABELS, seed=1)
    DAMAGE[kind](bad / "samples.jsonl")
    listed = bench("leaderboard", "--results", results, "--json")
    assert listed.code == 0 and len(listed.json) == 1 and str(bad) in listed.err
    assert bench("show", bad).code == 2


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value inside a JSON document."""
    yield path
    if not isinstance(value, dict | list):
        return
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield from places(part, (*path, key))


def edited(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    changed = copy.deepcopy(value)
    place = changed
    for key in path[:-1]:
        place = place[key]
    if new is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = new
    return changed


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", ".", "..", "../x", "a/b", "\x1b[31m", "[/x]", "<b>", "1", "x" * 300])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


# A journal: the quick way to read it takes every record, and nothing with a wrong value in what it
# reads. A field that is missing is to it one without a value.

LINE = dict(a_record("s0000", 0, 1, linearisations=2, equivalents=60.5))


@pytest.mark.long
@settings(few, max_examples=150)
@given(data=st.data(), top=st.booleans())
def test_columns_are_read_from_records_only(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, top: bool
) -> None:
    path = data.draw(st.sampled_from([p for p in places(LINE) if p]))
    new = data.draw(anything | st.just(...))
    line = edited(LINE, path, new)
    folder = tmp_path_factory.mktemp("journal")
    (folder / "samples.jsonl").write_text(json.dumps(line) + "\n", "utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = read_table(folder, 3, top)
    if is_record(json.loads(json.dumps(line)), 3):
        assert len(table) == 1
    elif path[0] in table.column_names and new not in (..., None):
        assert len(table) == 0


# Parts: errors and first-order errors.


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FORMATS / "1", tmp_path / "run"))


def read_both(run: Path) -> None:
    read_timesteps(run / "errors", "digit-0024", 4)
    read_cells(run / "errors", "digit-0024", (10, 4))
    read_first_order(run / "first_order", "digit-0024", (10, 4))


@few
@given(place=st.integers(0, 2**31), byte=st.integers(0, 255), which=st.booleans())
def test_a_part_with_any_byte_changed_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, byte: int, which: bool
) -> None:
    run = tmp_path_factory.mktemp("part") / "run"
    shutil.copytree(FORMATS / "1", run)
    file = part_path(run / ("errors" if which else "first_order"), "digit-0024")
    content = bytearray(file.read_bytes())
    content[place % len(content)] = byte
    file.write_bytes(content)
    try:
        read_both(run)
    except UserError as error:
        assert str(file) in str(error)


@pytest.mark.parametrize("kind", ["empty", "a FIFO", "a link that leads out", "a folder"])
def test_a_part_is_opened_in_its_folder_only(parts: Path, kind: str) -> None:
    DAMAGE[kind](part_path(parts / "errors", "digit-0024"))
    with refused(".parquet"):
        read_both(parts)


@pytest.mark.parametrize("shape", [(9, 4), (10, 3)])
def test_a_part_of_another_run_is_refused(parts: Path, shape: tuple[int, int]) -> None:
    with refused(".parquet"):
        read_cells(parts / "errors", "digit-0024", shape)


def test_a_shard_has_one_place_per_image() -> None:
    part = {"index": 1, "count": 2, "asked": 4}
    a_manifest(["a", "b"], part={**part, "places": [0, 2]})
    with refused("place", kind=ValueError):
        a_manifest(["a", "b"], part={**part, "places": [0]})
