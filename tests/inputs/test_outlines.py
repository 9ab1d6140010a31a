"""What is remembered of a split is what reading it again would give, whatever has changed since."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.given import write_parquet
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.discovery import answers
from bench.errors import BenchWarning, UserError
from bench.inputs import data
from bench.inputs.data import DataSource, load_split
from bench.inputs.split import Split

READER = "bench_plugins.datasets.folder"
FILES = ("cat/1.bmp", "cat/2.bmp", "dog/1.bmp", "dog/3.bmp")


def write_picture(path: Path, value: int) -> None:
    """Write a picture whose file has the same size for every value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (60 * value, 10, 200)).save(path)


@pytest.fixture
def restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Return what makes this process one that has not imported the reader."""
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    before = sys.modules.get(READER)

    def again() -> None:
        sys.modules.pop(READER, None)
        answers._asked.clear()

    again()
    yield again
    again()
    if before is not None:
        sys.modules[READER] = before


def make_folder(folder: Path) -> Path:
    for place, file in enumerate(FILES):
        write_picture(folder / file, place)
    return folder


def list_pictures(folder: Path, form: str) -> Path:
    """Return the folder, or a file in it that names the pictures."""
    make_folder(folder)
    if form == ".csv":
        listed = "".join(f"{name},{name[:3]}\n" for name in FILES)
        (folder / "list.csv").write_text(f"file_name,label\n{listed}")
    elif form == ".parquet":
        images = [{"bytes": None, "path": name} for name in FILES]
        columns = {"image": images, "label": [name[:3] for name in FILES]}
        write_parquet(folder / "list.parquet", columns)
    return folder / f"list{form}" if form else folder


def source_of(folder: Path, **options: Any) -> DataSource:
    return DataSource(data.find_path_reader(), str(folder), **options)


def read_anew(source: DataSource) -> Split:
    outline, rows, items = data._read_split(source, None)
    return data._make_split(source, outline, lambda: rows, items)


def facts(split: Split) -> object:
    read = split.class_names, split.sample_ids, split.labels, split.fingerprint, split.decoding
    return split.name, split.version, split.split, split.groups, *read


def rewrite(path: Path, value: int) -> None:
    """Change a picture but for its size and modification time."""
    before = path.stat()
    write_picture(path, value)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def change(folder: Path, kind: str, file: str, value: int) -> None:
    path = folder / file
    if kind == "write":
        write_picture(path, value)
    elif kind == "rewrite" and path.exists():
        rewrite(path, value)
    elif kind == "move" and path.exists():
        path.rename(path.with_name(f"moved-{value}.bmp"))
    elif kind == "link" and file != FILES[value]:
        path.unlink(missing_ok=True)
        path.symlink_to(folder / FILES[value])
    elif kind == "new class":
        write_picture(folder / f"owl{value}" / "1.bmp", value)
    elif kind == "table":
        listed = "\n".join(f"{name},{value}" for name in FILES if (folder / name).exists())
        (folder / "metadata.csv").write_text(f"file_name,label\n{listed}\n")
    elif kind == "no table":
        (folder / "metadata.csv").unlink(missing_ok=True)


KINDS = ("write", "rewrite", "move", "link", "new class", "table", "no table", "nothing")
CHANGES = st.tuples(st.sampled_from(KINDS), st.sampled_from(FILES), st.integers(0, 3))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(("", ".csv", ".parquet")),
    changes=st.lists(CHANGES, min_size=1, max_size=4),
)
@example(form=".csv", changes=[("rewrite", FILES[1], 3)])
@example(form=".parquet", changes=[("write", FILES[1], 3)])
@example(form=".parquet", changes=[("link", FILES[1], 0), ("link", FILES[1], 2)])
def test_it_is_what_would_be_read(
    form: str,
    changes: list[Any],
    restart: Callable[[], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("images")
    source = source_of(list_pictures(folder, form))

    def outcome(load: Callable[[], Split]) -> object:
        try:
            return facts(load())
        except UserError as error:
            return str(error)

    for one in changes:
        change(folder, *one)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BenchWarning)
            for _ in range(2):
                restart()
                remembered = outcome(lambda: load_split(source))
                assert remembered == outcome(lambda: read_anew(source))


def test_a_second_process_reads_nothing_and_warns_as_the_first(
    tmp_path: Path, restart: Callable[[], None]
) -> None:
    source = source_of(make_folder(tmp_path / "images"))
    (tmp_path / "images/cat/notes.doc").write_text("no image")
    found = []
    for _ in range(2):
        restart()
        with pytest.warns(BenchWarning, match="Left out"):
            found.append(facts(split := load_split(source)))
    assert found[0] == found[1]
    assert READER not in sys.modules and "rows" not in vars(split)
    with pytest.warns(BenchWarning, match="Left out"):
        assert [sample.sample_id for sample in split.samples(["cat/1.bmp"])] == ["cat/1.bmp"]
    assert READER in sys.modules, "images are read when they are needed"


def test_images_that_changed_meanwhile_are_not_scored(
    tmp_path: Path, restart: Callable[[], None]
) -> None:
    source = source_of(make_folder(tmp_path / "images"))
    load_split(source)
    restart()
    split = load_split(source)
    write_picture(tmp_path / "images/cat/another.bmp", 0)
    with pytest.raises(UserError, match="changed meanwhile"):
        _ = split.rows


def test_a_command_that_is_started_again_reads_what_was_remembered_falsely(
    tmp_path: Path, restart: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a process whose code was replaced by a newer version while it ran."""
    source, read = source_of(make_folder(tmp_path / "images")), data._read_split

    def read_otherwise(*arguments: Any) -> Any:
        outline, *others = read(*arguments)
        return {**outline, "labels": outline["labels"][::-1]}, *others

    with monkeypatch.context() as earlier:
        earlier.setattr(data, "_read_split", read_otherwise)
        load_split(source)
    restart()
    with pytest.raises(UserError, match="Start the command again"):
        _ = load_split(source).rows
    restart()
    assert facts(load_split(source)) == facts(read_anew(source))


def test_files_of_names_count_as_the_data(tmp_path: Path, restart: Callable[[], None]) -> None:
    names = tmp_path / "names.txt"
    source = source_of(make_folder(tmp_path / "images"), class_names=names)
    for words in (("tom cat", "hot dog"), ("cat", "hound")):
        names.write_text("\n".join(words))
        restart()
        assert load_split(source).classes == words
        restart()
        assert load_split(source).classes == words


@pytest.mark.parametrize(
    ("name", "place", "remembered"),
    [("digits", None, True), ("hf", None, False), ("ucmerced", None, False), ("dtd", None, False)],
)
def test_only_what_files_determine_is_remembered(
    name: str, place: str | None, remembered: bool
) -> None:
    from bench.discovery.loading import load_plugins

    source = DataSource(load_plugins().datasets.get(name), place)
    assert (data._state(source) is not None) is remembered
