"""Published results: small, checked, up to date, and published by one command."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.places import ROOT
from helpers.refusals import refused
from helpers.runs import REPORTED, store
from huggingface_hub import ModelCard, ModelCardData
from PIL import Image

from bench.cli.results import BEGIN, END, find_stale, render_page
from bench.reports.leaderboard.adding import add_reported, publish_run
from bench.reports.leaderboard.board import row_labels
from bench.reports.leaderboard.published import Totals, find_problems, validate
from bench.reports.leaderboard.ranking import leaderboard
from bench.reports.leaderboard.rows import to_csv
from bench.store.folder import read_manifest
from bench.store.formats.identity import digest
from bench.store.summary import AUDIT, permuted
from tools.publish import main

PUBLISHED = ROOT / "results" / "published"
LABELS = [i % 3 for i in range(30)]


def test_what_is_published_here_is_well_and_the_readme_shows_it() -> None:
    done = bench("results", "validate", "--into", PUBLISHED)
    assert done.code == 0 and "are valid" in done.out
    readme = ("--readme", ROOT / "results" / "README.md")
    done = bench("results", "render", "--check", "--into", PUBLISHED, *readme)
    assert done.code == 0, done.err


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a third of a digit too many, a path of this machine, and a picture."""
    predictions = [y if i % 4 else (y + 1) % 3 for i, y in enumerate(LABELS)]
    path = store(tmp_path / "results", LABELS, predictions, {"score": 1 / 3})
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["config"]["data_dir"] = "/home/somebody/data"
    (path / "manifest.json").write_text(json.dumps(manifest))
    (path / "examples.png").write_bytes(b"pixels")
    return path


def test_a_run_is_published_small_and_without_paths_or_pixels(run: Path, tmp_path: Path) -> None:
    done = bench("results", "add", run, "--into", tmp_path / "published", "--private")
    assert done.code == 0, done.err
    copy = tmp_path / "published" / run.name
    assert {p.name for p in copy.iterdir()} == {"manifest.json", "samples.jsonl", "summary.json"}
    assert "/home" not in (copy / "manifest.json").read_text()
    assert '"score": 0.333333,' in (copy / "samples.jsonl").read_text()
    one, other = (json.loads((p / "summary.json").read_text()) for p in (run, copy))
    assert one["metrics"] == other["metrics"]
    assert publish_run(
        copy, tmp_path / "again", private=True
    ).is_dir()  # what is published can be published


def edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text())
    for name, value in changes.items():
        *outer, last = name.split("__")
        place = content
        for key in outer:
            place = place[key]
        place[last] = value
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("summary.json", {"metrics__accuracy": 0.99}, "accuracy is 0.7"),
        ("summary.json", {"cost__evaluations": 1}, "evaluations is 1500"),
        ("summary.json", {"dataset__n_samples": 10}, "30 records for 30 samples"),
        ("summary.json", {"backbone__name": "c"}, "name is b"),
        ("summary.json", {"cost": {}}, "cost.evaluations"),
        ("manifest.json", {"identity__seed": 7}, "d-b-full-"),
        ("summary.json", {"cost__evaluations_per_image": 0.001}, "evaluations_per_image is 50"),
        ("summary.json", {"metrics__accuracy_ci95": [0.9, 1.0]}, "accuracy_ci95 is"),
        ("summary.json", {"metrics__precision": 1.0}, "metrics.precision is None"),
        ("summary.json", {"failed_samples": 3}, "records"),
        ("summary.json", {"status": "failed_samples"}, "status is complete"),
        ("summary.json", {"decided_by": {"bound": 30}}, "decided_by is None"),
        ("summary.json", {"strategy__params": {"draws": 1}}, "strategy.params.draws is 5"),
        ("manifest.json", {"dataset__n_total": 0}, "dataset.n_total"),
        ("manifest.json", {"dataset__n_total": 20}, "only 20 images"),
        ("manifest.json", {"dataset__split": "train"}, "split is 'train'"),
        ("manifest.json", {"backbone__dtype": "float16"}, "dtype is 'float16'"),
        ("manifest.json", {"strategy__params": {"draws": 1}}, "strategy is"),
        ("manifest.json", {"prompts": [["x", 0]]}, "prompts' hash"),
        ("manifest.json", {"samples": ["s0000"] * 30}, "sample twice"),
        ("manifest.json", {"format": 99}, "manifest.json"),
    ],
)
def test_what_is_wrong_is_found(
    run: Path, tmp_path: Path, file: str, changes: dict[str, Any], words: str
) -> None:
    copy = publish_run(run, tmp_path / "published", private=True)
    assert list(find_problems(copy, Totals(copy.parent))) == []
    edit(copy / file, **changes)
    done = bench("results", "validate", "--into", tmp_path / "published")
    assert done.refuses(words, code=1)


def test_a_metric_of_a_plugin_that_is_not_installed_here_is_taken_on_trust(
    run: Path, tmp_path: Path
) -> None:
    copy = publish_run(run, tmp_path / "published", private=True)
    edit(copy / "summary.json", metrics__sureness=0.5)
    assert "sureness" in "; ".join(find_problems(copy, Totals(copy.parent)))
    edit(copy / "manifest.json", environment={"plugins": {"bench-sureness": "1.0"}})
    assert list(find_problems(copy, Totals(copy.parent))) == []


def test_a_picture_and_a_changed_line_are_found(run: Path, tmp_path: Path) -> None:
    copy = publish_run(run, tmp_path / "published", private=True)
    (copy / "examples.png").write_bytes(b"pixels")
    journal = copy / "samples.jsonl"
    journal.write_text(journal.read_text().replace('"prediction": 1', '"prediction": 0', 1))
    found = "; ".join(find_problems(copy, Totals(copy.parent)))
    assert "examples.png does not belong there" in found and "by its records" in found


