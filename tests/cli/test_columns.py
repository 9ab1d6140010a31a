"""`bench results columns`: further labels from a file, and from the columns of the dataset."""

import hashlib
from pathlib import Path

import datasets
from helpers.command import bench
from helpers.given import picture
from helpers.refusals import refused
from helpers.runs import store

from bench.reports.dataset_columns import dataset_columns
from bench.store.columns import read_columns
from bench.store.folder import read_manifest
from bench.store.formats.documents import Manifest


def test_labels_of_a_file_are_added_and_used(tmp_path: Path) -> None:
    run, file = store(tmp_path / "results", [0, 1, 2, 0], [0, 1, 1, 2]), tmp_path / "labels.csv"
    file.write_text("sample_id,place\ns0000,sea\ns0001,sea\ns0002,land\n")
    done = bench("results", "columns", run, file)
    assert done.code == 0, done.err
    assert "place: 3 images, 2 values" in done.out and "--by place" in done.out
    shown = bench("show", run, "--metric", "accuracy", "--by", "place", "--json").json
    assert {name: row["value"] for name, row in shown.items()} == {"land": 0, "sea": 1}


def test_a_column_of_the_dataset_is_added(tmp_path: Path) -> None:
    made = bench(
        *("run", "digits", "--backbone", "random", "--limit", "20"),
        *("--results", tmp_path, "--json"),
    )
    run = Path(made.json["results_dir"])
    done = bench("results", "columns", run, "--of-dataset", "label", "--json")
    assert done.code == 0 and done.json == {"label": 20}, done.err
    manifest = read_manifest(run)
    assert set(read_columns(run, manifest)["label"].values()) <= set(manifest.classes)
    ended = bench("results", "columns", run, "--of-dataset", "lable")
    assert ended.refuses("'lable'", "'label'")
    for arguments in ((run,), (run, "x.csv", "--of-dataset", "label")):
        assert "Give a CSV file, or --of-dataset" in bench("results", "columns", *arguments).err


def masked(folder: Path, masks: list[bytes | None], run: Path) -> Manifest:
    """Save a dataset with a mask and a place per image, run it, and return the manifest."""
    kinds = {"image": datasets.Image(), "mask": datasets.Image()}
    rows = datasets.Dataset.from_dict(
        {
            "image": [picture(40 * n) for n in range(4)],
            "mask": [mask and {"bytes": mask, "path": None} for mask in masks],
            "label": ["cat", "dog"] * 2,
            "place": ["sea", "sea", "land", None],
        },
        features=datasets.Features(
            **kinds, label=datasets.Value("string"), place=datasets.Value("string")
        ),
    )
    rows.save_to_disk(folder)
    words = ("--image-column", "image", "--label-column", "label", "--backbone", "random")
    made = bench("run", folder, *words, "--results", run, "--json")
    assert made.code == 0, made.err
    return read_manifest(Path(made.json["results_dir"]))


def png(shade: int) -> bytes:
    return bytes(picture(shade)["bytes"])


def test_columns_that_a_run_does_not_read_are_read_for_further_labels(tmp_path: Path) -> None:
    masks = [png(1), png(1), png(2), None]
    manifest = masked(tmp_path / "masked", masks, tmp_path / "results")
    columns = dataset_columns(manifest, ["place", "mask", "label"])
    in_order = {name: [labels[s] for s in manifest.samples] for name, labels in columns.items()}
    assert in_order["place"] == ["sea", "sea", "land", ""]
    assert in_order["mask"] == [(m and hashlib.sha256(m).hexdigest()[:16]) or "" for m in masks]
    assert in_order["label"] == ["cat", "dog"] * 2
    masked(tmp_path / "masked", [*masks[:3], png(3)], tmp_path / "again")
    assert len(set(dataset_columns(manifest, ["mask"])["mask"].values())) == 3  # as it is now
    with refused("'plaice'", "'place'"):
        dataset_columns(manifest, ["plaice"])


def test_an_image_of_a_further_column_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    manifest = masked(tmp_path / "masked", [png(1), b"no", png(1), png(1)], tmp_path / "results")
    with refused("'mask'", "row 1"):
        dataset_columns(manifest, ["mask"])


def test_columns_of_other_data_are_refused(tmp_path: Path) -> None:
    manifest = masked(tmp_path / "masked", [None] * 4, tmp_path / "results")
    other = manifest.identity.dataset.model_copy(update={"fingerprint": "0" * 16})
    identity = manifest.identity.model_copy(update={"dataset": other})
    with refused("has changed"):
        dataset_columns(manifest.model_copy(update={"identity": identity}), ["place"])
