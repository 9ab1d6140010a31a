"""Figures of runs: errors by timestep, reliability, confidence sequences, values with intervals."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from bench.contracts.strategy import Floats, Floats32, Ints
from bench.errors import UserError
from bench.inputs.subsets import select_subset, shuffle_samples
from bench.machine.libraries import Axes, Figure, pd
from bench.reports.facts import Interval
from bench.reports.figures.svg import Drawing, Palette
from bench.reports.run_view import RunView
from bench.reports.text import shorten
from bench.stats.calibration.probability import Probability
from bench.stats.sequential.betting import interval_course
from bench.stats.sequential.stopping_rules import Results, parse_question
from bench.store.folder import find_run
from bench.store.formats.cells import read_cells, read_timesteps
from bench.store.formats.decisions import NO_RUNNER_UP
from bench.store.questions import QuestionAnswer
from bench.store.runs import read_run

CURVE_BINS = 40  # at most
CURVE_IMAGES = 300  # a stratified subset is enough for a mean: no need to read 200,000 files


@dataclass(frozen=True)
class Curves:
    """Errors by timestep, float64 [B] each: per bin, the mean over images of their mean error."""

    timestep: Floats  # the mean of the bin's timesteps
    true: Floats  # the error of the true class
    wrong: Floats  # the error of the best wrong class
    gap: Floats  # wrong minus true; positive where the timestep favours the true class
    gap_stderr: Floats  # the standard error of the gap, over images
    n_images: int  # number of images read


def errors_by_timestep(run: RunView) -> Curves | None:
    """Return the errors by timestep, from draws on which both classes were evaluated.

    None if the run kept no errors, has a single timestep, or has items of several images.
    """
    folder, items = run.path / "errors", run.manifest.items
    if not folder.is_dir() or (items is not None and items.images > 1):
        return None
    decided = run.decided
    assert decided.runner_up is not None
    wrong = np.where(decided.correct, decided.runner_up, decided.predictions)
    usable = np.flatnonzero(~decided.failed & (wrong != NO_RUNNER_UP))
    ids = decided.sample_ids.take(usable).to_pylist()
    labels = decided.labels[usable].tolist()
    pair_of = dict(zip(ids, zip(labels, wrong[usable].tolist(), strict=True), strict=True))
    chosen = select_subset(ids, labels, CURVE_IMAGES)
    classes = np.array(run.manifest.class_of_column, dtype=np.int64)
    pairs, steps = [], []
    for sample_id in chosen:
        try:
            timesteps = read_timesteps(folder, sample_id, 0)
            errors = read_cells(folder, sample_id, (len(classes), len(timesteps)))
        except FileNotFoundError:
            continue
        pairs.append(np.stack([_best_prompt(errors[classes == c]) for c in pair_of[sample_id]]))
        steps.append(timesteps)
    return _bin_errors(pairs, steps) if pairs else None


def _best_prompt(errors: Floats32) -> Floats32:
    """Return the prompt's row with the smallest mean among those with the most evaluated cells."""
    cells = np.isfinite(errors).sum(axis=1)
    means = np.nansum(errors, axis=1) / np.maximum(cells, 1)
    best: Floats32 = errors[np.where(cells == cells.max(), means, np.inf).argmin()]
    return best


