"""The curve of learned weights over the number of labelled images."""

from curve import read_rows, table
from helpers.places import ROOT


def test_the_published_table_is_that_of_the_stored_rows() -> None:
    folder = ROOT / "studies" / "few-shot-weights"
    assert table(read_rows(folder / "rows.json")) in (folder / "README.md").read_text()
