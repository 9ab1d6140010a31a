"""Metrics. Averages of per-class ratios are registered here, others by the `spec` of a class."""

from collections.abc import Callable

from bench import hookimpl, register_modules
from bench.contracts.metrics import F1, PRECISION, RECALL

_AVERAGED = (
    ("precision", "precision", PRECISION, ("", "")),
    ("recall", "recall", RECALL, ("; it equals the accuracy", "; it equals the balanced accuracy")),
    ("f1", "F1", F1, ("", "")),
)


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
    for name, words, ratio, equal in _AVERAGED:
        register(
            f"{name}_weighted",
            words=f"weighted {words}",
            summary=f"Mean {words} of the classes, weighted by their images{equal[0]}.",
            ratio=ratio,
            by_support=True,
            required=True,
            column=name == "f1",
            hub=(name, f"{words.capitalize()}, weighted"),
            hub_arguments={"average": "weighted"},
        )
    for name, words, ratio, equal in _AVERAGED:
        of_hub = {"hub": ("f1", "F1, macro"), "hub_arguments": {"average": "macro"}}
        register(
            f"{name}_macro",
            words=f"macro {words}",
            summary=f"Unweighted mean {words} of the classes{equal[1]}.",
            ratio=ratio,
            **({"column": True, **of_hub} if name == "f1" else {}),
        )
    register_modules(register, __name__)
