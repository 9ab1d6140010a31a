"""The published runs come with the package, for a place without the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.places import ROOT
from helpers.runs import store

from bench.reports.leaderboard.ranking import leaderboard
from bench.store.folder import find_run, list_runs
from bench.store.shipped import SHIPPED_ARCHIVE, is_packed, is_shipped, pack, shipped_folder

PUBLISHED = ROOT / "results" / "published"
RUN = "digits-nearest-mean-full-03931baf"


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
    assert named.code == 2 and "nowhere" in named.err


def test_a_day_s_work_fits_a_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labels = [n % 3 for n in range(30)]
    for n in range(18):
        tried: dict[str, Any] = {"scoring": {"loss": ("l1", "l2")[n % 2]}, "seed": n}
        store(tmp_path / "many", labels, labels, backbone="a-model-with-a-long-name", **tried)
    race, probe = "ucmerced-tiny-landuse-race-a8ce4419", "ucmerced-linear-probe-full-69e2383a"
    for most, command in (
        (60, ("leaderboard",)),
        (24, ("runs", "--results", "many")),
        (45, ("compare", race, probe)),
    ):
        shown = bench(*command, COLUMNS="80")
        lines = shown.out.splitlines()
        assert shown.code == 0 and len(lines) <= most, command
        printed = [line for line in lines if "bench " not in line]  # commands are not wrapped
        assert max(len(line.rstrip()) for line in printed) <= 80, command
    assert "kind of model" in shown.out and "unset" not in shown.out


COMMANDS = (
    ("compare", RUN, "digits-linear-probe-full-8cbd2842"),
    ("show", RUN),
    ("show", "03931baf"),
    ("report", RUN, "--images", "0"),
    ("export", RUN),
    ("power", RUN, "digits-linear-probe-full-8cbd2842"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_their_ids_name_them_in_every_command(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert RUN in bench("leaderboard", "--wide").out
    done = bench(*command)
    assert done.code == 0, done.err
    assert is_shipped(find_run(RUN, "results"))


def test_they_are_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text("sample_id,place\ndigit-0021,sea\n")
    done = bench("results", "columns", RUN, "labels.csv")
    assert done.code == 2 and "came with the package" in done.err, done.err


@pytest.mark.parametrize("arguments", [["render"], ["render", "--check"], ["validate"]])
def test_commands_for_a_clone_say_so_elsewhere(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = bench("results", *arguments)
    assert done.code == 2 and "results/published" in done.err and "clone" in done.err
    (tmp_path / "results" / "published").mkdir(parents=True)
    done = bench("results", "render")
    assert done.code == 2 and "cannot be read" in done.err
