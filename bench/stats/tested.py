"""The metrics that differences are tested in: `--metric`, and the columns of a study's table."""

from __future__ import annotations

from typing import Literal, get_args

Metric = Literal["accuracy", "balanced_accuracy", "f1_macro", "f1_weighted"]
METRICS: tuple[Metric, ...] = get_args(Metric)
IN_WORDS: dict[Metric, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "macro F1",
    "f1_weighted": "weighted F1",
}
