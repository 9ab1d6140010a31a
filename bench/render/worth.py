"""What a decision is worth: the stated risk and the probability, in words and as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

from bench.render.svg import Palette, draw
from bench.stats.skill import Probability
from bench.store.identity import CalibratedOn

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def said_risk(stated: CalibratedOn | None) -> str:
    """Return what a run with a stated risk promises; nothing where none was stated."""
    if stated is None:
        return ""
    return (
        f"Stated risk: at most {100 * stated.risk:g} % of the decisions differ from those of the"
        f" full sweep. The parameters were chosen on {stated.images:,} other images"
        f" ({stated.split}, {stated.run_id}), where {stated.disagreements} differed. With"
        f" probability {100 * stated.level:g} % over the choice of these images, the risk is kept"
        " on average over images drawn as they were. It is no promise for a single image or class."
    )


def said_probability(found: Probability) -> str:
    """Return the scores of the probabilities in words."""
    said = (
        f"Probabilities fitted on {found.calibrated_images:,} other images ({found.calibrated_on}):"
        f" Brier score {found.brier:.3f}, logarithmic loss {found.log_loss:.3f}"
    )
    if found.brier_skill is not None and found.log_loss_skill is not None:
        said += (
            f"; skill over the base rate {found.accuracy:.3f}: {found.brier_skill:+.3f} and"
            f" {found.log_loss_skill:+.3f} (0: no better than always saying the base rate)"
        )
    if found.ece is None or found.ece_ci95 is None:
        return f"{said}. All probabilities are equal, so nothing is known of single decisions."
    low, high = found.ece_ci95
    return (
        f"{said}. Calibration error, bins of equal mass: {found.ece:.3f} (95 % interval"
        f" {low:.3f}–{high:.3f}; exact probabilities would show {found.ece_if_calibrated:.3f} on"
        f" {found.n:,} images)."
    )


def worth(found: Probability, name: str) -> Markup:
    """Draw the reliability diagram, and accuracy against coverage."""

    def plot(figure: Figure, colours: Palette) -> None:
        left, right = figure.subplots(1, 2)
        ends = [b.accuracy_ci95 for b in found.bins]
        lowest = min([low for low, _ in ends] + [b.probability for b in found.bins])
        left.plot([lowest, 1], [lowest, 1], color=colours.muted, linestyle=":", linewidth=1.2)
        reach = [
            [max(b.accuracy - low, 0.0) for b, (low, _) in zip(found.bins, ends, strict=True)],
            [max(high - b.accuracy, 0.0) for b, (_, high) in zip(found.bins, ends, strict=True)],
        ]
        left.errorbar(
            [b.probability for b in found.bins],
            [b.accuracy for b in found.bins],
            reach,
            fmt="o",
            color=colours.right,
            markersize=5,
            elinewidth=1,
        )
        left.set_xlabel("probability")
        left.set_ylabel("accuracy")
        right.plot(
            [c.coverage for c in found.coverage],
            [c.accuracy for c in found.coverage],
            color=colours.right,
            linewidth=1.4,
        )
        right.axhline(found.accuracy, color=colours.muted, linestyle=":", linewidth=1.2)
        right.set_xlabel("coverage")

    label = "Reliability diagram, and accuracy against coverage; the text says the scores."
    return draw(plot, (4.6, 2.6), name, label)
