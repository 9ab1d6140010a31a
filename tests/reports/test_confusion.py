"""Of many classes, the confusion matrix shows those that are confused most."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from helpers.runs import a_manifest, a_record
from PIL import Image

from bench.contracts.strategy import Ints
from bench.reports.classes import most_confused_classes
from bench.reports.figures.pictures import draw_confusion
from bench.reports.text import shorten
from bench.stats.metrics import Confusions, confusions_of
from bench.store.decisions import as_decisions


def most_confused(matrix: Ints, most: int) -> list[int]:
    true, predicted = np.nonzero(matrix)
    confusions = Confusions(true, predicted, matrix[true, predicted])
    return list(map(int, most_confused_classes(confusions, len(matrix), most)))


def test_the_pairs_of_a_run_make_its_matrix() -> None:
    labels, predictions = [2, 0, 2, 1, 2], [0, 0, 0, 1, None]
    records = [
        a_record(
            f"x{n}",
            label,
            prediction,
            n_classes=3,
            error=None if prediction is not None else "unreadable",
        )
        for n, (label, prediction) in enumerate(zip(labels, predictions, strict=True))
    ]
    confusions = confusions_of(as_decisions(records))
    assert confusions.square(np.arange(3)).tolist() == [[1, 0, 0], [0, 1, 0], [2, 0, 0]]
    assert confusions.square(np.array([0, 2])).tolist() == [[1, 0], [2, 0]]
    assert confusions.totals(4).tolist() == [1, 1, 2, 0]


def test_the_most_confused_classes_by_hand() -> None:
    matrix = np.diag(np.full(8, 9))
    matrix[5, 2] = 4
    matrix[2, 5] = 3
    matrix[7, 1] = 2
    assert most_confused(matrix, 2) == [2, 5]
    assert most_confused(matrix, 4) == [1, 2, 5, 7]
    assert most_confused(matrix, 6) == [
        0,
        1,
        2,
        3,
        5,
        7,
    ]  # filled up from the first
    assert most_confused(matrix, 20) == list(range(8))


def test_a_single_true_class_with_many_mistakes() -> None:
    matrix = np.zeros((50, 50), np.int64)
    matrix[49, :40] = 1
    assert most_confused(matrix, 10) == [*range(9), 49]


@pytest.mark.parametrize(
    "classes", [2, 1000, *(pytest.param(n, marks=pytest.mark.matrix) for n in (40, 41, 100, 101))]
)
def test_the_picture_has_an_end(classes: int) -> None:
    name = "a name that is long " * 5
    described = a_manifest(["1", "2"], n_classes=classes, backbone=name)
    records = [a_record("1", 0, classes - 1), a_record("2", classes - 1, classes - 1)]
    drawing = draw_confusion(as_decisions(records), described, None)
    with Image.open(BytesIO(drawing.png())) as image:
        assert max(image.size) < 3000


def test_a_long_name_is_cut_in_the_middle_and_never_lost() -> None:
    assert shorten("x" * 50 + "y" * 50) == "x" * 12 + "…" + "y" * 11 and shorten("cat") == "cat"
    assert [len(shorten("x" * 30, most)) for most in (1, 2, 3, 24, 29)] == [1, 2, 3, 24, 29]
    twins = {shorten(f"latin small letter turned {letter}") for letter in "rmy"}
    assert len(twins) == 3
