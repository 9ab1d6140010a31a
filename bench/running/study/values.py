"""What a study's file says of the study itself (name, stopping rule, …), and labels of its axes."""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from bench.errors import UserError, did_you_mean
from bench.stats.inference.variance import MIN_SEEDS, Over
from bench.stats.sequential.betting import Stop

PLURALS = {f"{name}s": name for name in ("dataset", "split", "backbone", "template", "seed")}
PLURALS["strategies"] = "strategy"
DATA = ("dataset", "split", "corrupt")  # axes that select the images
POOLED = ("seed", "template")  # axes whose runs are pooled into one method
PILOT_IMAGES = 24  # default number of images per run in the pilot
MAX_TABLES = 1_000  # limit for [[grid]] tables, and for [[exclude]] tables
Table = Mapping[str, object]
AxisLabels = Mapping[str, Mapping[str, None]]  # axis → its labels, in their order


def tables_of(study: Table, key: str) -> list[Table]:
    """Return the `[[key]]` tables of a study's file."""
    tables = study.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UserError(f"{key} must be a list of tables, each written as [[{key}]].")
    if len(tables) > MAX_TABLES:
        raise UserError(
            f"[[{key}]]: at most {MAX_TABLES:,} tables are allowed, got {len(tables):,}."
        )
    return tables


def in_text(value: object) -> str:
    """Format a TOML value as a label for tables: `true`, `a · b` for a list, a table's label."""
    if isinstance(value, dict):
        value = value.get("label", value.get("name"))
    if isinstance(value, list):
        return " · ".join(map(in_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def matched_labels(
    table: Table, labels: AxisLabels, what: str, keys: Sequence[str] = ()
) -> dict[str, frozenset[str]]:
    """Return the labels per axis that a table matches.

    Raises UserError, which calls the table `what`, about an axis or label that the study lacks.
    `keys` are what such a table may have besides axes, for suggestions.
    """
    matched = {}
    for key, value in table.items():
        name = PLURALS.get(key, key)
        if name not in labels:
            close = did_you_mean(key, [*labels, *keys])
            raise UserError(f"{what}: there is no axis {key!r}.{close}")
        matched[name] = frozenset(map(in_text, value if isinstance(value, list) else [value]))
        for label in sorted(matched[name] - set(labels[name])):
            close = did_you_mean(label, labels[name])
            raise UserError(f"{what}: {name} has no value {label!r}.{close}")
    return matched


def is_matched(axes: Mapping[str, str], labels: Mapping[str, frozenset[str]]) -> bool:
    """Return whether a run has one of `labels` on every axis that they name.

    `axes` has the run's own label on each axis.
    """
    return all(axes.get(name) in own for name, own in labels.items())


Pair = Annotated[tuple[str, str], Strict(False)]  # TOML has lists only


class Entries(BaseModel):
    """The entries of a study's file that describe the study itself rather than its runs.

    The docstring of an entry is also in the message about an invalid value.
    """

    model_config = ConfigDict(strict=True, frozen=True, use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")
    """Name of the study and its folder: up to 100 lower case letters, digits, '.', '_' and '-',
    beginning with a letter or digit; by default that of the file."""
    summary: str = ""
    """One line of text for `bench list studies`."""
    question: str = ""
    """One line of text: what the study asks, which is shown above its table."""
    pilot: int = Field(PILOT_IMAGES, ge=0)
    """Number of images that each run scores before any run scores all of its images; 0 for no
    pilot."""
    margin: float | None = Field(None, gt=0, lt=1)
    """Difference of accuracies, such as 0.02: runs that are shown to differ by less count as equal.
    Without it, equality is not tested."""
    stop: Stop | None = None
    """Stopping rule: "best" ends when one method is shown to be the best, "ranked" when the order
    of all is shown. Without it, every run scores all of its images."""
    strict: bool = False
    """Whether, with stop = "best", a method is dropped only when one test of all methods together
    shows it to be worse than the best (true, without quotes), or already when the test of this
    method alone rules out that it is a best one (false)."""
    first_round: int = Field(50, ge=1)
    """Number of images in the first round, such as 50."""
    growth: float = Field(1.5, gt=1, le=100)
    """Factor of the number of images from round to round, above 1 and at most 100, such as 1.5."""
    whole_groups: bool = False
    """Whether the images of a group are resampled together: true or false, without quotes."""
    over: Over = "images"
    """Population that tests generalise to: "seeds" for other images and seeds, "images" for other
    images only."""
    shifts: list[Pair] = []
    """Pairs of datasets of which the second is a distribution shift of the first, such as
    [["imagenet", "imagenet-sketch"]]."""

    @classmethod
    def read(cls, study: Table, default_name: str) -> Self:
        """Return the entries of a study's file, each checked for type and range (UserError)."""
        defaults = {"name": default_name, **({"pilot": 0} if "stop" in study else {})}
        stated = {**defaults, **{key: study[key] for key in cls.model_fields if key in study}}
        try:
            return cls.model_validate(stated)
        except ValidationError as error:
            key = str(error.errors(include_url=False)[0]["loc"][0])
            what = " ".join(str(cls.model_fields[key].description).split())
            raise UserError(f"{key} = {stated[key]!r} is not valid. {what}") from None

    def check_stop(self, study: Table, limited: bool) -> None:
        """Raise UserError if rounds lack a stopping rule, or `stop` has a limit or a pilot."""
        if self.stop is None:
            if unused := {"first_round", "growth", "strict"} & set(study):
                raise UserError(f'{unused.pop()} needs a stopping rule: write stop = "best" too.')
            return
        if self.strict and self.stop != "best":
            raise UserError('strict is about the methods that leave: it needs stop = "best".')
        if limited:
            raise UserError("stop and limit both end runs. Keep one of the two.")
        if "pilot" in study:
            raise UserError(
                "pilot: with stop, the first round is the pilot; set first_round instead."
            )

    def check_seeds(self, cells: Sequence[Mapping[str, str]]) -> None:
        """Raise UserError if tests generalise to seeds that are too few or differ.

        A method is one combination of all axes but seed and template, whose runs are averaged.
        """
        if self.over == "images":
            return
        seeds: dict[str, set[str]] = {}
        for axes in cells:
            method = ", ".join(f"{n} {v}" for n, v in axes.items() if n not in POOLED)
            seeds.setdefault(method, set()).add(axes.get("seed", ""))
        most = max(seeds.values(), key=len)
        for method, own in seeds.items():
            if len(most) < MIN_SEEDS or own != most:
                raise UserError(
                    f'over = "seeds" needs the same seeds for every method, at least {MIN_SEEDS}:'
                    f" {method} has {len(own)}. Write seeds = {list(range(MIN_SEEDS))} for all."
                )

    def check_shifts(self, datasets: Collection[str]) -> None:
        """Raise UserError if a shift names a dataset, or `dataset/split`, not in the study."""
        for name in (name for pair in self.shifts for name in pair):
            if name.split("/")[0] not in datasets:
                close = did_you_mean(name, datasets)
                raise UserError(f"shifts: the study has no dataset {name!r}.{close}")
