"""The published rows come with the package, for a place without the repository."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command import bench
from helpers.places import ROOT
from helpers.runs import store

from bench.boards.leaderboard import leaderboard, shipped_json, shipped_rows


def test_they_are_those_of_the_published_results() -> None:
    published = leaderboard(ROOT / "results" / "published")
    assert shipped_json(shipped_rows()) == shipped_json(published)


def test_the_leaderboard_shows_them_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = bench("leaderboard", "--dataset", "digits", "--json").json
    assert len(rows) > 3 and {row["path"] for row in rows} == {None}
    assert 1 in {row["rank"] for row in rows}
    named = bench("leaderboard", "--results", "nowhere")
    assert named.code == 2 and "nowhere" in named.err


def test_beside_runs_that_are_here_they_have_no_rank(tmp_path: Path) -> None:
    store(tmp_path, [0, 1, 2], [0, 1, 2])
    [here] = leaderboard(tmp_path)
    there = here.model_copy(update={"source": "run elsewhere", "path": None, "rank": 1})
    ranks = {row.source: row.rank for row in leaderboard(tmp_path, shipped=[there])}
    assert ranks == {here.source: None, "run elsewhere": None}  # alone, and not here
    again = here.model_copy(update={"path": None})
    assert leaderboard(tmp_path, shipped=[again]) == [here]


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