def _bin_errors(pairs: Sequence[Floats32], steps: Sequence[Ints]) -> Curves | None:
    """Return the errors of each image, [2, draws], by bins of the timesteps of its draws."""
    cells = pd.DataFrame(np.concatenate(pairs, axis=1).T, columns=["true", "wrong"], dtype=float)
    cells["image"] = np.repeat(np.arange(len(pairs)), list(map(len, steps)))
    cells["timestep"] = np.concatenate(steps)
    distinct = np.unique(cells.timestep[cells.timestep >= 0])
    n_bins = min(CURVE_BINS, len(distinct))
    if n_bins < 2:
        return None
    # Bins have equal numbers of distinct timesteps, whatever their spacing.
    bin_of_step = pd.Series(np.arange(len(distinct)) * n_bins // len(distinct), distinct)
    cells["bin"] = cells.timestep.map(bin_of_step)
    of_image = cells.dropna().groupby(["image", "bin"])[["true", "wrong"]].mean()
    of_image["gap"] = of_image.wrong - of_image.true
    bins = of_image.groupby("bin")
    mean, stderr = bins.mean(), bins.gap.sem().fillna(0.0)  # NaN for a single image
    if mean.empty:
        return None
    timestep = pd.Series(distinct, distinct).groupby(bin_of_step).mean()[mean.index]
    return Curves(
        timestep=timestep.to_numpy(),
        true=mean.true.to_numpy(),
        wrong=mean.wrong.to_numpy(),
        gap=mean.gap.to_numpy(),
        gap_stderr=stderr.to_numpy(),
        n_images=len(pairs),
    )


def draw_errors(curves: Curves) -> Drawing:
    """Draw the errors of the true and the best wrong class by timestep, and their difference."""

    def plot(figure: Figure, colours: Palette) -> None:
        above, below = figure.subplots(2, 1, sharex=True)
        t = curves.timestep
        above.plot(
            t, curves.wrong, color=colours.wrong, linestyle="--", linewidth=1.4, label="best wrong"
        )
        above.plot(t, curves.true, color=colours.right, linewidth=1.4, label="true class")
        above.set_ylabel("error")
        above.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, borderpad=0)
        reach = 1.96 * curves.gap_stderr
        below.axhline(0, color=colours.muted, linewidth=1)
        below.fill_between(
            t, curves.gap - reach, curves.gap + reach, color=colours.right, alpha=0.25, linewidth=0
        )
        below.plot(t, curves.gap, color=colours.right, linewidth=1.4)
        below.set_ylabel("wrong − true")
        below.set_xlabel("timestep")
        below.locator_params(axis="y", nbins=4)
        figure.align_ylabels()

    label = "Error against timestep for the true and the best wrong class, and the difference."
    return Drawing(plot, (4.6, 3.9), label)


@dataclass(frozen=True)
class ConfidenceSequence:
    """A 95 % confidence sequence: intervals that are valid at all numbers of images together."""

    what: str  # "accuracy" or "difference of accuracies"
    answer: QuestionAnswer  # answer to the question
    ends: Floats  # float64 [L, 3]: images, lower end, upper end
    bounds: tuple[float, ...]  # thresholds of the question


def find_course(run: RunView) -> ConfidenceSequence | None:
    """Return the intervals for a run's last tested question, or None if there is none.

    They are of the difference to the other run if that is stored in the same folder, and of the
    accuracy otherwise.
    """
    answers = [a for a in (entry.answer for entry in run.questions) if a and a.anytime_ci95]
    if not answers:
        return None
    answer, question = answers[-1], parse_question(answers[-1].question)
    order = shuffle_samples(run.manifest.samples, run.manifest.identity.dataset.fingerprint)
    values = run.decided.right_in(order)
    if not len(values):  # the record of the first image is damaged
        return None
    population = question.population(Results(values, None, answer.total))
    if question.run is not None and question.metric == "accuracy":
        with suppress(UserError):
            baseline = read_run(find_run(question.run, str(run.path.parent), exact=True))
            other = baseline.decided().right_in(order[: len(values)])
            if len(other):
                differences = values[: len(other)] - other
                ends = np.array(interval_course(differences, population=population))
                margin = float(question.margin)
                limits = (-margin, margin) if question.kind == "within" else (margin,)
                return ConfidenceSequence("difference of accuracies", answer, ends, limits)
    # `interval_course` is of values in [-1, 1].
    ends = np.array(interval_course(2 * values - 1, population=population))
    ends[:, 1:] = (ends[:, 1:] + 1) / 2
    return ConfidenceSequence("accuracy", answer, ends, ())


def draw_course(course: ConfidenceSequence) -> Drawing:
    """Draw the intervals, the thresholds, and the image at which the question was answered."""

    def plot(figure: Figure, colours: Palette) -> None:
        axes = figure.subplots()
        images, low, high = course.ends.T
        axes.fill_between(images, low, high, color=colours.right, alpha=0.25, linewidth=0)
        for ends in (low, high):
            axes.plot(images, ends, color=colours.right, linewidth=1.4)
        for bound in course.bounds:
            axes.axhline(bound, color=colours.wrong, linestyle="--", linewidth=1.2)
        if course.answer.verdict != "open":
            axes.axvline(course.answer.n, color=colours.muted, linestyle=":", linewidth=1.2)
        axes.set_xlabel("images in random order")
        axes.set_ylabel(course.what)

    return Drawing(plot, (4.6, 2.8), f"The 95 % interval of the {course.what} by images.")


