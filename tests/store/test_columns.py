"""Further labels of a run's images, and the answers of people to them."""

import hashlib
import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
from helpers.command import bench
from helpers.given import picture
from helpers.mutations import write_unsealed
from helpers.opened_here import opened_here as opened_here
from helpers.refusals import refused, warned
from helpers.runs import store

from bench.contracts.metric import NO_ANSWER
from bench.reports.dataset_columns import dataset_columns
from bench.store.columns import (
    FURTHER_LABELS,
    add_columns,
    column_values,
    read_answers,
    read_columns,
    read_columns_csv,
)
from bench.store.folder import read_manifest
from bench.store.formats.documents import Manifest


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return store(tmp_path / "results", [0, 1, 2], [0, 1, 1])


def test_columns_are_added_read_and_leave_the_run_as_it_is(run: Path, tmp_path: Path) -> None:
    file, manifest = tmp_path / "labels.csv", read_manifest(run)
    before = (run / "manifest.json").read_bytes()
    file.write_text('sample_id,shape,place\ns0000,"a, b",sea\ns0001,,land\n', "utf-8")
    add_columns(run, manifest, read_columns_csv(file))
    add_columns(run, manifest, {"third": {"s0002": "x"}})
    columns = read_columns(run, manifest)
    assert list(columns) == ["shape", "place", "third"]
    assert column_values(columns, "shape", manifest.samples).tolist() == ["a, b", "", ""]
    assert (run / "manifest.json").read_bytes() == before
    with refused("'plaice'", "'place'"):
        column_values(columns, "plaice", manifest.samples)


def test_stale_and_changed_columns_are_refused(run: Path) -> None:
    manifest = read_manifest(run)
    add_columns(run, manifest, {"shape": {"s0000": "round"}})
    content = json.loads((run / FURTHER_LABELS.name).read_text())
    (run / FURTHER_LABELS.name).write_text(
        json.dumps({**content, "columns": {"shape": {"s0000": "flat"}}})
    )
    with refused(FURTHER_LABELS.name):
        read_columns(run, manifest)
    other = store(run.parent, [0, 1, 2], [0, 1, 1], fingerprint="0" * 64)
    add_columns(other, read_manifest(other), {"shape": {"s0000": "round"}})
    shutil.copy(other / FURTHER_LABELS.name, run)
    with refused(FURTHER_LABELS.name, "stale"):
        read_columns(run, manifest)


def test_columns_of_format_1_are_read_while_their_hashes_hold(run: Path) -> None:
    manifest, columns = read_manifest(run), {"shape": {"s0000": "round"}}
    content = {
        "fingerprint": manifest.identity.dataset.fingerprint,
        "digest": hashlib.sha256(b'{"shape": {"s0000": "round"}}').hexdigest(),
        "columns": columns,
    }
    write_unsealed(run / FURTHER_LABELS.name, content)
    assert read_columns(run, manifest) == columns
    for change in ({"columns": {"shape": {"s0000": "flat"}}}, {"fingerprint": "0" * 64}):
        write_unsealed(run / FURTHER_LABELS.name, {**content, **change})
        with refused(FURTHER_LABELS.name):
            read_columns(run, manifest)


def test_columns_are_added_again_where_the_file_is_damaged(run: Path) -> None:
    (run / FURTHER_LABELS.name).write_text("{")
    with warned(FURTHER_LABELS.name):
        add_columns(run, read_manifest(run), {"shape": {"s0000": "round"}})
    assert list(read_columns(run, read_manifest(run))) == ["shape"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("image,shape\ns0000,a\n", "sample_id"),
        ("sample_id\ns0000\n", "labels.csv"),
        ("sample_id,shape\ns0000,a\ns0000,b\n", "'s0000'"),
        ("sample_id,shape\ns0000,a,b\n", "labels.csv:2"),
        ("sample_id,shape\nother,a\n", "'other'"),
        ("sample_id,shape\ns0000,\n", "shape"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(
    run: Path, tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with refused(problem):
        add_columns(run, read_manifest(run), read_columns_csv(tmp_path / "labels.csv"))


def test_answers_of_people_are_read_by_subject(run: Path, tmp_path: Path) -> None:
    file, manifest = tmp_path / "people.csv", read_manifest(run)
    file.write_text(
        "subject,sample_id,answer\nann,s0000,class 0\nann,s0002,\n"
        "bob,s0001,class 2\nbob,x,class 1\n"
    )
    answers = read_answers(file, manifest, manifest.samples)
    assert answers["ann"].tolist() == [0, NO_ANSWER, -1]
    assert np.array_equal(answers["bob"], [NO_ANSWER, 2, NO_ANSWER])
    for line, problem in (
        ("ann,s0000,class 7\n", "'class 7'"),
        ("ann,s0000,class 0\nann,s0000,class 0\n", "line 3"),
        ("ann,other,class 0\n", "people.csv"),
    ):
        file.write_text(f"subject,sample_id,answer\n{line}")
        with refused(problem):
            read_answers(file, manifest, manifest.samples)


# By the command, and of the dataset.


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
