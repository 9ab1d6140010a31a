"""Picture files of a run: the confusion matrix, and example images with their predictions."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bench.errors import UserError
from bench.inputs.corruptions import corrupt_samples
from bench.inputs.data import load_split
from bench.inputs.pixels import decode
from bench.inputs.split import Split
from bench.machine.offline import offline
from bench.reports.figures.curves import MAX_CLASSES, MOST_CONFUSED, most_confused_classes
from bench.reports.figures.gallery import choose_images
from bench.reports.figures.images import Images
from bench.reports.figures.sample_process import join_images
from bench.reports.formats import percent_text
from bench.reports.text import escape_hidden, shorten
from bench.running.finders import find_dataset
from bench.running.settings import data_config
from bench.stats.metrics import confusions_of
from bench.store.arrow import indices
from bench.store.decisions import Decisions
from bench.store.documents import Manifest
from bench.store.locking import locked
from bench.store.runs import read_run
from bench.store.summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = 12
EXAMPLE_SIDE = 264  # pixels: 2.4 inches of 110
DPI = 110


def write_pictures(run: Path, own_manifest: Manifest | None = None) -> list[Path]:
    """Write `confusion.png` and, where the data is at hand, `examples.png` into a run's folder.

    The examples are images of the dataset, so its licence applies to them. `own_manifest` is
    the manifest if this process made the run, and so has opened its data already. A separate
    process with limits opens the data of other runs.
    """
    stored = read_run(run)
    decided = stored.require_decisions()
    pictures = {"confusion.png": confusion_figure(decided, stored.manifest, stored.summary)}
    with suppress(UserError, OSError):  # the data is not on this machine: the matrix needs none
        split = _load_split(own_manifest) if own_manifest else None
        pictures["examples.png"] = examples_figure(decided, stored.manifest, split)
    contents = {name: as_png(figure) for name, figure in pictures.items()}
    with locked(run) as folder:
        for name, content in contents.items():
            folder.write(name, content, durable=False)
    return [run / name for name in contents]


def as_png(figure: Figure) -> bytes:
    """Return a figure as a PNG file."""
    content = BytesIO()
    with _draw_literally():
        figure.savefig(content, dpi=DPI)
    return content.getvalue()


def confusion_figure(decided: Decisions, manifest: Manifest, summary: Summary | None) -> Figure:
    """Draw the confusion matrix, rows are true classes; of many classes the most confused ones."""
    from matplotlib.figure import Figure

    confusions, n_classes = confusions_of(decided), len(manifest.classes)
    few = n_classes <= MAX_CLASSES
    shown = np.arange(n_classes) if few else most_confused_classes(confusions, n_classes)
    matrix = confusions.square(shown)
    shares = matrix / confusions.totals(n_classes)[shown, None].clip(min=1)
    names = [shorten(manifest.classes[index]) for index in shown]
    cell, size = (0.42, 10) if len(shown) <= MOST_CONFUSED else (0.2, 6)  # inches, points
    side = max(5.0, cell * len(shown) + 2.5)
    with _draw_literally():
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in zip(*matrix.nonzero(), strict=True):
            axes.text(
                column,
                row,
                str(matrix[row, column]),
                ha="center",
                va="center",
                fontsize=size,
                color="white" if shares[row, column] > 0.5 else "black",
            )
        axes.set_xticks(range(len(shown)), names, rotation=60, ha="right", fontsize=size)
        axes.set_yticks(range(len(shown)), names, fontsize=size)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(_title(len(decided), len(shown), manifest, summary, round(8 * side)))
    return figure


def _title(n: int, shown: int, manifest: Manifest, summary: Summary | None, width: int) -> str:
    parts = manifest.dataset, manifest.backbone, manifest.strategy
    names = " · ".join(part.name for part in parts)
    facts = f"{n:,} images"
    if summary:
        facts += f", accuracy {percent_text(summary.metrics.accuracy)} %"
    if shown < len(manifest.classes):
        facts += f"; the {shown} most confused of {len(manifest.classes):,} classes"
    lines = (wrap(escape_hidden(line), width, break_long_words=False) for line in (names, facts))
    return "\n".join(line for part in lines for line in part)


@contextmanager
def _draw_literally() -> Iterator[None]:
    """Draw names literally ("$100$" is no formula), without warnings of missing glyphs."""
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        yield


def examples_figure(decided: Decisions, manifest: Manifest, split: Split | None = None) -> Figure:
    """Draw the most informative images with their true and predicted classes.

    `decided` must have been read with `top`. Without a split, a separate process with limits opens
    the data that the run's settings name; UserError if that fails.
    """
    from matplotlib.figure import Figure

    chosen = choose_images(decided, EXAMPLES, failed=False)
    ids = decided.sample_ids.take(indices(chosen)).to_pylist()
    if split is None:
        images = _load_images(manifest, ids)
    else:
        samples = corrupt_samples(split.samples(ids), manifest.identity.corrupt)
        images = [join_images([decode(image) for image in sample.images]) for sample in samples]
    columns = 4
    rows = max(1, -(-len(ids) // columns))
    with _draw_literally():
        figure = Figure(figsize=(2.4 * columns, 2.9 * rows), layout="constrained")
        cells = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in cells:
            axes.set_axis_off()
        for axes, row, image in zip(cells, chosen.tolist(), images, strict=False):
            axes.imshow(image, cmap="gray" if image.mode == "L" else None)
            true, predicted = decided.labels[row], decided.predictions[row]
            axes.set_title(
                f"{shorten(manifest.classes[true])}\n→ {shorten(manifest.classes[predicted])}",
                fontsize=9,
                color="tab:green" if true == predicted else "tab:red",
            )
        figure.suptitle("true → predicted", fontsize=10)
    return figure


def _load_images(manifest: Manifest, sample_ids: Sequence[str]) -> list[Image.Image]:
    try:
        thumbnails = Images({}, EXAMPLE_SIDE).of(manifest, sample_ids)
        return [Image.open(BytesIO(thumbnails[sample_id].content)) for sample_id in sample_ids]
    except UserError as error:
        raise UserError(
            f"{error}\nIf the data was in memory, the result of `bench.run` has the pictures."
        ) from None
    except (KeyError, OSError):
        raise UserError("Some of the images are not in the data.") from None


def _load_split(manifest: Manifest) -> Split:
    config = data_config(manifest.config)
    data = find_dataset(config)
    with offline(config.offline):
        return load_split(data, config.split)
