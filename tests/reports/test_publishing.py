"""The script by which maintainers make the published runs again."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command import bench
from helpers.places import ROOT

from bench.discovery.loading import load_plugins
from bench.reports.leaderboard.published import validate
from tools.publish import main, read_table


def test_the_table_of_boards_names_what_is_registered() -> None:
    plugins = load_plugins()
    boards = read_table(ROOT / "results" / "publish.toml")
    assert boards
    for board in boards:
        plugins.datasets.get(board.dataset)
        plugins.backbones.get(board.backbone)
        for choice in (*board.live, *board.replay):
            if choice.strategy:
                plugins.strategies.get(choice.strategy).resolve_parameters(choice.params)


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
