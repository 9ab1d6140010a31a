"""Tables on terminals of any width: fewer columns, then blocks; whole screens break no word."""

from pathlib import Path

import pytest
from helpers.command import bench

from bench.reports.terminal.tables import print_rows, print_table
from bench.reports.text import Cell, Table

HEAD = ["name", "count", "share", "what it is"]
ROWS = [["a-name-without-a-space", 1200, 0.5, "some words that may wrap"], ["b", 3, None, "x"]]


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 200])
def test_no_line_is_too_long_and_no_word_is_broken(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_rows(HEAD, ROWS, title="A title of several words", optional=["share"])
    out = capsys.readouterr().out
    assert all(len(line.rstrip()) <= width for line in out.splitlines())
    for word in ["A", "title", "several", "words", "1,200", "some", "that", "may", "wrap"]:
        assert word in out.split()
    assert (width < 22) or "a-name-without-a-space" in out


def test_a_narrow_terminal_does_without_optional_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_rows(HEAD, ROWS, optional=["share", "count"])
    out = capsys.readouterr().out
    assert "0.5" not in out and "1,200" in out
    assert "A wider terminal also shows: share" in " ".join(out.split())
    monkeypatch.setenv("COLUMNS", "25")
    print_rows(HEAD, ROWS, optional=["share", "count"])
    out = capsys.readouterr().out
    assert "share: 0.5000" in out and "wider" not in out  # as blocks, all of it


def test_rows_that_differ_where_they_are_cut_are_wrapped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "34")
    settings = {"0.01": "m", "0.05": "m", "0.5": "n"}  # delta → model
    rows: list[list[Cell]] = [
        [model, f"race first=4 order=570-614 delta={delta}", 0.5]
        for delta, model in settings.items()
    ]
    print_table(Table("", ["model", "strategy", "%"], rows, cut=frozenset({"strategy"})))
    out = capsys.readouterr().out
    assert "delta=0.01" in out and "delta=0.05" in out and "…" in out
    assert "delta=0.5" not in out.split()  # its model tells it apart: one line


RACE, PROBE = "ucmerced-tiny-landuse-race-a8ce4419", "ucmerced-linear-probe-full-69e2383a"


def lines(*words: object) -> list[str]:
    done = bench(*words, COLUMNS="80")
    assert done.code == 0, done.err
    printed = [line.rstrip() for line in done.out.splitlines()]
    assert all(len(line) <= 80 for line in printed if "bench " not in line)  # commands are whole
    return printed


def test_a_newcomer_sees_the_published_runs_and_can_compare_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(lines("leaderboard")) <= 60
    shown = lines("compare", RACE, PROBE)
    assert len(shown) <= 45 and sum("kind of model" in line for line in shown) == 1
    assert not any("unset" in line for line in shown)
