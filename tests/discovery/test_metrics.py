"""The registry of metrics: which have columns, and which are tested."""

from __future__ import annotations

import pytest

from bench.discovery.loading import difference_metric, metric_specs
from bench.errors import UserError


def test_boards_have_a_column_of_macro_f1() -> None:
    assert [name for name, metric in metric_specs().items() if metric.column] == [
        "f1_weighted",
        "f1_macro",
    ]


def test_a_metric_that_is_not_tested_is_refused() -> None:
    with pytest.raises(UserError, match=r"not tested in 'f1-macro'.* Did you mean 'f1_macro'"):
        difference_metric("f1-macro")
