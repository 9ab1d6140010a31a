"""Learn from recorded errors which timesteps tell the classes apart in the fewest draws."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bench.contracts.dataset import Sample
from bench.contracts.items import asks_for_images
from bench.contracts.strategy import Floats, Problem
from bench.errors import UserError
from bench.recordings.recording import Recording, open_recording
from bench.recordings.replay import decide, strategy_for
from bench.store.fields import Document

PARTS = 20  # the draws are cut into so many parts, as Clark & Jaini's learned weights are
Params = Mapping[str, str | float]  # of a race
Z = 3.0  # standard errors at which a race would drop a rival


class PartCost(Document):
    """What a race costs per image on a part of the draws alone, by the reckoning."""

    timesteps: str
    cost: float


class LearnedOrder(Document):
    """An order that was learned of a recording."""

    order: str
    """The band, as `race` takes it."""
    cost: float
    """Evaluations per image, or per item, of `race` in that order."""
    cost_even: float
    """The same in the even one."""
    deviation: float
    """The standard deviation of a difference on a draw, as `race` takes it with this order."""
    deviation_even: float
    """The same for the even one."""
    cost_with_deviation: float
    """Evaluations of `race` in the learned order that knows it, and looks after one draw."""
    cost_even_with_deviation: float
    """The same in the even one."""
    span: float
    """The largest difference of two errors on a draw."""
    n_samples: int
    run_id: str
    parts: list[PartCost]


def learn_order(path: Path, limit: int | None = None) -> LearnedOrder:
    """Find the band of timesteps on which a race of the recorded images would have been cheapest.

    For every band, a run of neighbouring parts out of 20, and every rival class of an image, the
    draws needed to tell the rival from the exhaustive winner are (Z s / m)², where m and s are
    mean and standard deviation of their paired differences on the band, s from neighbouring
    draws; all N draws where the band gets the order of the two wrong. A race costs each rival's
    draws, and the winner the most of them. The band with the lowest mean cost by this reckoning is
    returned, as `race` takes it (order=650-850). It asks for those draws first and for the others
    after them, so the score itself is not re-weighted; but a prompt that is dropped on the band has
    been judged on the band.

    What the race costs in that order, and in the even one, is then measured by running it on the
    recorded errors: these are the figures that `bench replay` gives for the same images.

    Learn from other images than those that the order is then tested on.

    Args:
        path: the folder of a run with --strategy full --save-errors.
        limit: only so many recorded images, those that a replay with this limit decides.

    Raises:
        UserError: the run has no errors, or asks which image fits a text.
    """
    recording = open_recording(path)
    items = recording.manifest.items
    if items is not None and asks_for_images(items.images, items.texts):
        raise UserError(
            f"{recording.manifest.run_id} asks which image fits a text; an order is that of a race"
            " among the texts of one image."
        )
    timesteps = recording.problem.timesteps
    parts = np.array_split(np.arange(len(timesteps)), min(PARTS, len(timesteps)))
    bands = [(a, b) for a in range(len(parts)) for b in range(a, len(parts))]
    samples = recording.some(limit)
    costs = np.zeros(len(bands))
    span = 0.0
    for sample in samples:
        problem = recording.questions.of(sample).problem
        for errors in _of_images(recording, sample.sample_id, problem):
            differences, largest = _rivals(errors, problem)
            span = max(span, largest)
            costs += [
                _race_cost(differences[:, parts[a][0] : parts[b][-1] + 1], len(timesteps))
                for a, b in bands
            ]
    costs /= len(samples)
    best = int(np.argmin(costs))

    def text(first: int, last: int) -> str:
        return f"{timesteps[parts[first][0]]}-{timesteps[parts[last][-1]]}"

    order = text(*bands[best])
    given: tuple[Params, Params] = ({"order": order}, {})
    deviations = [_deviation(recording, samples, one) for one in given]
    learned: list[Params] = [
        {**one, "deviation": deviation, "first": 1} if deviation else one
        for one, deviation in zip(given, deviations, strict=True)
    ]
    return LearnedOrder(
        order=order,
        cost=_measured(recording, samples, given[0]),
        cost_even=_measured(recording, samples, given[1]),
        deviation=deviations[0],
        deviation_even=deviations[1],
        cost_with_deviation=_measured(recording, samples, learned[0]),
        cost_even_with_deviation=_measured(recording, samples, learned[1]),
        span=span,
        n_samples=len(samples),
        run_id=recording.manifest.run_id,
        parts=[
            PartCost(timesteps=text(part, part), cost=float(costs[bands.index((part, part))]))
            for part in range(len(parts))
        ],
    )


def _deviation(recording: Recording, samples: list[Sample], params: Params) -> float:
    """Return by how much a race's first draw misjudges a rival's mean difference, in one draw.

    The root mean square over images and rivals of a difference on the draw less its mean over all
    N, as the standard deviation of one draw among infinitely many.
    """
    race, squares = strategy_for(recording, "race", params)[2], []
    for sample in samples:
        problem = recording.questions.of(sample).problem
        request = race.start(problem).ask()
        assert request is not None
        for errors in _of_images(recording, sample.sample_id, problem):
            differences, _ = _rivals(errors * problem.weights, problem)
            off = differences[:, request.draws[0]] - differences.mean(axis=1)
            squares.append(np.square(off))
    share = 1 - 1 / recording.n_draws
    return float(f"{np.sqrt(np.concatenate(squares).mean() / share):.3g}") if share else 0.0


def _measured(recording: Recording, samples: list[Sample], params: Params) -> float:
    """Return the evaluations per image that a race takes on these recorded images."""
    race, asked = strategy_for(recording, "race", params)[2], recording.questions
    decided = [decide(s, recording.errors(s.sample_id), race, asked.of(s).problem) for s in samples]
    return sum(each.evaluations for each in decided) / len(decided)


def _of_images(recording: Recording, sample_id: str, problem: Problem) -> Floats:
    """Return float64 [I, P, N], the errors of each image of a sample."""
    errors = recording.errors(sample_id).astype(np.float64)
    return errors.reshape(-1, len(problem.class_of_prompt), errors.shape[1])


def _rivals(errors: Floats, problem: Problem) -> tuple[Floats, float]:
    """Return float64 [C - 1, N], each other class's errors less the winner's, and the span.

    A class is its best prompt by the mean over all draws.
    """
    order = np.argsort(errors.mean(axis=1), kind="stable")
    _, first = np.unique(problem.class_of_prompt[order], return_index=True)
    best = errors[order[np.sort(first)]]
    span = float((errors.max(axis=0) - errors.min(axis=0)).max())
    return best[1:] - best[0], span


def _race_cost(differences: Floats, n_draws: int) -> float:
    """Return the evaluations that a race against these rivals is expected to take."""
    rivals, n = differences.shape
    if rivals == 0:
        return 0.0
    mean = differences.mean(axis=1)
    steps = np.diff(differences, axis=1) if n > 1 else differences
    variance = np.square(steps).mean(axis=1) / (2 if n > 1 else 1)
    needed = np.full(rivals, float(n_draws))
    right = mean > 0
    needed[right] = np.minimum(n_draws, Z**2 * variance[right] / mean[right] ** 2)
    needed = np.maximum(needed, 2)  # fewer have no variance
    return float(needed.sum() + needed.max())
