"""Leaderboard rows, made from stored runs or from results that others reported, and as CSV."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, TypeAdapter, ValidationError, model_validator
from typing_extensions import override

from bench.discovery.queries import metric_specs
from bench.errors import UserError
from bench.machine.files import has_control
from bench.reports.facts import Fact
from bench.reports.rows import RunRow
from bench.reports.run_view import RunView
from bench.reports.text import csv_text
from bench.stats.inference.difference_tests import Rank
from bench.stats.inference.paired import Paired
from bench.stats.metrics.summarise import INCOMPLETE
from bench.store.folder import folders_with
from bench.store.formats.fields import (
    Amount,
    Interval,
    MetricFields,
    Positive,
    Share,
    first_problem,
    read_json,
)
from bench.store.runs import OnUnreadable, warn_left_out
from bench.store.shipped import is_published
from bench.store.studies import Seen, described

REPORTED_FILE = "reported.json"
MIN_SOURCE = 10  # characters: a name and a year
MEASURED: Final = "measured"
SUBSET: Final = "subset"
REPLAYED: Final = "replayed"
REPORTED: Final = "reported"
WRONG: Final = "wrong"
ResultKind = Literal[
    "wrong",
    "incomplete",
    "subset",
    "control",
    "corrupted",
    "candidates",
    "replayed",
    "measured",
    "reported",
]


class LeaderboardRow(RunRow):
    """One result on a leaderboard; unknown values are None."""

    kind: ResultKind
    """What the result is, the first that applies: `wrong` (its numbers are, by an erratum),
    `incomplete`, `subset`, `control` (a blind control), `corrupted` (a run on corrupted images),
    `candidates` (a run that decided among the best classes of another run), `replayed`, which gets
    the rank that it would have among measured runs, `measured`, or `reported`."""
    dataset: str  # registered name
    split: str  # split of the dataset
    backbone: str  # registered name
    strategy: str  # strategy that decided
    accuracy: float  # share of images whose prediction is right
    source: str  # `run ID`, or where a result was reported
    seen: Seen | None = None  # how a reported figure was read
    published: bool = False  # whether it is one of the published runs, which others cannot move
    rank: Rank | None = None  # range of its places among comparable runs; None: not ranked
    against_first: Paired | None = None
    """Comparison of a run that has no rank with the first ranked one, on the images of both."""

    @override
    def cells(self) -> dict[str, JsonValue]:
        test, rank = self.against_first, self.rank
        own = {
            "rank": Fact("rank", rank, "rank").text if rank else None,
            "against_first": test.difference.estimate if test else None,
        }
        return {**super().cells(), **own}

    @property
    def described(self) -> str:
        """The source, and how the figure was read."""
        return described(self.source, self.seen)

    @property
    def board(self) -> tuple[str, int, str, str]:
        """Key of the board to which the row belongs, by which boards are sorted."""
        return self.dataset, self.version or 0, self.split, self.fingerprint or ""


Rows = Sequence[LeaderboardRow]


def to_csv(rows: Sequence[LeaderboardRow]) -> str:
    """Return all boards as one CSV table: a column per number, with all its digits."""
    lines = [row.cells() for row in rows]
    return csv_text(lines[0], (line.values() for line in lines)) if lines else ""


def board_row(run: RunView) -> LeaderboardRow:
    """Return the row of a run with decided images; its rank is not set."""
    source, published = f"run {run.manifest.run_id}", is_published(run.path)
    return LeaderboardRow.of(run, kind=kind_of(run), source=source, published=published)


def kind_of(run: RunView) -> ResultKind:
    """Return the kind of a run's result, the first that applies."""
    identity, data = run.manifest.identity, run.summary.dataset
    applies: list[tuple[object, ResultKind]] = [
        (any(touch.unranks for touch in run.errata), "wrong"),
        (run.summary.status == INCOMPLETE, "incomplete"),
        (data.n_samples != data.n_total, "subset"),
        (identity.control, "control"),
        (identity.corrupt, "corrupted"),
        (identity.candidates, "candidates"),
        (run.manifest.replayed_from, "replayed"),
        (True, "measured"),
    ]
    return next(kind for holds, kind in applies if holds)


def all_reported(
    folders: Iterable[Path], left_out: OnUnreadable = warn_left_out
) -> Iterator[LeaderboardRow]:
    """Yield the rows of all `reported.json` files at any depth below some folders.

    `left_out` is called with each file that cannot be read, and the error.
    """
    holders = (place for folder in folders for place in folders_with(folder, REPORTED_FILE))
    seen: list[LeaderboardRow] = []  # a file may be a copy of another one
    for file in sorted({(holder / REPORTED_FILE).resolve() for holder in holders}):
        try:
            new = [row for row in reported_rows(file) if row not in seen]
        except UserError as error:
            left_out(file, error)
        else:
            seen += new
            yield from new


def reported_rows(file: Path) -> list[LeaderboardRow]:
    """Return the rows of a file of reported results; see `read_reported`."""
    return [
        LeaderboardRow(**result.model_dump(), kind=REPORTED, cost=result.evaluations_per_image)
        for result in read_reported(file)
    ]


def _one_line(text: str) -> str:
    if has_control(text) or not text.strip():
        raise ValueError("expected one line of text, without control characters")
    return text


Line = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_one_line)]
Source = Annotated[str, Field(min_length=MIN_SOURCE, max_length=1000), AfterValidator(_one_line)]


class ReportedResult(MetricFields):
    """One result from a paper or a report. Shares are between 0 and 1, not in percent."""

    dataset: Line  # registered name
    split: Line  # split of the dataset
    version: Positive | None = None  # version of the registered dataset
    backbone: Line  # backbone that scored
    trained_on: Line | None = None  # `dataset/split`; null: zero-shot
    strategy: Line  # strategy that decided
    accuracy: Share  # share of images whose prediction is right
    accuracy_ci95: Interval | None = None  # 95 % interval of the accuracy
    n_samples: Positive | None = None  # number of images scored
    n_total: Positive | None = None  # number of images of the whole split
    evaluations_per_image: Amount | None = Field(None, gt=0)  # forward passes of the network
    source: Source  # author, publication and place in it
    seen: Seen | None = None  # how the figure was read

    @model_validator(mode="after")
    def _fits(self) -> Self:
        n, of, ends = self.n_samples, self.n_total, self.accuracy_ci95
        if n is not None and of is not None and n > of:
            raise ValueError(f"n_samples is {n:,}, more than n_total, {of:,}")
        if ends is not None and not ends[0] <= self.accuracy <= ends[1]:
            raise ValueError(f"accuracy_ci95 does not contain the accuracy, {self.accuracy:g}")
        return self

    @classmethod
    @override
    def rejects_field(cls, name: str) -> bool:
        """Return whether a name is not that of a metric, so that misspelt fields are rejected."""
        return name not in metric_specs()


def read_reported(path: Path) -> list[ReportedResult]:
    """Read a JSON file with one reported result or a list of them (UserError)."""
    entries = read_json(path.parent, path.name)
    try:
        content = [entries] if isinstance(entries, dict) else entries
        return TypeAdapter(list[ReportedResult]).validate_python(content)
    except ValidationError as error:
        raise UserError(
            f"{path} does not hold reported results: {first_problem(error)}."
            " results/README.md shows an entry."
        ) from None
