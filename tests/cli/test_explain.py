"""`bench explain`: the glossary in the terminal."""

from __future__ import annotations

import pytest
from helpers.command import bench
from helpers.refusals import refused

from bench.cli.explain import find_words, glossary
from bench.reports.terminal.tables import EXPLAINED, print_explained


def test_a_word_has_its_meaning() -> None:
    done = bench("explain", "draws")
    assert done.code == 0 and done.out.startswith("draw: ")
    assert "](" not in done.out and "*" not in done.out


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


def test_another_word_is_refused_with_the_closest() -> None:
    done = bench("explain", "drawing")
    assert done.refuses("'drawing'")
    with refused("'margin'"):
        find_words("margim")


def test_all_words_are_listed() -> None:
    assert [row["word"] for row in bench("explain", "--json").json] == list(glossary())
    listed = bench("explain").out
    assert all(word in listed for word in glossary()) and "bench explain WORD" in listed


def test_tables_name_the_words_that_need_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(find_words(word) for word in EXPLAINED)
    print_explained("accuracy, draws", "plan")
    assert "draws, plan" in capsys.readouterr().out
    print_explained("rank", "withdraws")
    assert capsys.readouterr().out == ""
