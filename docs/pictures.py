"""Draw the pictures of the concept pages, with the included model of digits.

python docs/pictures.py [RESULTS]     # writes docs/concepts/*.png

All are made from one recorded run of 40 digits, with every prompt on each of 100 draws. The run is
kept in the folder RESULTS if it is given.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

import bench
from bench.contracts.dataset import Sample
from bench.contracts.strategy import Evaluate, Reply
from bench.recordings.recording import Recording, open_recording
from bench.recordings.replay import decider_for

matplotlib.use("Agg")
HERE = Path(__file__).parent / "concepts"
DRAWS, IMAGES = 100, 40
COLOURS = {"background": "white", "ink": "#1f2937", "win": "#2563eb", "other": "#9ca3af"}


@dataclass(frozen=True)
class Recorded:
    """A run with the recorded error of every cell, and the names of its classes."""

    recording: Recording
    classes: list[str]

    def errors(self, sample: Sample) -> NDArray[np.float32]:
        """Return the errors of an image, [prompts, draws]."""
        return self.recording.errors(sample.sample_id)

    def hardest(self) -> Sample:
        """Return the image with the smallest margin."""
        return min(self.recording.samples(), key=lambda sample: margin(self.errors(sample)))


def margin(errors: NDArray[np.float32]) -> float:
    """Return the second lowest score minus the lowest."""
    lowest, second = np.sort(errors.mean(axis=1))[:2]
    return float(second - lowest)


def record(folder: Path) -> Recorded:
    """Score the digits with every prompt on every draw, and keep all errors."""
    run = bench.run(
        "digits",
        strategy="full",
        params={"draws": DRAWS},
        limit=IMAGES,
        save_errors=True,
        results=str(folder),
    )
    recording = open_recording(folder / run["run_id"])
    return Recorded(recording, list(recording.manifest.classes))


def classifier(recorded: Recorded) -> Figure:
    """An image, the same image with noise, and the error of the prediction under two prompts."""
    sample = recorded.recording.samples()[4]
    data = bench.load_dataset("digits")
    image = data[data["sample_id"].index(sample.sample_id)]["image"]
    model = bench.load_backbone("tiny-digits", device="cpu")
    level = 500
    alpha, sigma = float(model.levels.alpha[level]), float(model.levels.sigma[level])
    time = torch.tensor(model.levels.time[[level]])
    latent = model.encode_images([image])
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    noisy = alpha * latent + sigma * noise
    right, wrong = np.argsort(recorded.errors(sample).mean(axis=1))[[0, 1]]
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.6), layout="constrained")
    show(axes[0], latent[0], "the image")
    show(axes[1], noisy[0], f"with noise (level {level})")
    squares = []
    for cls in (right, wrong):
        text = model.encode_prompts([bench.prompts("digits")[cls]])
        with torch.no_grad():
            predicted = model.denoise(noisy, time, text)
        squares.append((predicted - noise)[0] ** 2)
    top = max(float(square.mean(0).max()) for square in squares)
    for axis, cls, square in zip(axes[2:], (right, wrong), squares, strict=True):
        axis.imshow(square.mean(0), cmap="magma", vmin=0, vmax=top)
        axis.set_title(f"“{recorded.classes[cls]}”: error {float(square.mean()):.3f}", fontsize=9)
        axis.set_axis_off()
    return figure


def draws(recorded: Recorded) -> Figure:
    """The same errors as they are, and as differences from the winner, without the shared trend."""
    sample = recorded.hardest()
    errors = recorded.errors(sample)
    ranked = np.argsort(errors.mean(axis=1))[:4]
    figure, (plain, paired) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for rank, prompt in enumerate(ranked):
        colour = COLOURS["win"] if rank == 0 else plt.get_cmap("autumn")(rank / 4)
        name = recorded.classes[prompt]
        plain.plot(errors[prompt], ".", ms=4, color=colour, label=name)
        if rank:
            paired.plot(errors[prompt] - errors[ranked[0]], ".", ms=4, color=colour, label=name)
    paired.axhline(0, color=COLOURS["win"], lw=1)
    label(plain, "draw, from little noise to much", "error")
    label(paired, "draw, from little noise to much", "error less the winner's")
    plain.legend(fontsize=7, frameon=False)
    return figure


def requests_of(recorded: Recorded, sample: Sample, name: str) -> NDArray[np.int64]:
    """Return the number of the request for each cell, from 1, [prompts, draws]; 0 if none."""
    strategy = decider_for(recorded.recording, name, {}).strategy
    session = strategy.start(recorded.recording.problem)
    errors, turn = recorded.errors(sample), 0
    when = np.zeros(errors.shape, dtype=np.int64)
    while (request := session.ask()) is not None:
        assert isinstance(request, Evaluate)
        cells = np.ix_(request.prompts, request.draws)
        turn += 1
        when[cells] = turn
        session.tell(request, Reply(errors[cells], cost=errors[cells].size))
    return when


def cost(recorded: Recorded) -> Figure:
    """The cells that three strategies request for one image."""
    sample = recorded.recording.samples()[4]
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.4), layout="constrained", sharey=True)
    for axis, name in zip(axes, ("full", "adaptive", "race"), strict=True):
        when = requests_of(recorded, sample, name)
        axis.imshow(when > 0, aspect="auto", cmap="Blues", vmin=0, vmax=1.4, interpolation="none")
        axis.set_title(f"{name}: {np.count_nonzero(when)} evaluations", fontsize=9)
        label(axis, "draw", "")
    axes[0].set_yticks(range(len(recorded.classes)), recorded.classes, fontsize=7)
    return figure


def racing(recorded: Recorded) -> Figure:
    """The mean difference of each class from the winner by draw, until the race drops the class."""
    sample = recorded.hardest()
    errors = recorded.errors(sample)
    when = requests_of(recorded, sample, "race")
    order = np.argsort(np.where(when.max(axis=0) == 0, np.inf, when.max(axis=0)), kind="stable")
    winner = int(np.argmin(errors.mean(axis=1)))
    figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for prompt, name in enumerate(recorded.classes):
        seen = order[: np.count_nonzero(when[prompt])]
        behind = np.cumsum(errors[prompt, seen] - errors[winner, seen]) / np.arange(
            1, len(seen) + 1
        )
        axis.plot(range(1, len(seen) + 1), behind, lw=2 if prompt == winner else 1)
        axis.annotate(
            name, (len(seen), behind[-1]), fontsize=7, xytext=(3, 0), textcoords="offset points"
        )
    label(axis, "draws that the class has seen", "mean error, less the winner's")
    return figure


def stability(recorded: Recorded) -> Figure:
    """The sorted margins of all images with their standard errors."""
    rows = []
    for sample in recorded.recording.samples():
        errors = recorded.errors(sample)
        first, second = np.argsort(errors.mean(axis=1))[:2]
        difference = errors[second] - errors[first]
        rows.append((difference.mean(), difference.std(ddof=1) / len(difference) ** 0.5))
    rows.sort()
    mean, error = np.array(rows).T
    figure, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
    axis.errorbar(
        range(len(mean)), mean, 1.96 * error, fmt=".", color=COLOURS["win"], ecolor=COLOURS["other"]
    )
    axis.axhline(0, color=COLOURS["ink"], lw=1)
    label(axis, "images, sorted by margin", "margin, ± 1.96 standard errors")
    return figure


def levels(recorded: Recorded) -> Figure:
    """The accuracy with each tenth of the noise levels."""
    samples = recorded.recording.samples()
    errors = np.stack([recorded.errors(sample) for sample in samples])
    labels = np.array([sample.label for sample in samples])
    bands = np.array_split(np.arange(DRAWS), 10)
    shares = [
        float(np.mean(errors[:, :, band].mean(axis=2).argmin(axis=1) == labels)) for band in bands
    ]
    figure, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
    axis.bar(range(10), shares, color=COLOURS["win"], width=0.8)
    axis.axhline(1 / len(recorded.classes), color=COLOURS["ink"], lw=1, ls="--")
    axis.set_xticks(range(10), [f"{i * 100}–{(i + 1) * 100}" for i in range(10)], fontsize=7)
    label(axis, "noise levels that the score uses (dashed: chance)", "accuracy")
    return figure


def show(axis: Axes, latent: torch.Tensor, title: str) -> None:
    """Show a latent in pixel space as a picture."""
    axis.imshow(latent.mean(0), cmap="gray")
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()


def label(axis: Axes, x: str, y: str) -> None:
    """Label the axes, and hide the top and the right line of the frame."""
    axis.set_xlabel(x, fontsize=8)
    axis.set_ylabel(y, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draw all pictures."""
    with tempfile.TemporaryDirectory() as folder:
        recorded = record(Path(sys.argv[1] if sys.argv[1:] else folder))
        for picture in (classifier, draws, cost, racing, stability, levels):
            figure = picture(recorded)
            figure.savefig(HERE / f"{picture.__name__}.png", dpi=160)
            plt.close(figure)


if __name__ == "__main__":
    main()
