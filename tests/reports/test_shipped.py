"""The published runs come with the package, for a place without the repository."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from helpers.command import bench, commands
from helpers.places import ROOT
from helpers.refusals import refused, warned
from helpers.runs import store

from bench import compare, load_run
from bench.reports.leaderboard.ranking import leaderboard
from bench.store.folder import find_run, list_runs
from bench.store.shipped import SHIPPED_ARCHIVE, is_packed, is_shipped, pack, shipped_folder

PUBLISHED = ROOT / "results" / "published"
RUN, RACE = "digits-nearest-mean-full-03931baf", "digits-tiny-digits-race-6a72ea9d"


def test_they_are_the_published_runs() -> None:
    assert is_packed(PUBLISHED, ROOT / SHIPPED_ARCHIVE)
    shipped = shipped_folder()
    assert [run.name for run in list_runs(shipped)] == [run.name for run in list_runs(PUBLISHED)]
    here, there = (
        [{**row.plain(), "path": None} for row in leaderboard(folder)]
        for folder in (PUBLISHED, shipped)
    )
    assert here == there


def test_a_changed_file_is_restored_and_another_file_is_noticed(tmp_path: Path) -> None:
    for damage in ("", "{}"):
        file = shipped_folder() / RUN / "manifest.json"
        whole = file.read_bytes()
        file.write_text(damage)
        assert shipped_folder() == file.parent.parent and file.read_bytes() == whole
    store(tmp_path, [0, 1], [0, 1])
    (tmp_path / "published.zip").write_bytes(pack(tmp_path))
    assert is_packed(tmp_path, tmp_path / "published.zip")
    store(tmp_path, [0, 1], [0, 1], seed=1)
    assert not is_packed(tmp_path, tmp_path / "published.zip")


def test_the_leaderboard_shows_them_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = bench("leaderboard", "--dataset", "digits", "--json").json
    assert len(rows) > 3 and {row["published"] for row in rows} == {True}
    assert [1, 2] in [row["rank"] for row in rows]
    named = bench("leaderboard", "--results", "nowhere")
    assert named.refuses("nowhere")


OTHER = "digits-linear-probe-full-8cbd2842"
TAKE_A_RUN = {"run": RACE, "runs": RACE, "run_a": RACE, "source": RACE, "run_b": OTHER}
REST = {"file": "labels.csv", "count": "3"}  # other arguments of commands that take a run
OPTIONS = {
    "show": ("--metric", "accuracy", "--with", OTHER),
    "report": ("--images", "0"),
    "replay": ("--strategy", "race"),
    "sweep": ("--points", OTHER),
}
REFUSED = {  # command → why a published run cannot be given to it
    "replay": "holds no recorded errors",
    "sweep": "holds no recorded errors",
    "learn": "came with the package",
    "results audit": "came with the package",
    "results columns": "came with the package",
    "results merge": "came with the package",
    "show --pictures": "came with the package",
    "export --format errors --out folder": "holds no recorded errors",
}


def calls() -> Iterator[tuple[str, ...]]:
    """Yield a call of each command that takes a run, with the id of a published one."""
    for words, command in commands():
        name = " ".join(words)
        arguments = [str(p.name) for p in command.params if isinstance(p, click.Argument)]
        taken = [argument for argument in arguments if argument in TAKE_A_RUN]
        named = re.search(r"\bRUNS?\b|\bRUN_A\b|a run's id", command.help or "")
        assert taken or not named, f"an argument of {name} is a run, and not in TAKE_A_RUN"
        values = {**TAKE_A_RUN, **REST}
        if taken:
            given = [values[argument] for argument in arguments if argument in values]
            yield (*name.split(), *given, *OPTIONS.get(name, ()))
    yield ("show", RACE, "--pictures")
    yield ("export", RACE, "--format", "errors", "--out", "folder")
    yield ("show", RACE[-8:])
    yield ("run", "digits", "--candidates-from", RACE, "--top", "3", "--dry-run")
    yield ("run", "digits", "--backbone", "random", "--until", f"differs from {RACE}", "--dry-run")


@pytest.mark.parametrize("call", list(calls()), ids=" ".join)
def test_their_ids_name_them_in_every_command(
    call: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text("sample_id,place\ndigit-0021,sea\n")
    done = bench(*call)
    words = " ".join(word for word in call if word not in (RACE, *REST.values()))
    why = next((why for name, why in REFUSED.items() if f"{words} ".startswith(f"{name} ")), None)
    assert done.code == (2 if why else 0), done.err
    if why:
        assert RACE in done.err.splitlines()[-1] and why in done.err.splitlines()[-1]
    first_lines = [text.partition("\n")[0] for text in (done.out, done.err)]
    named = any("is a published run" in line and RACE in line for line in first_lines)
    assert named or "--dry-run" in call  # which does not read it


def test_a_run_of_the_same_id_anywhere_below_the_results_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = bench(
        "run", "digits", "--backbone", "random", "--limit", 100, "--json", "--results", "r/a"
    )
    run_id = made.json["run_id"]
    assert (shipped_folder() / run_id).is_dir() and made.json["published"] is False

    def shown(results: str) -> tuple[int, bool, bool]:
        args = (run_id, "--results", results)
        answer, one = bench("show", *args, "--json").json, load_run(run_id, results)
        other = bench("compare", run_id, run_id, "--results", results, "--json").json
        assert answer["published"] == one["published"] == one.published == other["published_a"]
        assert answer["dataset"] == one["dataset"] and other["published_b"] == one.published
        assert ("(published)" in repr(one)) == one.published == compare(one, one).published_b
        first = bench("show", *args).out.partition("\n")[0]
        return one.dataset.n_samples, one.published, "is a published run" in first

    assert shown("r") == shown("r/a") == (100, False, False)
    assert shown("elsewhere") == (360, True, True)
    shutil.copytree(shipped_folder() / run_id, f"r/published/{run_id}")
    assert shown("r") == (100, False, False) and shown("r/published") == (360, True, True)
    shutil.copytree(f"r/a/{run_id}", f"r/b/{run_id}")
    with refused(f"r/a/{run_id}", f"r/b/{run_id}"):
        load_run(run_id, "r")
    shutil.rmtree("r/b")
    shutil.move(f"r/a/{run_id}", f"r/{run_id}")
    assert shown("r") == (100, False, False)
    (tmp_path / f"r/{run_id}/manifest.json").unlink()  # what is left of a run is not another one
    shutil.rmtree("r/published")
    with refused(f"r/{run_id}", "manifest.json"):
        load_run(run_id, "r")
    with warned(run_id, "elsewhere"):
        assert is_shipped(find_run(run_id, "elsewhere", exact=True))


@pytest.mark.parametrize("arguments", [["render"], ["render", "--check"], ["validate"]])
def test_commands_for_a_clone_say_so_elsewhere(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = bench("results", *arguments)
    assert done.refuses("results/published", "clone")
    (tmp_path / "results" / "published").mkdir(parents=True)
    done = bench("results", "render")
    assert done.refuses("README.md")
