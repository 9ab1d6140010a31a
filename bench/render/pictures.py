"""Pictures of a run: its confusion matrix, and images with their true and predicted class."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.inputs.data import load_split
from bench.running.resolve import resolve_dataset
from bench.running.settings import RunConfig
from bench.stats.metrics import confusion
from bench.store.folder import asked_records, read_manifest, read_summary
from bench.store.records import Record

EXAMPLES = 12


def write_pictures(run: Path) -> list[Path]:
    """Write `confusion.png` and, where the data is at hand, `examples.png` into a run's folder.

    The second holds images of the dataset: mind its licence before you pass it on.
    """
    manifest = read_manifest(run)
    records = asked_records(run, manifest)
    written = [draw_confusion(records, manifest, read_summary(run), run / "confusion.png")]
    with suppress(UserError, OSError):  # the data is not on this machine: the matrix needs none
        written.append(draw_examples(choose_examples(records), manifest, run / "examples.png"))
    return written


def choose_examples(records: Sequence[Record], most: int = EXAMPLES) -> list[Record]:
    """Choose images that tell: half of them mistakes, each of another pair of classes if possible.

    Mistakes come with the largest margin first, hits with the smallest.
    """
    decided = [r for r in records if r["prediction"] is not None]
    wrong = [r for r in decided if r["prediction"] != r["label"]]
    right = [r for r in decided if r["prediction"] == r["label"]]
    wrong.sort(key=lambda r: -(r["margin"] or 0))
    right.sort(key=lambda r: r["margin"] or 0)
    chosen = _one_of_each(wrong, most // 2)
    chosen += _one_of_each(right, most - len(chosen))
    return chosen


def _one_of_each(records: Sequence[Record], most: int) -> list[Record]:
    pairs = set()
    first: list[Record] = []
    later: list[Record] = []
    for record in records:
        pair = (record["label"], record["prediction"])
        (later if pair in pairs else first).append(record)
        pairs.add(pair)
    return [*first, *later][:most]


def draw_confusion(
    records: Sequence[Record],
    manifest: Mapping[str, Any],
    summary: Mapping[str, Any] | None,
    path: Path,
) -> Path:
    """Draw the confusion matrix: rows are the true classes."""
    from matplotlib.figure import Figure

    classes = manifest["classes"]
    matrix = confusion(records, len(classes))
    shares = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    side = max(5.0, 0.42 * len(classes) + 2.5)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 40:
        for row, column in zip(*matrix.nonzero(), strict=True):
            dark = shares[row, column] > 0.5
            axes.text(
                column,
                row,
                str(matrix[row, column]),
                ha="center",
                va="center",
                color="white" if dark else "black",
            )
        axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right")
        axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    accuracy = f", accuracy {summary['metrics']['accuracy']:.3f}" if summary else ""
    axes.set_title(
        f"{manifest['dataset']['name']} · {manifest['backbone']['name']}"
        f" · {manifest['strategy']['name']}\n{len(records)} images{accuracy}"
    )
    figure.savefig(path, dpi=110)
    return path


def draw_examples(records: Sequence[Record], manifest: Mapping[str, Any], path: Path) -> Path:
    """Draw images with their true and predicted class.

    Raises:
        UserError: the data cannot be had.
    """
    from matplotlib.figure import Figure

    config = RunConfig(**manifest["config"])
    config, spec = resolve_dataset(config, load_plugins())
    split = load_split(spec, config.split, config.data_dir)
    columns = 4
    rows = -(-len(records) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.9 * rows), layout="constrained")
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in cells:
        axes.set_axis_off()
    samples = split.samples([record["sample_id"] for record in records])
    for axes, record, sample in zip(cells, records, samples, strict=False):
        image = sample.open()
        axes.imshow(image, cmap="gray" if image.mode == "L" else None)
        true, said = record["label"], record["prediction"]
        names = f"{manifest['classes'][true]}\n→ {manifest['classes'][said or 0]}"
        axes.set_title(
            "\n".join(textwrap.shorten(line, 26) for line in names.splitlines()),
            fontsize=9,
            color="tab:green" if true == said else "tab:red",
        )
    figure.suptitle("true → predicted", fontsize=10)
    figure.savefig(path, dpi=110)
    return path