def draw_reliability(skill: Probability) -> Drawing:
    """Draw the reliability diagram, and accuracy against coverage."""

    def plot(figure: Figure, colours: Palette) -> None:
        left, right = figure.subplots(1, 2)
        ends = [b.accuracy_ci95 for b in skill.bins]
        lowest = min([low for low, _ in ends] + [b.probability for b in skill.bins])
        left.plot([lowest, 1], [lowest, 1], color=colours.muted, linestyle=":", linewidth=1.2)
        accuracy, (low, high) = np.array([b.accuracy for b in skill.bins]), np.array(ends).T
        left.errorbar(
            [b.probability for b in skill.bins],
            accuracy,
            np.clip([accuracy - low, high - accuracy], 0, None),
            fmt="o",
            color=colours.right,
            markersize=5,
            elinewidth=1,
        )
        left.set_xlabel("probability")
        left.set_ylabel("accuracy")
        right.plot(
            [c.coverage for c in skill.coverage],
            [c.accuracy for c in skill.coverage],
            color=colours.right,
            linewidth=1.4,
        )
        right.axhline(skill.accuracy, color=colours.muted, linestyle=":", linewidth=1.2)
        right.set_xlabel("coverage")

    label = "Reliability diagram, and accuracy against coverage; the text says the scores."
    return Drawing(plot, (4.6, 2.6), label)


MOST_LABEL = 38  # characters of a name in a forest plot


@dataclass(frozen=True)
class Point:
    """A value in a figure."""

    name: str  # in the legend, or above a line of a forest plot
    value: float
    interval: Interval | None = None  # 95 % interval of the value
    text: str = ""  # the value in words
    colour: str = "right"  # field of a palette, or a colour of matplotlib
    hollow: bool = False  # whether its marker is empty
    shape: str = "o"
    key: str = ""  # letters beside it
    cost: float | None = None  # cost per image; None: unknown, drawn as a level

    @property
    def ends(self) -> Interval:
        """The ends of its error bar."""
        return self.interval or (self.value, self.value)


def _draw_bar(axes: Axes, bar: Point, height: float, scale: float, colours: Palette) -> None:
    """Draw a value with its interval at a height of a forest plot, below its name and its text."""
    colour, ends = getattr(colours, bar.colour), [scale * end for end in bar.ends]
    axes.plot(ends, [height, height], color=colour, linewidth=2)
    (point,) = axes.plot(scale * bar.value, height, "o", color=colour, clip_on=False)
    point.set_markerfacecolor("none" if bar.hollow else colour)
    across = axes.get_yaxis_transform()  # from the left to the right edge
    axes.hlines(height, 0, 1, color=colours.line, linewidth=1, transform=across, zorder=1)
    texts = ((0, "left", shorten(bar.name, MOST_LABEL)), (1, "right", bar.text))
    for x, side, text in texts:
        axes.text(x, height + 0.25, text, ha=side, color=colours.ink, transform=across)


def draw_forest(
    panels: Mapping[str, Sequence[Point]],
    axis: str,
    scale: float = 1,
    limits: Interval | None = None,
    guess: float | None = None,
) -> Drawing:
    """Draw values with their intervals, one panel per title; names are above their lines.

    `axis` names the horizontal axis, whose values are multiplied by `scale`; `guess` is the value
    of guessing.
    """

    def plot(figure: Figure, colours: Palette) -> None:
        heights = [len(bars) + 0.6 for bars in panels.values()]
        all_axes = figure.subplots(
            len(panels), 1, sharex=True, squeeze=False, height_ratios=heights
        )[:, 0]
        for axes, (title, bars) in zip(all_axes, panels.items(), strict=True):
            for height, bar in zip(range(0, -len(bars), -1), bars, strict=True):
                _draw_bar(axes, bar, height, scale, colours)
                if guess is not None:
                    axes.vlines(scale * guess, height - 0.12, height + 0.12, color=colours.muted)
            axes.set_yticks([])
            axes.set_ylim(0.5 - len(bars), 0.8)
            axes.set_title(title, loc="left", fontsize=10.5)
            axes.grid(visible=False)
            axes.spines["left"].set_visible(False)
        if limits is not None:
            all_axes[-1].set_xlim(*limits)
        all_axes[-1].set_xlabel(axis)

    lines = sum(map(len, panels.values()))
    titles = sum(title != "" for title in panels)
    label = "Values with their 95 % intervals; the values are in the table."
    return Drawing(plot, (4.6, 0.6 + 0.48 * lines + 0.4 * titles), label)
