"""Matrices of cases: a few that every run of the tests has, and the rest, of which some are drawn.

`pytest -m matrix` runs the rest, and `pytest -m matrix --draw 60 --draw-seed 7` sixty of them.
"""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def matrix(cases: Iterable[Any], always: Collection[Any]) -> list[Any]:
    """Return cases for `parametrize`; those that are not among `always` have the mark `matrix`."""
    listed = list(cases)
    if unknown := [case for case in always if case not in listed]:
        raise ValueError(f"no cases: {unknown}")
    marked = [case if isinstance(case, tuple) else (case,) for case in listed]
    return [
        case if case in always else pytest.param(*values, marks=pytest.mark.matrix)
        for case, values in zip(listed, marked, strict=True)
    ]
