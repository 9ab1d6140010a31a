"""Sentences about a stated risk: the promise, its conditions, and what an audit shows."""

from __future__ import annotations

from bench.stats.agreement import Audit
from bench.stats.risk import keeps, most_differing
from bench.store.documents import Sweep
from bench.store.identity import CalibratedOn
from bench.store.summary import Summary


def risk_warning(audit: Audit | None, stated: CalibratedOn | None) -> str | None:
    """Return a warning if an audit contradicts or does not confirm the stated risk, else None."""
    if audit is None or stated is None or stated.risk >= 1 - audit.agreement_ci95[0]:
        return None
    low, high = (f"{100 * (1 - end):.1f}" for end in audit.agreement_ci95[::-1])
    risk = f"the stated risk of {100 * stated.risk:g} %"
    if audit.contradicts(stated.risk):
        return f"The audit contradicts {risk}: {low} to {high} % of the decisions differ."
    return f"The audit does not show {risk} yet: up to {high} % of the decisions may differ."


def risk_sentence(
    stated: CalibratedOn | None, sweep: Sweep | None = None, summary: Summary | None = None
) -> str:
    """Return the promise of a run with a stated risk, or "" if none was stated.

    The `sweep` is of images of the run itself, if such were swept for the calibration. The
    `summary` is that of the run, for the cost of the images that were not swept.
    """
    if stated is None:
        return ""
    if sweep is not None and stated.of is not None:
        return _risk_of_split(stated, stated.of, sweep, summary)
    return (
        f"Stated risk: at most {100 * stated.risk:g} % of the decisions differ from those of the"
        f" full sweep. The parameters were chosen on {stated.images:,} other images"
        f" ({stated.split}, {stated.run_id}), where {stated.disagreements} differed. With"
        f" probability {100 * stated.level:g} % over the choice of these images, the risk is kept"
        " on average over images drawn as they were. It is no promise for a single image or class."
    )


def _risk_of_split(stated: CalibratedOn, n: int, sweep: Sweep, summary: Summary | None) -> str:
    share, swept = f"{100 * stated.risk:g} %", stated.images
    differ = f"{stated.disagreements:,} of them"
    passed = keeps(stated.disagreements, swept, stated.risk, stated.level, n)
    drawn = (
        f"Stated risk {share}: {swept:,} of the split's {n:,} images, drawn uniformly, were swept"
        f" ({sweep.evaluation_equivalents_per_image * swept:,.0f} evaluation equivalents,"
        f" {stated.run_id})"
    )
    if passed:
        text = (
            f"{drawn}; these parameters decide {differ} otherwise. So, with probability"
            f" {100 * stated.level:g} % over the draw, at most {most_differing(stated.risk, n):,}"
            f" of the {n:,} decisions differ from those of the full sweep on the same draws. It is"
            " no promise for a single image or class."
        )
    else:
        text = (
            f"{drawn}; even the safest parameters decide {differ} otherwise. So no race keeps the"
            " risk, and the strategy that was chosen beforehand (--risk-else) decided the others."
        )
    if summary is not None:
        by_sweep = summary.decided_by.sweep if summary.decided_by else 0
        images = summary.dataset.n_samples
        cost = summary.cost.equivalents_per_image * images
        cost -= sweep.evaluation_equivalents_per_image * by_sweep
        if others := images - by_sweep:
            text += f" The other {others:,} images took {cost / others:,.1f} each."
    return f"{text} {_other_risks(stated, sweep)}"


def _other_risks(stated: CalibratedOn, sweep: Sweep) -> str:
    others = []
    for choice in sweep.choices:
        cost = choice.evaluation_equivalents_per_image
        if choice.risk == stated.risk:
            continue
        if choice.params is None or cost is None:
            others.append(f"{choice.risk:g} needs {choice.images_needed or 0:,} swept images")
        else:
            params = " ".join(f"{name}={value:g}" for name, value in choice.params.items())
            others.append(f"{choice.risk:g} allows {params}, at {cost:,.1f} per image")
    return f"On the same images a risk of {'; '.join(others)}."
