"""Picture files of a run: the confusion matrix, and example images with their predictions."""

from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from textwrap import wrap

from PIL import Image

from bench.errors import UserError
from bench.inputs.corruptions import corrupt_samples
from bench.inputs.data import load_split
from bench.inputs.pixels import decode
from bench.inputs.split import Split
from bench.machine.libraries import Figure
from bench.machine.offline import offline
from bench.machine.stages import counted
from bench.reports.classes import MOST_CONFUSED, confusion_matrix
from bench.reports.facts import percent_text
from bench.reports.figures.gallery import choose_images
from bench.reports.figures.images import Images, join_images
from bench.reports.figures.svg import Drawing, Palette
from bench.reports.text import escape_hidden, shorten
from bench.running.parts.data import find_dataset
from bench.running.parts.settings import data_config
from bench.store.formats.arrow import indices
from bench.store.formats.decisions import Decisions
from bench.store.formats.documents import Manifest
from bench.store.locking import locked, refuse_shipped
from bench.store.runs import read_run
from bench.store.summary import Summary

MAX_CLASSES = 100  # largest number of classes that a picture shows all of
EXAMPLES = 12  # number of images in a picture
EXAMPLE_SIDE = 264  # pixels: 2.4 inches of 110


def write_pictures(run: Path, own_manifest: Manifest | None = None) -> list[Path]:
    """Write `confusion.png`, unless of items, and, if the data is here, `examples.png` into a run.

    The examples are images of the dataset, so its licence applies to them. `own_manifest` is the
    manifest if this process made the run, and so has opened its data already. A separate process
    with limits opens the data of other runs.
    """
    refuse_shipped(run)
    stored = read_run(run)
    decided = stored.require_decisions()
    drawings = {}
    if stored.manifest.items is None:
        drawings["confusion.png"] = draw_confusion(decided, stored.manifest, stored.summary)
    with suppress(UserError, OSError):  # the data is not on this machine: the matrix needs none
        split = _load_split(own_manifest) if own_manifest else None
        drawings["examples.png"] = draw_examples(decided, stored.manifest, split)
    named_drawings = counted(drawings.items(), "Drawing", len(drawings), "pictures")
    contents = {name: drawing.png() for name, drawing in named_drawings}
    with locked(run) as folder:
        for name, content in contents.items():
            folder.write(name, content, durable=False)
    return [run / name for name in contents]


def draw_confusion(decided: Decisions, manifest: Manifest, summary: Summary | None) -> Drawing:
    """Draw the confusion matrix, rows are true classes; of many classes only the most confused."""
    most = MAX_CLASSES if len(manifest.classes) <= MAX_CLASSES else MOST_CONFUSED
    matrix = confusion_matrix(decided, manifest.classes, most)
    shown, names = len(matrix.names), list(map(shorten, matrix.names))
    cell, font = (0.42, 10) if shown <= MOST_CONFUSED else (0.2, 6)  # inches, points
    side = max(5.0, cell * shown + 2.5)

    def plot(figure: Figure, colours: Palette) -> None:
        axes = figure.add_subplot()
        axes.grid(visible=False)
        axes.imshow(matrix.shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in zip(*matrix.counts.nonzero(), strict=True):
            dark = matrix.shares[row, column] > 0.5
            axes.text(
                column,
                row,
                str(matrix.counts[row, column]),
                ha="center",
                va="center",
                fontsize=font,
                color="white" if dark else "black",
            )
        axes.set_xticks(range(shown), names, rotation=60, ha="right", fontsize=font)
        axes.set_yticks(range(shown), names, fontsize=font)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(_title(len(decided), shown, manifest, summary, round(8 * side)))

    return Drawing(plot, (side, side), "The confusion matrix.")


def _title(n: int, shown: int, manifest: Manifest, summary: Summary | None, width: int) -> str:
    """Return the title of the matrix of `n` images, in lines of `width` characters."""
    names = f"{manifest.dataset.name} · {manifest.backbone.name} · {manifest.strategy.name}"
    facts = f"{n:,} images"
    if summary:
        facts += f", accuracy {percent_text(summary.metrics.accuracy)} %"
    if shown < len(manifest.classes):
        facts += f"; the {shown} most confused of {len(manifest.classes):,} classes"
    return "\n".join(
        line
        for text in (names, facts)
        for line in wrap(escape_hidden(text), width, break_long_words=False)
    )


def draw_examples(decided: Decisions, manifest: Manifest, split: Split | None = None) -> Drawing:
    """Draw the most informative images with their true and predicted classes.

    `decided` must have been read with `top`. Without a split, a separate process with limits opens
    the data that the run's settings name; UserError if that fails.
    """
    chosen = choose_images(decided, EXAMPLES, failed=False)
    ids = decided.sample_ids.take(indices(chosen)).to_pylist()
    if split is None:
        images = _load_images(manifest, ids)
    else:
        samples = corrupt_samples(split.samples(ids), manifest.identity.corrupt)
        images = [join_images([decode(image) for image in sample.images]) for sample in samples]
    columns = 4
    rows = max(1, -(-len(ids) // columns))

    def plot(figure: Figure, colours: Palette) -> None:
        cells = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in cells:
            axes.set_axis_off()
        for axes, row, image in zip(cells, chosen.tolist(), images, strict=False):
            axes.imshow(image, cmap="gray" if image.mode == "L" else None)
            true, predicted = decided.labels[row], decided.predictions[row]
            axes.set_title(
                f"{shorten(manifest.classes[true])}\n→ {shorten(manifest.classes[predicted])}",
                fontsize=9,
                color=colours.right if true == predicted else colours.wrong,
            )
        figure.suptitle("true → predicted", fontsize=10)

    return Drawing(plot, (2.4 * columns, 2.9 * rows), "Images with their classes.")


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
