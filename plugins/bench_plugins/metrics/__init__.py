"""Metrics. Averages of per-class ratios are registered here, others by the `spec` of a class."""

from __future__ import annotations

from collections.abc import Callable

from bench import hookimpl, register_modules
from bench.contracts.metrics import F1, PRECISION, RECALL


@hookimpl
def register_metrics(register: Callable[..., None]) -> None:
    """Register the metrics."""
    register(
        "accuracy",
        summary="Share of images whose prediction is right; failed images count as wrong.",
        ratio=RECALL,
        by_support=True,
        required=True,
        hub=("accuracy", "Accuracy"),
    )
    register(
        "balanced_accuracy",
        summary="Mean of the classes' recalls.",
        ratio=RECALL,
        required=True,
        hub=("accuracy", "Balanced accuracy"),
        hub_arguments={"balanced": True},
    )
    register(
        "precision_weighted",
        words="weighted precision",
        summary="Mean precision of the classes, weighted by their images.",
        ratio=PRECISION,
        by_support=True,
        required=True,
        hub=("precision", "Precision, weighted"),
        hub_arguments={"average": "weighted"},
    )
    register(
        "recall_weighted",
        words="weighted recall",
        summary="Mean recall, weighted by images; it equals the accuracy.",
        ratio=RECALL,
        by_support=True,
        required=True,
        hub=("recall", "Recall, weighted"),
        hub_arguments={"average": "weighted"},
    )
    register(
        "f1_weighted",
        words="weighted F1",
        summary="Mean F1 of the classes, weighted by their images.",
        ratio=F1,
        by_support=True,
        required=True,
        column=True,
        hub=("f1", "F1, weighted"),
        hub_arguments={"average": "weighted"},
    )
    register(
        "precision_macro",
        words="macro precision",
        summary="Unweighted mean precision of the classes.",
        ratio=PRECISION,
    )
    register(
        "recall_macro",
        words="macro recall",
        summary="Unweighted mean recall of the classes; it equals the balanced accuracy.",
        ratio=RECALL,
    )
    register(
        "f1_macro",
        words="macro F1",
        summary="Unweighted mean F1 of the classes.",
        ratio=F1,
        column=True,
        hub=("f1", "F1, macro"),
        hub_arguments={"average": "macro"},
    )
    register_modules(register, __name__)
