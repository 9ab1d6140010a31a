"""The report's pictures: which images tell most, and how small they can be."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.dataset import Sample
from bench.contracts.strategy import Floats
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.inputs.data import load_split
from bench.inputs.pixels import PixelsError, decode
from bench.inputs.split import Split
from bench.render.runs import RunData
from bench.running.resolve import data_options, resolve_dataset
from bench.running.settings import DATA_SETTINGS, make_config
from bench.store.decisions import Decisions
from bench.store.folder import read_records

if TYPE_CHECKING:
    from PIL import Image

SIDE = 128  # pixels of a thumbnail's longer side
QUALITY = 75  # WebP
WRONG_SHARE = 0.7  # of the pictures, where there are that many mistakes
RIGHT_PER_CLASS = 3


@dataclass(frozen=True)
class Picture:
    """One image of the gallery.

    `uri` is None where the picture could not be had; `predicted` is "" where the image failed;
    `probability` is that of the prediction being right, None where no calibration says it.
    """

    sample_id: str
    true: str
    predicted: str
    runner_up: str
    margin: float | None
    stderr: float | None
    error: str
    uri: str | None
    small: bool
    probability: float | None = None

    @property
    def right(self) -> bool:
        """Whether it is predicted right."""
        return self.true == self.predicted


def choose(decided: Decisions, most: int) -> NDArray[np.int64]:
    """Choose the images that tell most: mistakes, then close calls, then a few of each class.

    Mistakes take up to 70 % of the places (all that the others leave), those decided with the
    widest margin first; failed images come before them. The rest are images predicted right: three
    of each class with the smallest margins in rounds over the classes, then the closest of all.

    Returns:
        int64 [≤ most], rows of `decided`: the mistakes, then the right ones, each with the smallest
        margin last or first as above.
    """
    margins = np.nan_to_num(decided.margins)
    wrong, right = np.flatnonzero(~decided.correct), np.flatnonzero(decided.correct)
    wrong = wrong[np.lexsort((-margins[wrong], ~decided.failed[wrong]))]
    right = right[np.argsort(margins[right], kind="stable")]
    n_right = min(len(right), max(most - len(wrong), round(most * (1 - WRONG_SHARE))))
    rounds = np.minimum(_occurrence(decided.labels[right]), RIGHT_PER_CLASS)
    places = np.sort(np.argsort(rounds, kind="stable")[:n_right])
    return np.concatenate([wrong[: most - n_right], right[places]])


def _occurrence(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return of each label how often it stood before: [7, 7, 2, 7] → [0, 1, 0, 2]."""
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    seen = np.empty(len(labels), np.int64)
    seen[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    return seen


class Images:
    """Finds images of the runs' datasets; each split is loaded once.

    Args:
        data_dirs: where the data of a dataset lies; under "" that of all others. Without either,
            where the run had it.
    """

    def __init__(self, data_dirs: Mapping[str, str]) -> None:
        self._data_dirs = data_dirs
        self._loaded: dict[tuple[Any, ...], Any] = {}

    def of(self, run: RunData, sample_ids: Iterable[str]) -> dict[str, Sample]:
        """Return the samples that are found, by id.

        Raises:
            UserError: the data cannot be had.
        """
        split, known = self._split(run)
        found = [sample_id for sample_id in sample_ids if sample_id in known]
        return {sample.sample_id: sample for sample in split.samples(found)}

    def _split(self, run: RunData) -> tuple[Split, frozenset[str]]:
        manifest = run.manifest
        own = self._data_dirs.get(manifest.dataset.name, self._data_dirs.get(""))
        stored = manifest.config.plain()
        settings = {
            "dataset": stored["dataset"],
            "data_dir": own or stored.get("data_dir"),
            **{name: stored[name] for name in DATA_SETTINGS if stored.get(name)},
        }
        key = tuple(settings.items())
        if key not in self._loaded:
            self._loaded[key] = self._load(settings)
        loaded = self._loaded[key]
        if isinstance(loaded, UserError):
            raise loaded
        split, known = loaded
        return split, known

    @staticmethod
    def _load(settings: dict[str, Any]) -> Any:
        try:
            config, spec = resolve_dataset(make_config(settings), load_plugins())
            split = load_split(spec, config.split, config.data_dir, data_options(config, spec))
            return split, frozenset(split.sample_ids)
        except UserError as error:
            return error
        except Exception as error:  # a plugin's; the page is worth having without its pictures
            return UserError(f"{type(error).__name__}: {error}")


def pictures(
    run: RunData,
    images: Images,
    most: int,
    warn: Callable[[str], None],
    probable: Floats | None = None,
) -> list[Picture]:
    """Return a run's gallery; without the images themselves where the data cannot be had.

    Args:
        run: the run.
        images: finds them.
        most: at most so many; 0: none.
        warn: told why images are missing.
        probable: float64 [n], how probable it is that each decision is right; None: not known.
    """
    if most <= 0:
        return []
    chosen = choose(run.decided, most)
    ids: list[str] = run.decided.sample_ids.take(chosen).to_pylist()
    labels = run.decided.labels[chosen].tolist()
    samples: dict[str, Sample] = {}
    try:
        samples = images.of(run, ids)
        known = zip(ids, labels, strict=True)
        if any(samples[name].label != label for name, label in known if name in samples):
            samples = {}
            warn("The data there is not what the run scored: labels differ.")
        elif len(samples) < len(chosen):
            missing = len(chosen) - len(samples)
            warn(f"{missing} of {len(chosen)} images are not in the data.")
    except UserError as error:
        warn(str(error))
    failed = run.decided.failed[chosen].any()
    records = read_records(run.path) if failed else {}  # columns have no error messages
    made = []
    for row, name in zip(chosen.tolist(), ids, strict=True):
        uri, small = None, False
        if (sample := samples.get(name)) is not None:
            with suppress(PixelsError):  # the run counted it as failed
                kind, content, small = sample_picture(sample)
                uri = f"data:{kind};base64,{base64.b64encode(content).decode()}"
        reason = records.get(name, {}).get("error") or ""
        made.append(picture(run, row, name, reason, uri, small, probable))
    return made


def picture(
    run: RunData,
    row: int,
    name: str,
    error: str = "",
    uri: str | None = None,
    small: bool = False,
    probable: Floats | None = None,
) -> Picture:
    """Return what is said of an image, given where its picture is.

    Args:
        run: the run.
        row: of its decisions.
        name: the image's id.
        error: why it failed.
        uri: of the picture; None: there is none.
        small: whether the picture has every pixel of the image.
        probable: float64 [n], how probable it is that each decision is right; None: not known.
    """
    decided, classes = run.decided, run.classes
    assert decided.runner_up is not None
    said, second = int(decided.predictions[row]), int(decided.runner_up[row])
    return Picture(
        name,
        classes[decided.labels[row]],
        "" if said < 0 else classes[said],
        "" if second < 0 else classes[second],
        _known(decided.margins[row]),
        _known(decided.margin_stderr[row]),
        error,
        uri,
        small,
        None if probable is None else _known(probable[row]),
    )


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Return one picture of the images of an item."""
    if len(images) == 1:
        return images[0]
    from PIL import Image

    height = max(image.height for image in images)
    whole = Image.new("RGB", (sum(image.width for image in images), height))
    left = 0
    for image in images:
        whole.paste(image.convert("RGB"), (left, 0))
        left += image.width
    return whole


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def sample_picture(sample: Sample) -> tuple[str, bytes, bool]:
    """Return a sample's picture, as `thumbnail` does.

    Raises:
        PixelsError: an image of it cannot be decoded.
    """
    return thumbnail(side_by_side([decode(one) for one in sample.images]))


def thumbnail(image: Image.Image) -> tuple[str, bytes, bool]:
    """Return media type and bytes, and whether the image is so small that every pixel is kept."""
    small = max(image.size) <= SIDE // 2
    image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    out = BytesIO()
    if small:
        image.save(out, "PNG", optimize=True)
    else:
        image.thumbnail((SIDE, SIDE))
        image.save(out, "WEBP", quality=QUALITY, method=4)
    return f"image/{'png' if small else 'webp'}", out.getvalue(), small
