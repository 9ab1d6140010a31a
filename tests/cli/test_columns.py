"""`bench results columns`: further labels from a file, and from the columns of the dataset."""

from __future__ import annotations

from pathlib import Path

from helpers.command import bench
from helpers.runs import store

from bench.store.columns import read_columns
from bench.store.folder import read_manifest


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
    assert set(read_columns(run, read_manifest(run))["label"].values()) <= set("0123456789")
    refused = bench("results", "columns", run, "--of-dataset", "lable")
    assert refused.code == 2 and "no further column 'lable'. Did you mean 'label'" in refused.err
    for arguments in ((run,), (run, "x.csv", "--of-dataset", "label")):
        assert "Give a CSV file, or --of-dataset" in bench("results", "columns", *arguments).err


def test_a_column_of_images_is_no_further_label(tmp_path: Path) -> None:
    import datasets
    from PIL import Image

    pictures = [Image.new("RGB", (8, 8), (40 * n, 0, 0)) for n in range(4)]
    rows = datasets.Dataset.from_dict(
        {"image": pictures, "mask": pictures, "label": ["cat", "dog"] * 2},
        features=datasets.Features(
            image=datasets.Image(), mask=datasets.Image(), label=datasets.Value("string")
        ),
    )
    rows.save_to_disk(tmp_path / "masked")
    words = ("--image-column", "image", "--backbone", "random", "--results", tmp_path / "results")
    made = bench("run", tmp_path / "masked", *words, "--json")
    assert made.code == 0, made.err
    refused = bench("results", "columns", made.json["results_dir"], "--of-dataset", "mask")
    assert refused.code == 2 and "mask" in refused.err
