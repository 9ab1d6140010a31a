"""Tables on terminals of any width: fewer columns, then blocks; no word is ever broken."""

from __future__ import annotations

import pytest

from bench.reports.terminal.tables import print_rows
from bench.reports.text import cell_text

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


def test_a_share_of_one_has_the_decimals_of_the_others() -> None:
    assert [cell_text(share) for share in (1.0, 0.96, 0.0)] == ["1.0000", "0.9600", "0.0000"]


def test_a_block_shows_no_value_that_there_is_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    print_rows(HEAD, [["a-name-without-a-space", None, 0.5, "–"], ROWS[0]])
    assert capsys.readouterr().out.count("count") == 1
