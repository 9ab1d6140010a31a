"""A note and tags: kept with a run, found again everywhere, and no part of what a run is."""

from pathlib import Path

import pytest
from helpers.command import bench

import bench as toolkit
from bench.running.command import reproducing_command
from bench.store.folder import list_runs, read_manifest
from bench.view.pages import Pages
from bench.view.stored import Stored

RUN = ("run", "digits", "--backbone", "random", "--limit", 20, "--json")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: one with a note and two tags, one with one of the tags."""
    folder = tmp_path_factory.mktemp("tags")
    labels = ("--note", "the <second> try", "--tag", "paper", "--tag", "draft")
    assert bench(*RUN, *labels, "--results", folder).code == 0
    other = ("run", "digits", "--backbone", "majority", "--limit", 20, "--tag", "draft", "--json")
    assert bench(*other, "--results", folder).code == 0
    return folder


def found(*arguments: object) -> list[str]:
    return [row["backbone"] for row in bench(*arguments, "--json").json]


def test_a_run_keeps_them_and_stays_the_same_run(results: Path, tmp_path: Path) -> None:
    path = next(p for p in list_runs(results) if "random" in p.name)
    config = read_manifest(path).config
    assert (config.note, config.tags) == ("the <second> try", ["paper", "draft"])
    assert "--note" not in reproducing_command(read_manifest(path))
    assert bench(*RUN, "--results", tmp_path, "--json").json["run_id"] == path.name
    shown = " ".join(bench("show", path).out.split())
    assert "#paper #draft the <second> try" in shown


def test_resuming_keeps_them_and_new_ones_replace_them(tmp_path: Path) -> None:
    def labels(*more: str) -> str:
        bench(*RUN, "--results", tmp_path, *more)
        (path,) = list_runs(tmp_path)
        return read_manifest(path).config.labels

    assert labels("--tag", "a", "--note", "first") == "#a first"
    assert labels() == "#a first"
    assert labels("--tag", "b") == "#b first"


@pytest.mark.parametrize("command", ["runs", "leaderboard"])
def test_listings_filter_by_tags(results: Path, command: str) -> None:
    asked = (*command.split(), "--results", results)
    assert sorted(found(*asked, "--tag", "draft")) == ["majority", "random"]
    assert found(*asked, "--tag", "draft", "--tag", "paper") == ["random"]


@pytest.mark.parametrize("kind", ["dataset", "tag"])
@pytest.mark.parametrize("command", ["runs", "leaderboard", "report"])
def test_a_filter_by_a_name_that_nothing_has_is_refused(
    results: Path, command: str, kind: str, tmp_path: Path
) -> None:
    wrong = {"dataset": "digit", "tag": "drat"}[kind]
    words = f"No stored run has the {kind} '{wrong}'. Did you mean '"
    option = [f"--{kind}", wrong]
    if command == "report":  # of a dataset, it takes only the folder of the images
        option = option if kind == "tag" else ["--data-dir", f"{wrong}={tmp_path}"]
        option += ["--out", str(tmp_path / "page.html")]
    done = bench(command, "--results", results, *option)
    assert done.code == 2 and words in " ".join(done.err.split())


def test_a_known_dataset_without_a_run_is_no_error(results: Path) -> None:
    for command in ("runs", "leaderboard"):
        done = bench(command, "--results", results, "--dataset", "cifar10")
        assert done.code == 0 and "cifar10" in done.out
    assert toolkit.leaderboard(str(results), dataset="cifar10").empty


def test_the_list_shows_them(results: Path) -> None:
    assert "#paper #draft the <second> try" in bench("runs", "--results", results).out
    row = next(r for r in bench("runs", "--results", results, "--json").json if r["note"])
    assert row["tags"] == ["paper", "draft"]


def test_a_report_is_of_tagged_runs(results: Path, tmp_path: Path) -> None:
    arguments = ("report", "--results", results, "--out", tmp_path / "page.html")
    done = bench(*arguments, "--tag", "paper", "--json")
    assert len(done.json["runs"]) == 1 and "random" in done.json["runs"][0]
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "the &lt;second&gt; try" in page and "#paper #draft" in page


def test_pages_filter_by_a_tag(results: Path) -> None:
    pages = Pages(Stored(results, {}))
    text = pages.answer("/", {"tag": "paper"}).content.decode()
    assert "random" in text and "digits-majority" not in text
    assert "<option selected>paper</option>" in text and "<option>draft</option>" in text
    assert "digits-majority" not in pages.answer("/", {"find": "second"}).content.decode()
