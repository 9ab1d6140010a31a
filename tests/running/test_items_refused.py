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
        (("--views", "spin"), "'spin'"),
        (("--views", "flip:3"), "'flip'"),
        (("--views", "crop:0"), "view"),
        (("--views", "posterior"), "posterior()"),
        (("--views", "posterior", "--latent", "sample"), "--latent"),
        (("--template", "a {class}"), "'captions'"),
    ],
)
def test_what_means_nothing_is_refused(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    done = run(tmp_path, "full", *options)
    assert done.refuses(message) and not list(tmp_path.rglob("manifest.json"))


BAD: dict[str, dict[str, Any]] = {
    "no texts": {"texts": []},
    "an empty text": {"texts": ["a red 3 left of a blue 5", "  "]},
    "a text twice": {"texts": ["a red 3 left of a blue 5", "A red 3  left of a blue 5"]},
    "no such answer": {"label": 2},
    "one text": {"texts": ["a red 3 left of a blue 5"], "label": 0},
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_item_is_refused_with_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    rows: list[dict[str, Any]] = [dict(row) for row in one_image(4)]
    rows[2] |= {"texts": rows[0]["texts"][:2], "label": 0, **BAD[case]}
    monkeypatch.setattr(Captions, "rows", with_images({k: [r[k] for r in rows] for k in rows[0]}))
    done = run(tmp_path, "full")
    assert done.refuses("item 'item-2'")
    assert not list(tmp_path.rglob("manifest.json"))


BAD_PAIRS: dict[str, dict[str, Any]] = {
    "another shape": {"images": 3, "pairing": [0, 1, 2]},
    "a pair missing": {"pairing": [1]},
    "one text twice": {"pairing": [1, 1]},
    "no images": {"images": 0, "pairing": []},
}


def test_items_need_their_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = ("image", "label")
    rows = {name: [row[name] for row in one_image(4)] for name in columns}
    monkeypatch.setattr(Captions, "rows", with_images(rows))
    done = run(tmp_path, "full")
    assert done.refuses("'texts'")


def test_a_position_that_no_answer_has_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Captions, "rows", one_image(3))  # no item's second text is right
    done = bench("check-data", "captions", "--json")
    assert done.code == 0 and done.json["classes"] == 0, done.err


@pytest.mark.parametrize("case", BAD_PAIRS)
def test_a_bad_pair_is_refused_with_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    rows: list[dict[str, Any]] = [dict(row) for row in two_images(3)]
    rows[2] |= BAD_PAIRS[case]
    if isinstance(rows[2]["images"], int):
        rows[2]["images"] = (rows[0]["images"] * 2)[: rows[2]["images"]]
    monkeypatch.setattr(Captions, "rows", with_images({k: [r[k] for r in rows] for k in rows[0]}))
    done = run(tmp_path, "full")
    assert done.refuses("item 'pair-2'"), done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--strategy", "screen-race"), "screen-race"),
        (("--backbone", "majority"), "'captions'"),
        (("--candidates-from", "RUN"), "--candidates-from"),
        (("--template-rule", "mean"), "--template-rule"),
        (("--skip-unlabelled",), "--skip-unlabelled"),
    ],
)
def test_what_cannot_serve_items_says_why_before_scoring(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    known = run(tmp_path, "full", "--limit", 2, "--save-errors").json["run_id"]
    given = [known if word == "RUN" else word for word in options]
    named = [] if "--backbone" in given else ["--backbone", "painter"]
    done = bench("run", "captions", *named, *given, "--results", tmp_path)
    assert done.refuses(message), done.err
    assert len(list(tmp_path.rglob("manifest.json"))) == 1
    refused = bench("learn", tmp_path / known, "reach")
    assert refused.refuses("items")


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
