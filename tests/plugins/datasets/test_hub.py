"""The Hub's datasets, from a Hub of our own."""

import os
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from helpers.command import bench
from helpers.given import picture, write_parquet
from helpers.hub import Hub as Server
from helpers.refusals import refused, warned

from bench.inputs.rows import as_dataset
from bench_plugins.datasets.hub import Hub, HubSource, parse_source

IMAGES = pa.array([picture(1), picture(2), picture(3)])


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("a/b", HubSource("a/b")),
        ("a/b@v1", HubSource("a/b", "v1")),
        ("a/b@refs/convert/parquet:c/test", HubSource("a/b", "refs/convert/parquet", "c", "test")),
        ("a/b:/test", HubSource("a/b", split="test")),
        ("a/b:c/test[:20]", HubSource("a/b", None, "c", "test", 20)),
        ("a.b/c-d_e:c", HubSource("a.b/c-d_e", config="c")),
    ],
)
def test_a_source_is_read(source: str, place: HubSource) -> None:
    assert parse_source(source) == place


@pytest.mark.parametrize("source", ["", "a", "a/b/c", "../b", "a/b:c/d/e", "a/b:c/t[1:2]", "a b/c"])
def test_what_is_no_source_is_refused(source: str) -> None:
    with refused("hf:owner/name"):
        parse_source(source)
    assert bench("prompts", f"hf:{source}").code == 2


@pytest.fixture
def repository(hub: Server, tmp_path: Path) -> Path:
    """A folder laid out as a repository, which the Hub has as owner/pets."""
    folder = tmp_path / "pets"
    for split, fine in (("test", [0, 1, 1]), ("train", [1, 0, 0])):
        write_parquet(
            folder / "data" / f"{split}-00000-of-00001.parquet",
            {"img": IMAGES, "fine": fine, "coarse": ["x", "y", "y"], "key": [7, 8, 9]},
        )
    hub.add("datasets/owner/pets", folder)
    return folder


def load(source: str, split: str | None = None, data_dir: Any = None, **columns: Any) -> Any:
    return as_dataset(Hub(source, **columns).load(split, data_dir))


def test_columns_are_found_or_named(repository: Path) -> None:
    with refused("'label'", "--label-column"):
        load("owner/pets")
    rows = load("owner/pets", label_column="coarse", id_column="key")
    assert rows["label"] == ["x", "y", "y"] and rows["sample_id"] == ["7", "8", "9"]
    assert str(rows.split) == "test" and rows.column_names == ["image", "label", "sample_id"]
    assert load("owner/pets:/train", label_column="fine")["label"] == [1, 0, 0]


def test_a_class_of_another_split_is_a_class_with_the_hub_and_in_a_copy(
    hub: Server, tmp_path: Path
) -> None:
    for split, label in (("test", ["x", "y", "y"]), ("train", ["z", "x", "y"])):
        write_parquet(tmp_path / f"words/{split}.parquet", {"image": IMAGES, "label": label})
    hub.add("datasets/owner/words", tmp_path / "words")
    for copy in (None, str(tmp_path / "words")):
        with warned("z"):
            rows = load("owner/words", data_dir=copy)
        assert rows.features["label"].names == ["x", "y", "z"] and rows["label"] == [0, 1, 1]


def test_wrong_names_are_answered(repository: Path) -> None:
    with refused("'tset'", "'test'"):
        load("owner/pets", "tset", label_column="fine")
    with refused("'other'"):
        load("owner/pets:other", label_column="fine")
    with refused("'train'"):
        load("owner/pets:/train", "test", label_column="fine")


def test_the_first_images_are_streamed(repository: Path) -> None:
    rows = load("owner/pets:/test[:2]", label_column="coarse")
    assert rows["label"] == ["x", "y"] and str(rows.split) == "test[:2]"
    whole = load("owner/pets", label_column="coarse").cast_column(
        "image", datasets.Image(decode=False)
    )
    first = rows.cast_column("image", datasets.Image(decode=False))
    assert [row["image"]["bytes"] for row in first] == [
        row["image"]["bytes"] for row in whole.select([0, 1])
    ]


def test_a_copy_is_read_without_the_hub(repository: Path) -> None:
    rows = load("someone/else", data_dir=str(repository), label_column="fine")
    assert rows["label"] == [0, 1, 1]


def test_a_script_is_never_run(hub: Server, tmp_path: Path) -> None:
    script = f"open({str(tmp_path / 'ran')!r}, 'w')\n".encode()
    hub.files["datasets/owner/scripted"] = {"scripted.py": script}
    with refused("hf:owner/scripted"):
        load("owner/scripted")
    assert not (tmp_path / "ran").exists()


def test_a_folder_of_that_name_is_not_taken_for_it(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner" / "pets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with refused("./owner/pets"):
        load("owner/pets", label_column="fine")


def test_without_a_network_the_way_out_is_said() -> None:
    with refused("HF_HUB_OFFLINE", "--data-dir", "--revision v1"):
        load("owner/absent@v1")


def test_a_copy_with_a_pipe_in_it_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "test-0.parquet")
    with refused("test-0.parquet"):
        Hub("owner/name").load_table("test", str(tmp_path))
