"""Learn from recorded errors how far a screen must reach to keep the winner at a stated risk.

A screen ranks all prompts by their first-order scores and keeps the best; see the strategy
`screen-race`. The winner is the prompt with the lowest score over all draws.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Floats
from bench.discovery.loading import learning_strategy
from bench.errors import UserError
from bench.inputs.draws import sub_grid
from bench.recordings.recording import open_draws
from bench.running.command import recording_command
from bench.running.preparing.risk import RISKS
from bench.stats.risk import conformal_quantile, distances
from bench.store.fields import Document
from bench.store.folder import read_manifest

SCREEN_DRAWS = (2, 4, 8, 16, 32)
RECALL_RANKS = (1, 2, 3, 5, 8)


class ScreenRisk(Document):
    """The reach at which a screen loses the winner with at most a stated probability."""

    reach: float | None  # None if there are too few images for that risk
    kept: float  # mean number of prompts kept per image; all prompts without a reach


class Screen(Document):
    """A screen of `samples` draws."""

    samples: int
    recall: dict[str, float]  # k → share of images whose winner is among the k first prompts
    risks: dict[str, ScreenRisk]  # risk → its reach


class LearnedScreens(Document):
    """Screens that were learned from a recording."""

    run_id: str
    n_samples: int
    linearisation_cost: float  # evaluations per linearised draw
    screens: list[Screen]


def learn_screen(path: Path, limit: int | None = None) -> LearnedScreens:
    """Find the `reach` at which a screen keeps the exhaustive winner, for several risks.

    For each recorded image, the *distance* of the exhaustive winner is how far its first-order
    score lies above the lowest, in standard deviations of all prompts' scores. The reach for a risk
    is the conformal quantile of these distances: a screen that keeps all prompts within it loses
    the winner of a new image with probability at most the risk, if that image is exchangeable with
    the recorded ones. So learn from images of the same distribution as the later ones, but never
    from these. `path` is the folder of a run with --strategy full-linearised --save-errors, `limit`
    a number of its images. Raises UserError without first-order errors, or prompts that all images
    share.
    """
    screen = learning_strategy("reach")
    if read_manifest(path).identity.scoring.reduction is not None:
        raise UserError(
            f"The backbone of {path} is a likelihood, which has no gradients to screen with."
        )
    recording = open_draws(path, screen.learned["reach"])
    if recording.manifest.items is not None:
        raise UserError(
            f"{recording.manifest.run_id} has items with texts of their own. A screen linearises at"
            " a mixture of prompts that all images share."
        )
    if not recording.problem.can_linearise:
        raise UserError(
            f"{path} holds no first-order errors. Record them once with:"
            f" {recording_command(recording.manifest, screen.learned['reach'])}"
        )
    counts, weights = [n for n in SCREEN_DRAWS if n <= recording.n_draws], recording.problem.weights
    scores: dict[int, list[Any]] = {n: [] for n in counts}
    winners = []
    for sample in recording.subset(limit):
        tables = recording.tables(sample.sample_id)
        winners.append(int((tables.errors.astype(np.float64) * weights).mean(axis=1).argmin()))
        first_order = select_mean_linearisation(tables.first_order)
        for n in counts:
            grid = sub_grid(n, recording.n_draws)
            drawn = first_order[:, grid].astype(np.float64) * weights[grid]
            scores[n].append(drawn.mean(axis=1))  # up to a factor, which distances ignore
    return LearnedScreens(
        run_id=recording.manifest.run_id,
        n_samples=len(winners),
        linearisation_cost=recording.linearisation_cost,
        screens=[_describe_screen(n, np.stack(scores[n]), np.array(winners)) for n in counts],
    )


def select_mean_linearisation(first_order: Any) -> Any:
    """Return the first-order errors at the mean of the prompts, float32 [P, N].

    `first_order` are pairs of a mixture of prompts, [P], and its first-order errors, [P, N]. Raises
    UserError if not every draw was linearised at the mean.
    """
    for mixture, table in first_order:
        if np.allclose(mixture, mixture[0]) and not np.isnan(table).any():
            return table
    raise UserError("Not every draw was linearised at the mean of the prompts.")


def _describe_screen(samples: int, scores: Floats, winners: NDArray[np.int64]) -> Screen:
    """Return the screen of that many draws. [n] images: `scores` are [n, P], `winners` [n]."""
    images = np.arange(len(winners))
    ahead = (scores < scores[images, winners][:, None]).sum(axis=1)
    far = np.stack([distances(row) for row in scores])
    reaches = {risk: conformal_quantile(far[images, winners], risk) for risk in RISKS}
    return Screen(
        samples=samples,
        recall={str(k): float((ahead < k).mean()) for k in RECALL_RANKS},
        risks={
            str(risk): ScreenRisk(
                reach=reach if np.isfinite(reach) else None,
                kept=float((far <= reach).sum(axis=1).mean()),
            )
            for risk, reach in reaches.items()
        },
    )
