"""Files that data names: inside the folder, regular, or refused before scoring."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.given import load_folder, make_folder, picture, write_parquet

from bench.inputs.pixels import open_encoded
from bench.inputs.split import Split


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a picture in it, and one beside it."""
    make_folder(tmp_path, "outside.png", "data/pictures/inside.png")
    return tmp_path / "data"


def load(root: Path, *paths: str | None) -> Split:
    """Load a parquet file whose images are these files; the first is stored in it."""
    images = [picture(), *({"bytes": None, "path": path} for path in paths)]
    columns = {"image": images, "label": list(range(len(images)))}
    write_parquet(root / "x.parquet", columns, [f"c{i}" for i in range(len(images))])
    return load_folder(root)


def reads(split: Split, row: int) -> bool:
    try:
        with open_encoded(split.rows[row]["image"]) as file:
            return bool(file.read())
    except OSError:
        return False


def linked(link: Path, target: Path) -> str:
    link.symlink_to(target)
    return link.name


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


def test_a_copy_in_the_cache_of_the_hub_may_link_to_its_blobs(tmp_path: Path) -> None:
    repository = tmp_path / "datasets--a--b"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    columns = {"image": [picture(), picture(1)], "label": [0, 1]}
    blob = write_parquet(repository / "blobs" / "123", columns, ["a", "b"])
    (snapshot / "test.parquet").symlink_to(os.path.relpath(blob, snapshot))
    assert load_folder(snapshot).labels == (0, 1)


def test_broken_images_are_kept(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", "a/1.png", "b/1.png")
    (folder / "b" / "2.png").symlink_to(folder / "none.png")
    pipe(folder / "b" / "3.png")
    split = load_folder(folder)
    assert split.sample_ids == ("a/1.png", "b/1.png", "b/2.png", "b/3.png")
    assert [reads(split, row) for row in range(4)] == [True, True, False, False]


ODD = ["gl*b[1]", "a::b", "all", "[x]", "ü ñ", "-x", "train me", "%20"]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("kind", ["images", "parquet"])
def test_odd_names_of_folders_and_files(kind: str, name: str, tmp_path: Path) -> None:
    if kind == "images":
        make_folder(tmp_path / name, f"{name}/1.png", "other/1.png")
    else:
        columns = {"image": [picture(), picture(1)], "label": [0, 1]}
        write_parquet(tmp_path / name / f"{name}.parquet", columns, ["a", "b"])
    assert len(load_folder(tmp_path / name).labels) == 2


def test_a_folder_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / os.fsdecode(b"\xff"), "a/1.png", "b/1.png")
    assert bench("run", folder, "--dry-run").refuses("--dataset")


def test_a_dataset_that_reads_no_folder_takes_none(tmp_path: Path) -> None:
    done = bench("run", "digits", "--data-dir", tmp_path, "--dry-run")
    assert done.code == 2 and "Dataset 'digits' reads no folder; leave --data-dir out" in done.err
