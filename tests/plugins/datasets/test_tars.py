"""WebDataset tars: whole ones are read without running anything, others are named."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.given import picture

from bench.discovery.loading import load_plugins
from bench.errors import BenchWarning, UserError
from bench.inputs.data import DataSource, load_split
from bench.inputs.split import Split

PICTURES = [picture(shade)["bytes"] for shade in (10, 20, 30, 40)]


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def load(
    path: Path | str, split: str | None = None, skip_unlabelled: bool = False, **parameters: Any
) -> Split:
    spec = load_plugins().datasets.get("folder")
    source = DataSource(spec, str(path), parameters, skip_unlabelled=skip_unlabelled)
    return load_split(source, split)


def test_a_label_is_a_class_file_a_key_or_a_text(tmp_path: Path) -> None:
    members = {
        "a/1.png": PICTURES[0],
        "a/1.cls": b"cat",
        "a/1.pyd": b"\x80\x04never read",
        "a/2.jpg.png": PICTURES[1],
        "a/2.json": b'{"label": "dog", "kind": "x"}',
        "a/3.txt": b"cat\n",
        "a/3.webp": PICTURES[2],
        "captions.txt": b"no image",
    }
    split = load(write_tar(tmp_path / "x.tar", members))
    assert split.classes == ("cat", "dog") and split.labels == (0, 1, 0)
    assert split.sample_ids == ("a/1", "a/2", "a/3")
    with pytest.raises(UserError, match=r"x.tar: a/1.json .*'kind'"):
        load(tmp_path / "x.tar", label_column="kind")


def test_a_pattern_names_all_its_files(tmp_path: Path) -> None:
    for shard in range(2):
        members = {"1.png": PICTURES[shard], "1.cls": str(shard).encode()}
        write_tar(tmp_path / f"s-{shard:03}.tar", members)
    split = load(f"{tmp_path}/s-{{000..001}}.tar")
    assert split.labels == (0, 1) and split.sample_ids == ("s-000.tar:1", "s-001.tar:1")
    (tmp_path / "classnames.txt").write_text("cat\nsea horse\n")
    assert load(f"{tmp_path}/s-{{000..001}}.tar").classes == ("cat", "sea horse")
    done = bench("prompts", f"{tmp_path}/s-{{000..002}}.tar")
    assert done.code == 2 and "There is no file" in done.err and "s-002.tar" in done.err


def test_tars_of_one_name_in_several_folders_have_ids_of_their_own(tmp_path: Path) -> None:
    for place, label in (("b/x.tar", b"cat"), ("a/x.tar", b"dog"), ("a/deep/x.tar", b"cat")):
        write_tar(tmp_path / place, {"1.png": PICTURES[len(place) % 4], "1.cls": label})
    assert load(tmp_path).sample_ids == ("a/deep/x.tar:1", "a/x.tar:1", "b/x.tar:1")
    assert load(tmp_path).labels == (0, 1, 0)


def test_folders_of_tars_have_splits(tmp_path: Path) -> None:
    for part, word in (("test", b"0"), ("train", b"1")):
        two = {"1.png": PICTURES[0], "1.cls": word, "2.png": PICTURES[1], "2.cls": b"0"}
        write_tar(tmp_path / part / "0.tar", two)
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    assert load(tmp_path).labels == (0, 0) and load(tmp_path, "train").labels == (1, 0)
    with pytest.raises(UserError, match="no split 'val'; it has: test, train"):
        load(tmp_path, "val")


@pytest.mark.parametrize("kept", [100, 600, 1024, 1600, 2048])
def test_a_tar_that_is_cut_off_is_named(tmp_path: Path, kept: int) -> None:
    members = {"1.png": PICTURES[0], "1.cls": b"0", "2.png": PICTURES[1], "2.cls": b"1"}
    path = write_tar(tmp_path / "cut.tar", members)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"cut\.tar"):
        load(path)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ({"2.json": b'{"label": null}'}, "1 of 2 images have no label .* such as image 2"),
        ({"2.jpg": b"", "2.cls": b"1"}, r"expected one image for '2', got 2.png, 2.jpg"),
        (
            {"2.json": b'{"label": ["cat"]}'},
            r"in 2.json the label is \['cat'\]; expected a text",
        ),
        ({"2.cls": b"9" * 20}, "the label '9{20}' is too large"),
    ],
)
def test_a_label_that_makes_no_sense_is_named(
    tmp_path: Path, label: dict[str, bytes], said: str
) -> None:
    members = {"1.png": PICTURES[0], "1.cls": b"0", "2.png": PICTURES[1], **label}
    with pytest.raises(UserError, match=said):
        load(write_tar(tmp_path / "a.tar", members))


def test_a_mask_is_not_the_image_and_what_has_no_image_or_label_is_left_out_aloud(
    tmp_path: Path,
) -> None:
    members = {
        **{"1.seg.png": PICTURES[1], "1.png.webp": PICTURES[2], "1.jpg": PICTURES[0]},
        **{"1.cls": b"cat", "2.png": PICTURES[1], "3.png": PICTURES[2], "3.txt": b"dog"},
        **{"4.avif": PICTURES[3], "4.cls": b"cat", "notes.txt": b"no label"},
    }
    path = write_tar(tmp_path / "x.tar", members)
    with pytest.warns(BenchWarning, match="no label and are left out") as caught:
        split = load(path, skip_unlabelled=True)
    assert "1 label without an image (4)" in str(caught[0].message)
    assert (split.sample_ids, split.labels) == (("1", "3"), (0, 1))
    assert [row["image"]["bytes"] for row in split.rows] == [PICTURES[0], PICTURES[2]]


def test_images_without_any_label_are_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {"1.png": PICTURES[0], "1.json": b'{"size": 4}'})
    with pytest.raises(UserError, match=r"x.tar: none of the 1 images has a label.*column"):
        load(path)
    with pytest.raises(UserError, match=r"x.tar: 1.json is not JSON"):
        load(write_tar(path, {"1.png": PICTURES[0], "1.json": b"{"}))
