"""The gallery of a report: choice of the most informative images, and their captions."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.contracts.strategy import Floats, Ints
from bench.errors import UserError
from bench.reports.figures.images import Images, Thumbnail
from bench.reports.run_view import RunView
from bench.stats.inference.class_metrics import count_earlier
from bench.store.folder import read_records
from bench.store.formats.arrow import indices
from bench.store.formats.decisions import Decisions

WRONG_SHARE = 0.7  # share of mistakes among the pictures, if there are enough
RIGHT_PER_CLASS = 3
PICTURES_AT_ONCE = 120  # loaded with the page; the others on demand
ON_PAPER = 24  # pictures that are printed; report.css has the same number

Source = tuple[str | None, bool]
"""URL of a picture, or None, and whether the picture has every pixel of the image."""


@dataclass(frozen=True)
class Picture:
    """One image of the gallery."""

    sample_id: str
    true: str  # name of the true class
    predicted: str  # name of the predicted class; "" if the image failed
    runner_up: str  # name of the second best class; "" if there is none
    margin: float | None  # score of the second best class minus that of the best
    stderr: float | None  # standard error of the margin
    error: str  # message of an image that failed, otherwise ""
    uri: str | None  # URL of the picture; None if it is not shown
    small: bool  # whether the picture has every pixel of the image
    probability: float | None = None  # probability that the prediction is right

    @property
    def right(self) -> bool:
        """Whether the prediction is right."""
        return self.true == self.predicted

    @property
    def answer(self) -> str:
        """The prediction, and whether it is right."""
        return f"{'✓' if self.right else '✗'} {self.predicted or 'failed'}"


def choose_images(decided: Decisions, most: int, failed: bool = True) -> Ints:
    """Return the rows of the most informative images, int64 [≤ most], mistakes first.

    Mistakes take up to 70 % of the places, or more if there are not enough right predictions; those
    with the widest margins come first, after failed images if `failed`. Right predictions follow:
    per class the three with the smallest margins, in rounds over the classes, then the closest of
    all.
    """
    margins = np.nan_to_num(decided.margins)
    right = np.flatnonzero(decided.correct)
    wrong = np.flatnonzero(~decided.correct if failed else ~(decided.correct | decided.failed))
    wrong = wrong[np.lexsort((-margins[wrong], ~decided.failed[wrong]))]
    right = right[np.argsort(margins[right], kind="stable")]
    n_right = min(len(right), max(most - len(wrong), round(most * (1 - WRONG_SHARE))))
    rounds = np.minimum(count_earlier(decided.labels[right]), RIGHT_PER_CLASS)
    places = np.sort(np.argsort(rounds, kind="stable")[:n_right])
    return np.concatenate([wrong[: most - n_right], right[places]])


def load_pictures(
    run: RunView,
    images: Images,
    most: int,
    warn: Callable[[str], None],
    probable: Floats | None = None,
) -> list[Picture]:
    """Return a run's gallery of at most `most` pictures.

    `warn` is called with the reason if images are missing. `probable` is the probability that each
    decision is right, float64 [n], or None if unknown.
    """
    if most <= 0:
        return []
    chosen = choose_images(run.decided, most)
    ids: list[str] = run.decided.sample_ids.take(chosen).to_pylist()
    labels = run.decided.labels[chosen].tolist()
    samples: dict[str, Thumbnail] = {}
    try:
        samples = images.of(run.manifest, ids)
        scored = zip(ids, labels, strict=True)
        if any(samples[name].label != label for name, label in scored if name in samples):
            samples = {}
            warn("The data there is not what the run scored: labels differ.")
        elif len(samples) < len(chosen):
            missing = len(chosen) - len(samples)
            warn(f"{missing} of {len(chosen)} images are not in the data.")
    except UserError as error:
        warn(str(error))

    def source(name: str) -> Source:
        if (sample := samples.get(name)) is None or not sample.kind:
            return None, False
        return f"data:{sample.kind};base64,{sample.encoded}", sample.small

    return make_pictures(run, chosen, source, probable)


def make_pictures(
    run: RunView, rows: Ints, source: Callable[[str], Source], probable: Floats | None = None
) -> list[Picture]:
    """Return the pictures for these rows of a run's decisions, int64.

    `source` returns the `Source` of a sample id; `probable` is as in `load_pictures`.
    """
    decided, classes = run.decided, run.classes
    assert decided.runner_up is not None
    # The columns have no error messages: those are in the records.
    records = read_records(run.path) if decided.failed[rows].any() else {}
    pictures = []
    ids = decided.sample_ids.take(indices(rows)).to_pylist()
    for row, name in zip(rows.tolist(), ids, strict=True):
        predicted, second = int(decided.predictions[row]), int(decided.runner_up[row])
        uri, small = source(name)
        pictures.append(
            Picture(
                sample_id=name,
                true=classes[decided.labels[row]],
                predicted="" if predicted < 0 else classes[predicted],
                runner_up="" if second < 0 else classes[second],
                margin=_finite_or_none(decided.margins[row]),
                stderr=_finite_or_none(decided.margin_stderr[row]),
                error=records.get(name, {}).get("error") or "",
                uri=uri,
                small=small,
                probability=None if probable is None else _finite_or_none(probable[row]),
            )
        )
    return pictures


def _finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
