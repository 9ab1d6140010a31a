"""The scores of a run in words: accuracy, or text, image and group score, and the worst group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bench.render.runs import RunData
from bench.store.documents import Items
from bench.store.summary import Metrics


@dataclass(frozen=True)
class Score:
    """One share of right decisions.

    Attributes:
        name: what it is the share of.
        share: itself.
        ends: of its 95 % interval.
        guessing: what guessing gives; None: not known.
        note: what else to say of it.
    """

    name: str
    share: float
    ends: tuple[float, float]
    guessing: float | None = None
    note: str = ""


def scores(metrics: Metrics, n_classes: int, items: Items | None) -> list[Score]:
    """Return a run's scores, the accuracy or the text score first."""
    guessing = 1 / n_classes if items is None else items.chance
    name = "accuracy" if metrics.text_score is None else "text score"
    found = [Score(name, metrics.accuracy, metrics.accuracy_ci95, guessing)]
    for kind in ("image", "group"):
        share, ends, expected = (
            getattr(metrics, f"{kind}_{what}") for what in ("score", "score_ci95", "chance")
        )
        if share is not None:
            found.append(Score(f"{kind} score", share, ends, expected))
    if (worst := metrics.worst_group) is not None:
        note = f"{worst.group} ({worst.n:,})"
        found.append(Score("worst group", worst.accuracy, worst.accuracy_ci95, None, note))
    return found


@dataclass(frozen=True)
class Blind:
    """A run beside its blind control.

    Attributes:
        seen: the run.
        control: how the images were destroyed.
        blind: the control.
    """

    seen: RunData
    control: str
    blind: RunData


def blind_controls(runs: Iterable[RunData]) -> list[Blind]:
    """Return each run with those of its controls that are among the runs."""
    given = list(runs)
    of_control = [(run, run.manifest.identity.plain()) for run in given]
    return [
        Blind(seen, identity["control"], blind)
        for blind, identity in of_control
        if identity.get("control") is not None
        for seen, other in of_control
        if other == {name: value for name, value in identity.items() if name != "control"}
    ]
