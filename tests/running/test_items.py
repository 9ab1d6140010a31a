"""Runs of items with texts of their own: decisions, store, replay, report, and refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.captions import (
    DRAWS,
    Painter,
    errors_by_hand,
    one_image,
    run,
    two_images,
    with_images,
)
from helpers.command import bench
from helpers.given import Given
from helpers.matrix import matrix
from helpers.refusals import refused
from helpers.scoring import same, timeless
from helpers.stopped import interrupted_after
from PIL import Image

from bench import load_dataset
from bench import run as bench_run
from bench.inputs.items import _check_right
from bench.inputs.pixels import decode
from bench.store.folder import read_manifest, read_records

pytestmark = pytest.mark.usefixtures("captions")


def rows_by_id(rows: Any) -> dict[str, Any]:
    return {row["sample_id"]: row for row in rows}


SCHEDULE = ("--set", f"samples=6,{DRAWS}", "--set", "keep=2,1")


@pytest.mark.parametrize(
    ("strategy", "options"), [("full", ()), ("adaptive", SCHEDULE), ("race", ())]
)
def test_scores_are_those_computed_by_hand(
    tmp_path: Path, strategy: str, options: tuple[str, ...]
) -> None:
    done = run(tmp_path, strategy, *options)
    rows = rows_by_id(one_image())
    records = read_records(Path(done.json["results_dir"]))
    assert records.keys() == rows.keys()
    for name, row in rows.items():
        errors = errors_by_hand(decode(row["image"]), row["texts"], DRAWS)
        record = records[name]
        assert record["prediction"] == errors.mean(axis=1).argmin()
        assert record["shape"] == [1, len(row["texts"])] and record["group"] == row["group"]
        for text, score, draws in record["top"]:
            if draws == DRAWS:
                assert score == pytest.approx(errors[text].mean(), rel=1e-5)
        if strategy == "full":
            assert record["evaluations"] == errors.size
    metrics = done.json["metrics"]
    right = [records[name]["prediction"] == row["label"] for name, row in rows.items()]
    assert metrics["accuracy"] == np.mean(right) > 0.8
    assert metrics["chance"] == pytest.approx(np.mean([1 / len(r["texts"]) for r in rows.values()]))
    assert metrics["worst_group"]["n"] == 4
    # A text is encoded once, however many items use it.
    assert len(Painter.encoded) == len(set(Painter.encoded)) or not Painter.encoded


@pytest.mark.parametrize("kind", matrix(["one", "two"], ["two"]))
def test_a_run_that_was_stopped_is_resumed_and_replayed(tmp_path: Path, kind: str) -> None:
    Given.rows = one_image() if kind == "one" else two_images()
    wanted = Path(run(tmp_path / "whole", "full", "--save-errors").json["results_dir"])
    arguments = ["run", "captions", "--backbone", "painter", "--strategy", "full", "--set"]
    arguments += [f"draws={DRAWS}", "--results", str(tmp_path / "stopped"), "--save-errors"]
    with interrupted_after(3):
        assert bench(*arguments).code == 130
    found = Path(run(tmp_path / "stopped", "full", "--save-errors").json["results_dir"])
    assert same(timeless(found), timeless(wanted))
    assert len((found / "samples.jsonl").read_text().splitlines()) == len(Given.rows)

    for strategy in ("full", "race"):
        live = run(tmp_path / "live", strategy).json
        again = bench(
            "replay", wanted, "--strategy", strategy, "--results", tmp_path / "again", "--json"
        ).json
        assert same(timeless(Path(again["results_dir"])), timeless(Path(live["results_dir"])))
        assert same(again["metrics"], live["metrics"])


def test_pairs_have_text_image_and_group_scores(tmp_path: Path) -> None:
    Given.rows = two_images()
    few = 2  # draws: some of the decisions are wrong
    done = run(tmp_path, "full", draws=few)
    right: dict[str, list[bool]] = {"text": [], "image": [], "group": []}
    records = read_records(Path(done.json["results_dir"]))
    for name, row in rows_by_id(two_images()).items():
        images = [decode(image) for image in row["images"]]
        scores = np.array([errors_by_hand(i, row["texts"], few).mean(axis=1) for i in images])
        np.testing.assert_allclose(records[name]["pairs"], scores, rtol=1e-5)
        straight = scores if row["pairing"] == [0, 1] else scores[:, ::-1]
        text = straight[0, 0] < straight[0, 1] and straight[1, 1] < straight[1, 0]
        image = straight[0, 0] < straight[1, 0] and straight[1, 1] < straight[0, 1]
        for kind, value in (("text", text), ("image", image), ("group", text and image)):
            right[kind].append(bool(value))
    metrics = done.json["metrics"]
    for kind, values in right.items():
        assert metrics[f"{kind}_score"] == np.mean(values)
    assert metrics["accuracy"] == metrics["text_score"]
    chances = metrics["chance"], metrics["image_chance"], metrics["group_chance"]
    assert chances == (0.25, 0.25, pytest.approx(1 / 6))
    shown = bench("show", done.json["run_id"], "--results", tmp_path)
    assert "guessing: 16.7" in shown.out
    page = tmp_path / "page.html"
    reported = bench("report", done.json["run_id"], "--results", tmp_path, "--out", page, "--json")
    assert reported.json["left_out"] == [] and "<dt>Group score, %</dt>" in page.read_text()
    assert page.read_text().count("data:image/") >= 8
    raced = run(tmp_path, "race", draws=few)
    assert "no image and group score" in raced.err and "image_score" not in raced.json["metrics"]


def test_the_null_s_errors_are_subtracted_across_images(tmp_path: Path) -> None:
    Given.rows = two_images()
    done = run(tmp_path, "full", "--subtract-null", "--save-errors", draws=4)
    folder = Path(done.json["results_dir"])
    records = read_records(folder)
    for name, row in rows_by_id(two_images()).items():
        images = [decode(image) for image in row["images"]]
        errors = np.array([errors_by_hand(image, [*row["texts"], None], 4) for image in images])
        wanted = (errors[:, :2] - errors[:, 2:]).mean(axis=2)
        np.testing.assert_allclose(records[name]["pairs"], wanted, rtol=1e-4, atol=1e-6)
        assert records[name]["evaluations"] == 2 * 3 * 4
    again = bench("replay", folder, "--strategy", "full", "--results", tmp_path / "b", "--json")
    assert same(timeless(Path(again.json["results_dir"])), timeless(folder))
    ended = run(tmp_path, "race", "--subtract-null")
    assert ended.refuses("'race'")
    Given.rows = one_image()
    ended = run(tmp_path, "full", "--subtract-null")
    assert ended.refuses("--subtract-null")


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("full", ("--subtract-null",)),
        ("uniform", ("--subtract-null", "--set", "samples=2")),
        ("uniform", ("--guidance", 3, "--set", "samples=2")),
        ("race", ("--guidance", 3)),
    ],
)
def test_every_item_costs_what_its_plan_says(
    tmp_path: Path, strategy: str, options: tuple[str, ...]
) -> None:
    rows = one_image() if strategy == "race" else two_images()
    Given.rows = rows
    plan = run(tmp_path, strategy, *options, "--dry-run", draws=8).json
    assert plan["images"] == len(rows) and plan["template"] is None
    least = plan.get("evaluations_per_image_at_least") or plan["evaluations_per_image"]
    done = run(tmp_path, strategy, *options, draws=8)
    records = read_records(Path(done.json["results_dir"])).values()
    costs = [record["evaluations"] for record in records]
    assert least <= min(costs) and max(costs) <= plan["evaluations_per_image"]
    assert plan["at_most"] == (strategy == "race")
    if strategy == "race":  # items have two to four texts, and a first look four draws
        assert least == (2 + 1) * 4 and plan["evaluations_per_image"] == (4 + 1) * 8
        assert run(tmp_path, "full", "--dry-run", draws=8).json["at_most"]
    else:
        assert min(costs) == max(costs) == plan["evaluations_per_image"]


def test_blind_controls_are_runs_of_their_own(tmp_path: Path) -> None:
    seen = run(tmp_path, "full").json
    blind = {
        control: run(tmp_path, "full", "--control", control).json
        for control in ("grey", "noise", "shuffled-images")
    }
    assert len({seen["run_id"], *(found["run_id"] for found in blind.values())}) == 4
    assert seen["metrics"]["accuracy"] == 1
    assert all(found["metrics"]["accuracy"] < 0.8 for found in blind.values())
    shown = bench("show", blind["grey"]["run_id"], "--results", tmp_path)
    assert "control=grey" in shown.out
    page = tmp_path / "page.html"
    assert bench("report", "--results", tmp_path, "--out", page).code == 0
    text = page.read_text()
    assert '<h2 id="blind">' in text and text.count(f"{seen['run_id']}</th>") == 3


def test_python_gives_decoded_images() -> None:
    for rows in (one_image(2), two_images(2)):
        Given.rows = rows
        row = load_dataset("captions")[0]
        images = row["images"] if "images" in row else [row["image"]]
        assert all(image.size == (16, 16) for image in images) and len(row["texts"]) >= 2


@pytest.mark.parametrize("kind", matrix(["one", "two"], ["two"]))
def test_a_deviation_and_weights_are_learned_from_items(tmp_path: Path, kind: str) -> None:
    rows = one_image() if kind == "one" else two_images()
    Given.rows = rows.select(range(6))
    recorded = run(tmp_path, "full", "--save-errors").json["run_id"]
    race = ("--strategy", "race")
    learned = bench("learn", tmp_path / recorded, "deviation", *race, "--json").json["settings"]
    (setting,) = learned["settings"]
    params = [w for name, value in setting["params"].items() for w in ("--set", f"{name}={value}")]
    replay = ("replay", tmp_path / recorded, *race, *params, "--results", tmp_path / "b", "--json")
    again = bench(*replay)
    assert setting["cost"] == again.json["cost"]["evaluations_per_image"]

    weighting = ("--weighting", f"learned:{recorded}", "--set", f"draws={DRAWS}")
    ended = run(tmp_path, "full", *weighting)
    assert ended.refuses("split")
    Given.rows = rows.select(range(4, len(rows)))
    done = run(tmp_path, "full", *weighting)
    assert done.code == 0 and "The run to be scored counts as trained on it" in done.err
    assert done.json["backbone"]["trained_on"] == "captions/all"


def test_items_in_memory_are_scored_from_python(tmp_path: Path) -> None:
    named = run(tmp_path, "full", "--limit", 5).json
    settings: dict[str, Any] = {"backbone": "painter", "strategy": "full", "limit": 5}
    settings |= {"params": {"draws": DRAWS}, "batch_size": 16, "results": str(tmp_path)}
    mine = bench_run(one_image(), **settings)
    assert mine["metrics"] == named["metrics"] and mine.run_id.startswith("data-painter-full-")
    assert len(mine.samples) == 5 and mine.examples_figure().axes
    pairs = bench_run(two_images(), **settings)
    assert "group_score" in pairs["metrics"]
    with refused("'label'", "'pairing'"):
        bench_run(one_image().remove_columns("label"), **settings)


def test_shards_keep_the_images_of_an_item_together(tmp_path: Path) -> None:
    Given.rows = two_images()
    whole = run(tmp_path / "whole", "full", draws=2).json
    for index in (1, 2):
        run(tmp_path / "parts", "full", "--shard", f"{index}/2", draws=2)
    merged = bench("results", "merge", whole["run_id"], "--results", tmp_path / "parts", "--json")
    assert merged.code == 0, merged.err
    assert merged.json["metrics"] == whole["metrics"] and "group_score" in whole["metrics"]
    runs = (Path(merged.json["results_dir"]), Path(whole["results_dir"]))
    assert same(*map(timeless, runs))
    assert read_manifest(runs[0]).items == read_manifest(runs[1]).items


BAD: dict[str, dict[str, Any]] = {
    "no texts": {"texts": []},
    "an empty text": {"texts": ["a red 3 left of a blue 5", "  "]},
    "a text twice": {"texts": ["a red 3 left of a blue 5", "A red 3  left of a blue 5"]},
    "no such answer": {"label": 2},
    "one text": {"texts": ["a red 3 left of a blue 5"], "label": 0},
}


BAD_PAIRS: dict[str, dict[str, Any]] = {
    "another shape": {"images": 3, "pairing": [0, 1, 2]},
    "a pair missing": {"pairing": [1]},
    "one text twice": {"pairing": [1, 1]},
    "no images": {"images": 0, "pairing": []},
    "an image twice": {"images": [0, 0], "pairing": [0, 1]},
}


@pytest.mark.parametrize("case", [*BAD, *BAD_PAIRS])
def test_a_bad_item_is_refused_with_its_id(tmp_path: Path, case: str) -> None:
    rows: list[dict[str, Any]] = [dict(r) for r in (one_image if case in BAD else two_images)(4)]
    if case in BAD:
        rows[2] |= {"texts": rows[0]["texts"][:2], "label": 0, **BAD[case]}
    else:
        rows[2] |= BAD_PAIRS[case]
    if isinstance(rows[2].get("images"), int):
        rows[2]["images"] = (rows[0]["images"] * 2)[: rows[2]["images"]]
    elif "images" in BAD_PAIRS.get(case, {}):
        rows[2]["images"] = [rows[0]["images"][place] for place in rows[2]["images"]]
    Given.rows = with_images({k: [r[k] for r in rows] for k in rows[0]})
    done = run(tmp_path, "full")
    assert done.refuses("item 'item-2'" if case in BAD else "item 'pair-2'"), done.err
    assert not list(tmp_path.rglob("manifest.json"))


@pytest.mark.parametrize("right", [[[1]], [[0], [1]], [None], ["1"], [True]])
def test_right_answers_that_are_no_numbers_are_refused(right: list[Any]) -> None:
    with refused("the right answer must be"):
        _check_right(right, (1, 3), "item")
    with refused("the right answer must be"):
        _check_right(right, (3, 1), "item")


def test_an_answer_that_is_stated_twice_is_refused(tmp_path: Path) -> None:
    rows = one_image()
    rows = rows.add_column("pairing", [[1 - label] for label in rows["label"]])
    with refused("both columns", "'label'", "'pairing'"):
        bench_run(rows, backbone="painter", strategy="full", results=str(tmp_path))


@pytest.mark.parametrize(
    "images, texts, answer, label",
    [(1, 2, "pairing = [1]", 1), (1, 2, "label = 1", 1), (2, 1, "label = 1", 1)],
)
def test_a_declared_answer_is_what_is_scored(
    tmp_path: Path, images: int, texts: int, answer: str, label: int
) -> None:
    names = [f"{number}.png" for number in range(images)]
    for name in names:
        Image.new("RGB", (8, 8), (40 * int(name[0]), 9, 9)).save(tmp_path / name)
    record: dict[str, str] = {f"i{n}": name for n, name in enumerate(names)}
    record |= {f"t{n}": f"text {n}" for n in range(texts)}
    (tmp_path / "items.json").write_text(json.dumps([record]))
    declaration = (
        'name = "mine"\nsource = "download"\nitems = true\n[item]\nfile = "items.json"\n'
        f"images = {json.dumps([f'i{n}' for n in range(images)])}\n"
        f"texts = {json.dumps([f't{n}' for n in range(texts)])}\n"
    )
    path = tmp_path / "mine.toml"
    path.write_text(declaration + answer + "\n")
    assert load_dataset(str(path), data_dir=str(tmp_path))["label"] == [label]
    for wrong in ("", "label = 0\npairing = [0]\n"):
        path.write_text(declaration + wrong)
        with refused("'label'", "'pairing'"):
            load_dataset(str(path), data_dir=str(tmp_path))


@pytest.mark.parametrize(
    "texts",
    [["a", "b"] * 3, [1, 2] * 3, [{"a": ["b"]}] * 6, [[1, 2]] * 6, [[["a"], ["b"]]] * 6],
    ids=["strings", "numbers", "tables", "lists of numbers", "lists of lists"],
)
def test_a_column_of_texts_holds_lists_of_them(tmp_path: Path, texts: list[Any]) -> None:
    rows = one_image().select(range(6)).remove_columns("texts").add_column("texts", texts)
    with refused("'texts'"):
        bench_run(rows, backbone="painter", strategy="full", results=str(tmp_path))


def test_items_need_their_texts(tmp_path: Path) -> None:
    columns = ("image", "label")
    rows = {name: [row[name] for row in one_image(4)] for name in columns}
    Given.rows = with_images(rows)
    done = run(tmp_path, "full")
    assert done.refuses("'texts'")


def test_a_position_that_no_answer_has_is_no_problem() -> None:
    Given.rows = one_image(3)  # no item's second text is right
    done = bench("check-data", "captions", "--json")
    assert done.code == 0 and done.json["classes"] == 0, done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--strategy", "screen-race"), "screen-race"),
        (("--backbone", "majority"), "'captions'"),
        (("--candidates-from", "RUN"), "--candidates-from"),
        (("--template-rule", "mean"), "--template-rule"),
        (("--skip-unlabelled",), "--skip-unlabelled"),
        (("--views", "spin"), "'spin'"),
        (("--views", "flip:3"), "'flip'"),
        (("--views", "crop:0"), "view"),
        (("--views", "posterior"), "posterior()"),
        (("--views", "posterior", "--latent", "sample"), "--latent"),
        (("--template", "a {class}"), "'captions'"),
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


def test_an_item_without_an_image_fails_alone(tmp_path: Path) -> None:
    rows = [dict(row) for row in two_images(4)]
    rows[1]["images"] = [rows[1]["images"][0], None]
    Given.rows = with_images({k: [r[k] for r in rows] for k in rows[0]})
    done = run(tmp_path, "full")
    assert done.code == 3 and done.json["failed_samples"] == 1
    error = read_records(Path(done.json["results_dir"]))["pair-1"]["error"]
    assert error.startswith("image 2 cannot be read")
    assert json.loads(done.out)["metrics"]["text_score"] <= 0.75
