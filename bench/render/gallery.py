"""The report's pictures: which images tell most, and how small they can be."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from bench.contracts.dataset import Sample
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.inputs.data import load_rows
from bench.inputs.pixels import PixelsError, decode
from bench.render.runs import RunData
from bench.running.resolve import data_options, resolve_dataset
from bench.running.settings import DATA_SETTINGS, make_config
from bench.store.records import Record

if TYPE_CHECKING:
    from PIL import Image

SIDE = 128  # pixels of a thumbnail's longer side
QUALITY = 75  # WebP
WRONG_SHARE = 0.7  # of the pictures, where there are that many mistakes
RIGHT_A_CLASS = 3


@dataclass(frozen=True)
class Picture:
    """One image of the gallery.

    `uri` is None where the picture could not be had; `predicted` is "" where the image failed.
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

    @property
    def right(self) -> bool:
        """Whether it is predicted right."""
        return self.true == self.predicted


def choose(records: Sequence[Record], most: int) -> list[Record]:
    """Choose the images that tell most: mistakes, then close calls, then a few of each class.

    Mistakes take up to 70 % of the places (all that the others leave), those decided with the
    widest margin first; failed images come before them. The rest are images predicted right: three
    of each class with the smallest margins in rounds over the classes, then the closest of all.

    Returns:
        The mistakes, then the right ones, each with the smallest margin last or first as above.
    """
    wrong = [r for r in records if r["prediction"] != r["label"]]
    right = [r for r in records if r["prediction"] == r["label"]]
    wrong.sort(key=lambda r: (r["prediction"] is not None, -(r["margin"] or 0.0)))
    right.sort(key=lambda r: r["margin"] or 0.0)
    seen: dict[int, int] = {}
    rounds = []
    for place, record in enumerate(right):
        turn = seen[record["label"]] = seen.get(record["label"], 0) + 1
        rounds.append((min(turn, RIGHT_A_CLASS + 1), place))
    n_right = min(len(right), max(most - len(wrong), round(most * (1 - WRONG_SHARE))))
    places = sorted(place for _, place in sorted(rounds)[:n_right])
    return [*wrong[: most - n_right], *(right[place] for place in places)]


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
        rows, row_of = self._split(run)
        found = [sample_id for sample_id in sample_ids if sample_id in row_of]
        return {i: Sample(i, rows[row_of[i]]["label"], rows[row_of[i]]["image"]) for i in found}

    def _split(self, run: RunData) -> tuple[Any, dict[str, int]]:
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
        rows, row_of = loaded
        return rows, row_of

    @staticmethod
    def _load(settings: dict[str, Any]) -> Any:
        try:
            config, spec = resolve_dataset(make_config(settings), load_plugins())
            rows = load_rows(spec, config.split, config.data_dir, data_options(config, spec))
            return rows, {sample_id: row for row, sample_id in enumerate(rows["sample_id"])}
        except UserError as error:
            return error
        except Exception as error:  # a plugin's; the page is worth having without its pictures
            return UserError(f"{type(error).__name__}: {error}")


def pictures(run: RunData, images: Images, most: int, warn: Callable[[str], None]) -> list[Picture]:
    """Return a run's gallery; without the images themselves where the data cannot be had.

    Args:
        run: the run.
        images: finds them.
        most: at most so many; 0: none.
        warn: told why images are missing.
    """
    if most <= 0:
        return []
    chosen = choose(run.records, most)
    samples: dict[str, Sample] = {}
    try:
        samples = images.of(run, [record["sample_id"] for record in chosen])
        if any(
            samples[r["sample_id"]].label != r["label"] for r in chosen if r["sample_id"] in samples
        ):
            samples = {}
            warn("The data there is not what the run scored: labels differ.")
        elif len(samples) < len(chosen):
            missing = len(chosen) - len(samples)
            warn(f"{missing} of {len(chosen)} images are not in the data.")
    except UserError as error:
        warn(str(error))
    return [_picture(record, run.classes, samples.get(record["sample_id"])) for record in chosen]


def _picture(record: Record, classes: Sequence[str], sample: Sample | None) -> Picture:
    said = record["prediction"]
    second = next((entry[0] for entry in record["top"][1:]), None)
    uri, small = None, False
    if sample is not None:
        try:
            uri, small = thumbnail(decode(sample.image))
        except PixelsError:  # the run counted it as failed
            uri = None
    return Picture(
        record["sample_id"],
        classes[record["label"]],
        "" if said is None else classes[said],
        "" if second is None else classes[second],
        record["margin"],
        record["margin_stderr"],
        record["error"] or "",
        uri,
        small,
    )


def thumbnail(image: Image.Image) -> tuple[str, bool]:
    """Return a data URI, and whether the image is so small that it is kept pixel by pixel."""
    small = max(image.size) <= SIDE // 2
    image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    out = BytesIO()
    if small:
        image.save(out, "PNG", optimize=True)
    else:
        image.thumbnail((SIDE, SIDE))
        image.save(out, "WEBP", quality=QUALITY, method=4)
    kind = "png" if small else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}", small
