"""What is registered, stored and meant: `bench list`, `bench runs`, `bench explain`."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.places import ROOT
from helpers.recorded import N_CLASSES, N_DRAWS, N_IMAGES, record
from helpers.runs import store

from bench.cli.explain import find_words, glossary
from bench.discovery.loading import load_plugins
from bench.reports.inventory import read_row


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["strategies", "race"], ["delta", "0.02", "lower is safer and costs more"]),
        (["backbones", "tiny-digits"], ["resolution", "image side in pixels", "digits/train"]),
        (["backbones", "tiny-digits"], ["0.0679 GFLOP per evaluation"]),
        (["datasets", "ucmerced"], ["baseball diamond", "test=420", "tiny-landuse"]),
    ],
)
def test_one_spec_with_its_parameters(arguments: list[str], texts: list[str]) -> None:
    shown = bench("list", *arguments)
    assert shown.code == 0
    for text in texts:
        assert text in shown.out
    described = bench("list", *arguments, "--json").json
    assert described["name"] == arguments[1]
    assert set(described["help"]) == set(described["parameters"])


def test_a_listing_has_each_backbone_once_and_every_name_works() -> None:
    names = {spec.name for spec in load_plugins().backbones}
    listed = [row["name"] for row in bench("list", "backbones", "--json").json]
    shown = bench("list", "backbones").out
    left_out = names - set(listed)
    assert len(listed) == len(set(listed)) == len(names) - len(left_out) and set(listed) <= names
    assert {name for name in left_out if name.partition("-")[0] != "folder"} == {"sd2"}
    assert not any(line.split()[:1] == [name] for line in shown.splitlines() for name in left_out)
    for name in left_out:
        assert bench("list", "backbones", name, "--json").json["name"] == name


def test_an_unknown_name_is_refused() -> None:
    done = bench("list", "strategies", "rase")
    assert done.refuses("'race'")
    done = bench("list", "strategie")
    assert done.refuses("strategie")


def test_stored_runs_of_every_state(tmp_path: Path) -> None:
    complete = store(tmp_path, [0, 1, 2, 0], [0, 1, 1, 0])
    other = store(tmp_path, [0, 1], [0, 1], seed=7)
    failed = store(tmp_path, [0, 1], [0, None], backbone="c")
    manifest_of = store(tmp_path / "deeper", [0, 1, 2], [0, 1, 2], complete=False, strategy="race")
    lines = (manifest_of / "samples.jsonl").read_text().splitlines(keepends=True)
    (manifest_of / "samples.jsonl").write_text("".join(lines[:2]))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    rows = {row["run_id"]: row for row in bench("runs", "--results", tmp_path, "--json").json}
    assert {row["status"] for row in rows.values()} == {
        "complete",
        "failed_samples",
        "incomplete",
        "unreadable",
    }
    assert rows[complete.name]["differs"]["seed"] == 0
    assert rows[other.name]["differs"]["seed"] == 7
    assert rows[failed.name]["differs"] == {} and rows[failed.name]["failed_samples"] == 1
    partial = rows[manifest_of.name]
    assert (partial["n_samples"], partial["n_asked"], partial["accuracy"]) == (2, 3, 1.0)
    assert "manifest.json" in rows["broken"]["error"]
    for arguments in (["runs"], ["runs", "--wide"]):
        shown = bench(*arguments, "--results", tmp_path)
        assert shown.code == 0
        for text in (*rows, "2 of 3", "seed=7", "1 failed", "unreadable"):
            assert text in shown.out


def test_an_interrupted_run_shows_the_metrics_of_what_was_decided(tmp_path: Path) -> None:
    run = store(tmp_path, [0, 1, 2, 0], [0, 1, 1, 0], complete=False)
    lines = (run / "samples.jsonl").read_text().splitlines(keepends=True)
    (run / "samples.jsonl").write_text("".join(lines[:3]))
    shown = bench("show", run)
    assert shown.code == 0
    assert "Partial: 3 of 4 images" in shown.out and "66.7 (20.8–93.9)" in shown.out
    summary = bench("show", run, "--json").json
    assert summary["status"] == "incomplete" and summary["dataset"]["n_samples"] == 3
    assert summary["metrics"]["accuracy"] == pytest.approx(2 / 3)
    (run / "samples.jsonl").write_text("")
    assert "Partial: 0 of 4" in bench("show", run).out
    assert read_row(run).accuracy is None


@pytest.mark.parametrize("width", ["64", "80"])
@pytest.mark.parametrize("what", ["datasets", "backbones", "strategies", "studies", "collections"])
def test_a_listing_fits_and_breaks_no_word(what: str, width: str) -> None:
    narrow, wide = (bench("list", what, COLUMNS=columns).out for columns in (width, "4000"))
    assert max(map(len, narrow.splitlines())) <= int(width)
    narrow = re.sub(r"A wider terminal also shows: .*", "", narrow)
    assert set(re.findall(r"[\w./-]+", narrow)) <= set(re.findall(r"[\w./-]+", wide))


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("draw", ["draw"]),
        ("Cells", ["cell"]),
        ("denoiser", ["backbone"]),  # another name of a thing
        ("draw plan", ["draw"]),
        ("plan", ["draw"]),  # a part of another name
        ("equivalents", ["evaluation equivalent"]),
        ("risk", ["stated risk"]),
        ("delta", ["delta"]),
        ("draws plan bound", ["draw", "bound"]),  # as results suggest, several at once
        ("draws, ceiling, bound", ["draw", "ceiling", "bound"]),
    ],
)
def test_a_word_is_known_by_all_its_names(word: str, names: list[str]) -> None:
    assert list(find_words(word)) == names


def headings() -> set[str]:
    """Return the headings of the tables in the documents, without units."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    lines = [line for page in pages for line in page.read_text("utf-8").splitlines()]
    heads = [head for head, rule in pairwise(lines) if re.fullmatch("─{10,}", rule.strip())]
    return {cell.split(",")[0] for head in heads for cell in re.split(r"\s{2,}", head.strip())}