def test_an_incomplete_run_is_not_published(tmp_path: Path) -> None:
    path = store(tmp_path / "results", LABELS, LABELS, complete=False)
    with refused(path.name):
        publish_run(path, tmp_path / "published")


def test_reported_results_are_added_once(tmp_path: Path) -> None:
    file, published = tmp_path / "mine.json", tmp_path / "published"
    file.write_text(json.dumps(REPORTED))
    done = bench("results", "add", file, "--into", published)
    assert done.code == 0, done.err
    file.write_text(json.dumps([{**REPORTED, "accuracy": 0.5}]))
    add_reported(file, published)
    assert [r["accuracy"] for r in json.loads((published / "reported.json").read_text())] == [
        0.6,
        0.5,
    ]
    with refused("reported.json"):
        add_reported(file, published)
    assert validate(published) == []


def test_the_hub_reads_what_is_exported(run: Path) -> None:
    done = bench("export", run)
    assert done.code == 0, done.err
    data = ModelCard(f"---\n{done.out}\n---\n# A card\n").data
    assert isinstance(data, ModelCardData)  # not only the fields that every card has
    results = {(r.metric_type, r.metric_name): r for r in data.eval_results or ()}
    accuracy = results["accuracy", "Accuracy"]
    assert accuracy.metric_value == pytest.approx(22 / 30)
    assert accuracy.task_type == "zero-shot-image-classification"
    assert accuracy.dataset_split == "test" and data.model_name == "b"
    assert accuracy.dataset_args is not None and accuracy.dataset_args["n_samples"] == 30
    assert accuracy.metric_args is not None and accuracy.metric_args["run_id"] == run.name


def test_readme_and_picture_follow_the_results(run: Path, tmp_path: Path) -> None:
    published, readme = tmp_path / "published", tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    copy = publish_run(run, published, private=True)
    assert len(find_stale(published, readme)) == 2
    render_page(published, readme)
    assert find_stale(published, readme) == []
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "73.3 (" in text
    with Image.open(published / "leaderboard.png") as picture:
        assert min(picture.size) > 200
    shutil.rmtree(copy)
    store_again = publish_run(
        store(tmp_path / "r", LABELS, LABELS, seed=3), published, private=True
    )
    assert store_again.is_dir() and len(find_stale(published, readme)) == 2
    readme.write_text("no place")
    with refused("README.md"):
        render_page(published, readme)


def test_the_entry_that_the_results_page_shows_is_accepted(tmp_path: Path) -> None:
    text = (ROOT / "results" / "README.md").read_text("utf-8")
    file = tmp_path / "entry.json"
    file.write_text(text.partition("```json\n")[2].partition("```")[0])
    assert len(add_reported(file, tmp_path / "published")) == 1


def test_an_audit_is_published_shown_and_checked(tmp_path: Path) -> None:
    """Of the swept images, a chosen few are refused: they must begin the run's random order."""
    cheap = {"evaluations": 6, "decided_by": "bound"}
    path = store(tmp_path / "results", LABELS, LABELS, cheap, draws=10, scoring={"loss": "l2"})
    manifest, cost = read_manifest(path), {"evaluations": 30, "equivalents": 30.0, "seconds": 0.5}
    names = permuted(manifest.samples, digest(manifest.identity))
    lines = [
        json.dumps({"sample_id": name, "prediction": LABELS[int(name[1:])], "regret": 0.0, **cost})
        for name in names[:20]
    ]
    (path / AUDIT.name).write_text("\n".join(lines) + "\n")
    published = tmp_path / "published"
    copy = publish_run(path, published, private=True)
    assert (copy / AUDIT.name).read_text() == (path / AUDIT.name).read_text() and validate(
        published
    ) == []
    (row,) = leaderboard(published)
    assert row.audit is not None and (row.audit.images, row.audit.same) == (20, 20)
    least = 100 * row.audit.agreement_ci95[0]
    assert f"20 of 20 as the full sweep, ≥ {least:.1f}"[:-1] in row_labels(row)["audited"].text
    (cells,) = csv.DictReader(to_csv([row]).splitlines())
    assert (cells["audit_images"], cells["audit_same"]) == ("20", "20") and "audit" not in cells
    assert (
        float(cells["agreement_low"]),
        float(cells["agreement_high"]),
    ) == row.audit.agreement_ci95
    (copy / AUDIT.name).write_text("\n".join(lines[1:]) + "\n")
    (wrong,) = validate(published)
    assert "has 19 images, of which 0 are the first of its random order" in wrong


def test_publishing_makes_every_run_of_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped backbone on six images: recorded, live, and replayed; then again, complete."""
    table = tmp_path / "publish.toml"
    table.write_text(
        '[[board]]\ndataset = "digits"\nbackbone = "tiny-digits"\ndraws = 6\nlive = [{}]\n'
        'replay = [{ strategy = "uniform", params = { samples = 3 } }]\n'
    )
    arguments = ["--table", table, "--work", tmp_path / "work", "--limit", 6]
    words = list(map(str, [*arguments, "--into", tmp_path / "published"]))
    main(words)
    first = capsys.readouterr().out
    assert first.count("Published") == 3 and validate(tmp_path / "published") == []
    board = bench("leaderboard", tmp_path / "published", "--results", tmp_path / "none", "--json")
    assert {row["strategy"] for row in board.json} == {"full", "race", "uniform"}
    assert {row["kind"] for row in board.json} == {"subset"}
    main(words)
    assert capsys.readouterr().out == first
    for text, problem in (
        ("[[board]]\ndataset = 3\n", "is not a table of boards"),
        ("", "lists no such board"),
    ):
        table.write_text(text)
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2 and f"{table} {problem}" in capsys.readouterr().err
