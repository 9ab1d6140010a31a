"""Items that are wrong, and what items cannot serve: said before scoring, with the item's id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.caption_runs import run
from helpers.captions import Captions, one_image, two_images, with_images
from helpers.command import bench

from bench.store.folder import read_records

pytestmark = pytest.mark.usefixtures("captions")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--views", "spin"), "Unknown views 'spin'"),
        (("--views", "flip:3"), "the views 'flip' take no value"),
        (("--views", "crop:0"), "at least one view is needed"),
        (("--views", "posterior"), "needs posterior()"),
        (("--views", "posterior", "--latent", "sample"), "exclude each other: these views are"),
        (("--template", "a {class}"), "every item of dataset 'captions' has texts of its own"),
    ],
)
def test_what_means_nothing_is_refused(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    done = run(tmp_path, "full", *options)
    assert done.code == 2 and message in done.err and not list(tmp_path.rglob("manifest.json"))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no texts": ({"texts": []}, "expected a list of candidate texts"),
    "an empty text": ({"texts": ["a red 3 left of a blue 5", "  "]}, "a candidate must be a text"),
    "a text twice": (
        {"texts": ["a red 3 left of a blue 5", "A red 3  left of a blue 5"]},
        "occurs twice",
    ),
    "no such answer": (
        {"label": 2},
        "must be one of its 2 texts, counted from 0, got 2",
    ),
    "one text": ({"texts": ["a red 3 left of a blue 5"], "label": 0}, "nothing to decide"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_item_is_refused_with_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    change, message = BAD[case]
    rows: list[dict[str, Any]] = [dict(row) for row in one_image(4)]
    rows[2] |= {"texts": rows[0]["texts"][:2], "label": 0, **change}
    monkeypatch.setattr(Captions, "rows", with_images({k: [r[k] for r in rows] for k in rows[0]}))
    done = run(tmp_path, "full")
    assert done.code == 2 and "item 'item-2'" in done.err and message in done.err
    assert not list(tmp_path.rglob("manifest.json"))


BAD_PAIRS: dict[str, tuple[dict[str, Any], str]] = {
    "another shape": ({"images": 3, "pairing": [0, 1, 2]}, "has 3 images and 2 texts, but the"),
    "a pair missing": ({"pairing": [1]}, "for each of 2 images in a column 'pairing', got 1"),
    "one text twice": ({"pairing": [1, 1]}, "two of its images have the same right text"),
    "no images": ({"images": 0, "pairing": []}, "it has no images"),
}


def test_items_need_their_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = ("image", "label")
    rows = {name: [row[name] for row in one_image(4)] for name in columns}
    monkeypatch.setattr(Captions, "rows", with_images(rows))
    done = run(tmp_path, "full")
    assert done.code == 2 and "has no column 'texts'. Its columns: image, label" in done.err


def test_a_position_that_no_answer_has_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Captions, "rows", one_image(3))  # no item's second text is right
    done = bench("check-data", "captions", "--json")
    assert done.code == 0 and done.json["classes"] == 0, done.err


@pytest.mark.parametrize("case", BAD_PAIRS)
def test_a_bad_pair_is_refused_with_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    change, message = BAD_PAIRS[case]
    rows: list[dict[str, Any]] = [dict(row) for row in two_images(3)]
    rows[2] |= change
    if isinstance(rows[2]["images"], int):
        rows[2]["images"] = (rows[0]["images"] * 2)[: rows[2]["images"]]
    monkeypatch.setattr(Captions, "rows", with_images({k: [r[k] for r in rows] for k in rows[0]}))
    done = run(tmp_path, "full")
    assert done.code == 2 and "item 'pair-2'" in done.err and message in done.err, done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--strategy", "screen-race"), "linearises at a mixture of prompts that all images share"),
        (("--backbone", "majority"), "learns classes, but dataset 'captions' has items"),
        (("--candidates-from", "RUN"), "items have texts of their own, and no classes to choose"),
        (("--template-rule", "mean"), "--template-rule is about classes"),
        (("--skip-unlabelled",), "--skip-unlabelled is about classes"),
    ],
)
def test_what_cannot_serve_items_says_why_before_scoring(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    known = run(tmp_path, "full", "--limit", 2, "--save-errors").json["run_id"]
    given = [known if word == "RUN" else word for word in options]
    named = [] if "--backbone" in given else ["--backbone", "painter"]
    done = bench("run", "captions", *named, *given, "--results", tmp_path)
    assert done.code == 2 and message in done.err, done.err
    assert len(list(tmp_path.rglob("manifest.json"))) == 1
    refused = bench("learn", tmp_path / known, "reach")
    assert refused.code == 2 and "items have texts of their own" in refused.err


def test_an_item_without_an_image_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [dict(row) for row in two_images(4)]
    rows[1]["images"] = [rows[1]["images"][0], None]
    monkeypatch.setattr(Captions, "rows", with_images({k: [r[k] for r in rows] for k in rows[0]}))
    done = run(tmp_path, "full")
    assert done.code == 3 and done.json["failed_samples"] == 1
    error = read_records(Path(done.json["results_dir"]))["pair-1"]["error"]
    assert error.startswith("image 2 cannot be read")
    assert json.loads(done.out)["metrics"]["text_score"] <= 0.75
