"""Files that data names: inside the folder, regular, or refused before scoring."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers.command import bench
from helpers.given import make_folder, picture, rows_of, spec_of, write_parquet

from bench.contracts.specs import DatasetSpec
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.inputs.data import DataSource, load_split
from bench.inputs.pixels import open_encoded
from bench.inputs.split import Split


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a picture in it, and one beside it."""
    make_folder(tmp_path, "outside.png", "data/pictures/inside.png")
    return tmp_path / "data"


def folder_spec() -> DatasetSpec:
    return load_plugins().datasets.get("folder")


def load(root: Path, *paths: str | None) -> Split:
    """Load a parquet file whose images are these files; the first is stored in it."""
    images = [picture(), *({"bytes": None, "path": path} for path in paths)]
    columns = {"image": images, "label": list(range(len(images)))}
    write_parquet(root / "x.parquet", columns, [f"c{i}" for i in range(len(images))])
    return load_split(DataSource(folder_spec(), str(root)))


def reads(split: Split, row: int) -> bool:
    try:
        with open_encoded(split.rows[row]["image"]) as file:
            return bool(file.read())
    except OSError:
        return False


LINKED: dict[str, Callable[[Path], str]] = {
    "beside the folder": lambda root: "../outside.png",
    "absolute": lambda root: str(root.parent / "outside.png"),
    "a file of the system": lambda root: "/etc/passwd",
    "a device": lambda root: "/dev/zero",
    "in the current folder": lambda root: os.path.relpath(root.parent / "outside.png"),
    "a link": lambda root: linked(root / "link.png", root.parent / "outside.png"),
    "a link to a link": lambda root: linked(
        root / "b.png", Path(root, linked(root / "a.png", root.parent / "outside.png"))
    ),
    "a linked folder": lambda root: linked(root / "up", root.parent) + "/outside.png",
    "a NUL": lambda root: "a\0b",
}


def linked(link: Path, target: Path) -> str:
    link.symlink_to(target)
    return link.name


@pytest.mark.parametrize("case", LINKED)
def test_a_name_that_leads_out_of_the_folder_is_refused(case: str, root: Path) -> None:
    name = LINKED[case](root)
    with pytest.raises(UserError, match=r"leads out of the folder|not the name of a file") as error:
        load(root, "pictures/inside.png", name)
    assert "\n" not in str(error.value) and str(root) in str(error.value)


INSIDE: dict[str, tuple[Callable[[Path], str | None], bool]] = {
    "relative": (lambda root: "pictures/inside.png", True),
    "absolute": (lambda root: str(root / "pictures" / "inside.png"), True),
    "a link": (lambda root: linked(root / "l.png", Path("pictures/inside.png")), True),
    "nothing": (lambda root: None, False),
    "missing": (lambda root: "none.png", False),
    "a broken link": (lambda root: linked(root / "l.png", root / "none.png"), False),
    "a circle of links": (lambda root: linked(root / "l.png", root / "l.png"), False),
    "a folder": (lambda root: "pictures", False),
    "an address": (lambda root: "http://127.0.0.1:1/x.png", False),
    "a member of an archive": (lambda root: "zip://x.png::a.zip", False),
    "a pipe": (lambda root: pipe(root / "pipe.png"), False),
}


def pipe(path: Path) -> str:
    os.mkfifo(path)
    return path.name


@pytest.mark.parametrize("case", INSIDE)
def test_a_name_inside_the_folder_is_read_or_fails_alone(case: str, root: Path) -> None:
    name, readable = INSIDE[case]
    split = load(root, name(root))
    assert reads(split, 0) and reads(split, 1) == readable
    assert len(split.fingerprint) == 64  # whatever lies there, it neither hangs nor ends the run


def test_the_current_folder_is_no_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "pictures")
    assert not reads(load(root, "inside.png"), 1)
    rows = rows_of([0, 1], datasets.ClassLabel(names=["a", "b"]))
    images = [picture(), {"bytes": None, "path": "inside.png"}]
    rows = datasets.Dataset.from_list(
        [{"image": image, "label": i} for i, image in enumerate(images)],
        features=rows.cast_column("image", datasets.Image(decode=False)).features,
    ).cast_column("image", datasets.Image())
    with pytest.raises(UserError, match=r"'inside\.png', is not absolute"):
        load_split(DataSource(spec_of(rows)))


def test_a_copy_in_the_cache_of_the_hub_may_link_to_its_blobs(tmp_path: Path) -> None:
    repository = tmp_path / "datasets--a--b"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    columns = {"image": [picture(), picture(1)], "label": [0, 1]}
    blob = write_parquet(repository / "blobs" / "123", columns, ["a", "b"])
    (snapshot / "test.parquet").symlink_to(os.path.relpath(blob, snapshot))
    assert load_split(DataSource(folder_spec(), str(snapshot))).labels == (0, 1)