def test_the_glossary_has_the_words_of_tables_and_of_the_default_strategy() -> None:
    assert {"rank", "cost"} < headings()
    for word in {*headings(), "race", "looks", "delta", "level"}:
        assert find_words(word)
    names = [name.lstrip("±").casefold() for name in glossary()]
    assert names == sorted(names)


def test_every_mark_of_a_board_is_explained() -> None:
    """The words are those that the module of boards can write."""
    source = (ROOT / "bench" / "reports" / "leaderboard" / "board.py").read_text("utf-8")
    words = set(re.findall(r'Mark\("([\w-]+)"', source)) | {"corrupted", "control", "reported"}
    words |= {"zero-shot", "trained", "wrong?", "old", "withdrawn"}
    assert len(words) > 18
    for word in words:
        assert find_words(word).keys() & {"mark", "zero-shot", "candidate", "replay", "draw"}, word


def test_recordings_are_listed_with_their_size_and_other_runs_are_not(tmp_path: Path) -> None:
    path = record(tmp_path)
    store(tmp_path, [0, 1], [0, 1])
    shared = tmp_path / "shared"
    assert bench("export", path, "--format", "errors", "--out", shared).code == 0
    done = bench("list", "recordings", "--results", tmp_path, "--json")
    assert done.code == 0, done.err
    own, exported = sorted(done.json, key=lambda row: str(row["path"]) == str(shared))
    size = sum(file.stat().st_size for file in (path / "errors").iterdir())
    assert (own["bytes"], own["bytes_per_image"]) == (size, size / N_IMAGES)
    assert (own["prompts"], own["draws"], own["images"]) == (N_CLASSES, N_DRAWS, N_IMAGES)
    assert exported["run_id"] == own["run_id"] and exported["bytes"] < size
    assert "per image" in bench("list", "recordings", "--results", tmp_path).out
    empty = bench("list", "recordings", "--results", tmp_path / "nothing")
    assert empty.code == 0 and "--save-errors" in empty.out