@pytest.mark.parametrize("split", ["../other", "..", ".", "/etc", ".git", "te*t", ""])
def test_a_split_is_a_name_in_the_folder(split: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", "test/a/1.png", "test/b/1.png", ".git/c/1.png")
    make_folder(tmp_path / "other", "c/1.png", "d/1.png")
    done = bench("run", folder, "--split", split, "--dry-run")
    assert done.code == 2
    assert ("has no split" if split else "--split: must not be empty") in done.err


def test_images_linked_from_elsewhere_are_refused_and_broken_ones_kept(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", "a/1.png", "b/1.png")
    (folder / "b" / "2.png").symlink_to(folder / "none.png")
    pipe(folder / "b" / "3.png")
    split = load_split(DataSource(folder_spec(), str(folder)))
    assert split.sample_ids == ("a/1.png", "b/1.png", "b/2.png", "b/3.png")
    assert [reads(split, row) for row in range(4)] == [True, True, False, False]
    make_folder(tmp_path, "outside.png")
    (folder / "b" / "4.png").symlink_to(tmp_path / "outside.png")
    done = bench("run", folder, "--dry-run")
    assert done.code == 2 and "leads out of the folder" in done.err


def test_a_folder_that_links_are_made_of_is_named_in_the_message(tmp_path: Path) -> None:
    make_folder(tmp_path / "elsewhere", "a/1.png", "b/1.png")
    (tmp_path / "data").mkdir()
    for name in "ab":
        (tmp_path / "data" / name).symlink_to(tmp_path / "elsewhere" / name)
    with pytest.raises(UserError, match=r"holds no images \(2 linked folders \(a, b\)\)"):
        load_split(DataSource(folder_spec(), str(tmp_path / "data")))


ODD = ["gl*b[1]", "a::b", "all", "[x]", "ü ñ", "-x", "train me", "%20"]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("kind", ["images", "parquet"])
def test_odd_names_of_folders_and_files(kind: str, name: str, tmp_path: Path) -> None:
    if kind == "images":
        make_folder(tmp_path / name, f"{name}/1.png", "other/1.png")
    else:
        columns = {"image": [picture(), picture(1)], "label": [0, 1]}
        write_parquet(tmp_path / name / f"{name}.parquet", columns, ["a", "b"])
    assert len(load_split(DataSource(folder_spec(), str(tmp_path / name))).labels) == 2


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", "a/1.png", "b/1.png")
    bad = os.fsdecode(b"\xff")
    (folder / "b" / "1.png").rename(folder / "b" / f"{bad}.png")
    with pytest.raises(UserError, match="is not UTF-8; rename it"):
        load_split(DataSource(folder_spec(), str(folder)))
    folder.rename(tmp_path / bad)
    done = bench("run", tmp_path / bad, "--dry-run")
    assert done.code == 2 and "Unexpected" not in done.err


def test_a_parquet_file_rewritten_with_the_same_time_is_noticed(tmp_path: Path) -> None:
    def write(shade: int) -> str:
        columns: dict[str, Any] = {"image": [picture(shade), picture(7)], "label": [0, 1]}
        path = write_parquet(tmp_path / "test.parquet", columns, ["a", "b"])
        os.utime(path, ns=(10**18, 10**18))
        return load_split(DataSource(folder_spec(), str(tmp_path))).fingerprint

    first, second = write(1), write(2)
    assert first != second and write(1) == first


def test_a_dataset_that_reads_no_folder_takes_none(tmp_path: Path) -> None:
    done = bench("run", "digits", "--data-dir", tmp_path, "--dry-run")
    assert done.code == 2 and "Dataset 'digits' reads no folder; leave --data-dir out" in done.err


NAMES = ["x.parquet", "x.tar", "metadata.csv", "metadata.jsonl", "dataset.toml", "state.json"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_data_that_is_a_pipe_or_leads_out_is_not_read(name: str, tmp_path: Path) -> None:
    pictures = () if name == "x.tar" else ("a/1.png", "b/1.png")  # tars have none beside them
    folder = make_folder(tmp_path / "data", *pictures)
    folder.mkdir(exist_ok=True)
    (tmp_path / "out").write_text("a secret\n")
    (folder / name).symlink_to(tmp_path / "out")
    done = bench("prompts", folder)
    assert done.code == 2 and "leads out of the folder" in done.err
    assert "secret" not in done.out + done.err
    (folder / name).unlink()
    pipe(folder / name)
    done = bench("prompts", folder)
    if name == "state.json":  # what makes a saved dataset is a file
        assert done.code == 0 and "1 file of other types (.json)" in done.err
    else:
        assert done.code == 2 and "is not a regular file" in done.err
