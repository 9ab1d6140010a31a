"""Leaderboard rows, made from stored runs or from results that others reported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, PrivateAttr, TypeAdapter, ValidationError

from bench.contracts.metrics import MetricSpec
from bench.contracts.parameters import Parameters
from bench.contracts.specs import training_group
from bench.discovery.loading import metric_specs
from bench.errors import UserError
from bench.machine.files import has_control
from bench.running.command import reproducing_command
from bench.stats.agreement import audit_of
from bench.stats.many import Rank
from bench.stats.paired import Paired
from bench.store.decisions import read_decisions
from bench.store.documents import Manifest
from bench.store.fields import (
    Amount,
    FullDocument,
    Interval,
    MetricFields,
    Positive,
    Share,
    first_problem,
    read_json,
)
from bench.store.folder import folders_with
from bench.store.questions import ending_answer, read_questions
from bench.store.runs import LeftOut, warn_left_out
from bench.store.shipped import is_published
from bench.store.summary import Summary, read_swept

MEASURED, SUBSET, REPLAYED, REPORTED = "measured", "subset", "replayed", "reported"
AMONG_CANDIDATES = "candidates"  # a run that decided among a few candidate classes per image
CORRUPTED = "corrupted"  # a run on corrupted images
CONTROL = "control"  # a blind control, whose images were destroyed
ALTERED = ("corrupt", "control")  # settings that alter the images


class LeaderboardRow(MetricFields, FullDocument):
    """One result, as in JSON and CSV; unknown values are None."""

    rank: Rank | None = None  # range of its places among comparable runs; None: not ranked
    kind: str
    """Kind of result: `measured`, whose runs are ranked, `replayed`, which gets the rank that it
    would have among them, `subset`, `candidates` (a run that decided among the best classes of
    another run), `corrupted` (a run on corrupted images), `control` (a blind control) or
    `reported`; in reports also `incomplete`."""
    published: bool = False  # whether it is one of the published runs, which others cannot move
    dataset: str  # registered name
    version: int | None  # version of the registered dataset
    split: str  # split of the dataset
    fingerprint: str | None = None  # hash of the data
    backbone: str  # registered name
    trained_on: str | None  # `dataset/split`, `unknown` or `undeclared`; None: zero-shot
    weights: str | None = None  # hash of the backbone's files
    strategy: str  # strategy that decided
    params: Parameters  # parameters of the strategy
    draw_plan: str | None = None  # plan of the draws' levels and noise
    seed: int | None = None  # seed of the noise
    loss: str | None = None  # function from differences to errors
    space: str | None = None  # space in which the error is measured
    dtype: str | None = None  # data type in which the backbone computes
    parameters: Parameters = Field({})  # all other settings, the backbone's parameters first
    template: str | None = None  # the user's template; None: the dataset's, or a file of prompts
    prompt: str | None = None  # first prompt
    classes: int | None = None  # number of classes
    accuracy: float  # share of images whose prediction is right
    accuracy_ci95: tuple[float, float] | None  # 95 % interval of the accuracy
    n_samples: int | None  # number of decided images
    n_total: int | None  # number of images of the whole split
    failed_samples: int | None = None  # number of images that failed and therefore count as wrong
    evaluations_per_image: float | None  # number of forward passes of the network
    evaluation_equivalents_per_image: float | None  # evaluations plus the cost of gradients
    cost_timed: bool | None = None  # whether the cost of gradients was timed on one machine
    seconds: float | None = None  # scoring time
    replayed_from: str | None = None  # run whose errors were replayed; None: not a replay
    audited: int | None = None  # number of images that were audited by a full sweep
    audited_same: int | None = None  # number of these that the full sweep decides as the run does
    agreement_ci95: tuple[float, float] | None = None
    """95 % interval of the share of all decisions that agree with the full sweep."""
    anytime_ci95: tuple[float, float] | None = None
    """Confidence sequence of the accuracy, 95 %, if a stopping rule ended the run."""
    stopped: str | None = None  # where a stopping rule ended the run and what it shows, in words
    against_first: Paired | None = None
    """Comparison of a run that has no rank with the first ranked one, on the images of both."""
    private_data: bool = False  # whether others cannot get the data
    in_memory: str | None = None  # class of the object that scored, if it exists only in memory
    adapters: str | None = None  # LoRAs and their scales, such as `style × 0.5`
    run_id: str | None = None  # id of the run
    command: str | None = None  # command that repeats the run
    source: str  # `run ID`, or where a result was reported
    path: str | None = None  # folder of the run; None: not on this machine

    _extra_metric: str = PrivateAttr("")  # metric for which the user requested a column

    def with_metric(self, name: str, value: float | None) -> Self:
        """Return the row with the value of a metric that gets a column at the user's request."""
        row = self.model_copy(update={name: value})
        row._extra_metric = name
        return row

    def shows(self, metric: MetricSpec) -> bool:
        """Return whether the row has a value for a column of this metric."""
        has_column = metric.column or metric.name == self._extra_metric
        return has_column and self.metric(metric.name) is not None

    @property
    def shown_ci95(self) -> tuple[float, float] | None:
        """The 95 % interval of the accuracy, valid also if a stopping rule ended the run."""
        return self.anytime_ci95 or self.accuracy_ci95

    @property
    def cost(self) -> float | None:
        """Evaluation equivalents per image, 1 for a classifier; None if unknown."""
        return 1.0 if self.classifier else self.evaluation_equivalents_per_image

    @property
    def aside(self) -> bool:
        """Whether default tables leave the row out: a replay, a control or a corruption."""
        return self.replayed_from is not None or any(name in self.parameters for name in ALTERED)

    @property
    def classifier(self) -> bool:
        """Whether the backbone is a classifier, which scores an image in one pass without draws."""
        has_draws = self.loss or self.draw_plan or "reduction" in self.parameters
        return not has_draws and self.kind != REPORTED

    @property
    def seconds_per_image(self) -> float | None:
        """Scoring time per image in seconds; None if unknown."""
        return self.seconds / self.n_samples if self.seconds and self.n_samples else None

    @property
    def training(self) -> tuple[str, str]:
        """Key that is equal for rows whose backbones were trained on the same data."""
        return training_group(self.trained_on, self.weights or self.backbone)

    @property
    def board(self) -> tuple[str, int, str, str]:
        """Key of the board to which the row belongs, by which boards are sorted."""
        return self.dataset, self.version or 0, self.split, self.fingerprint or ""


Rows = Sequence[LeaderboardRow]


def user_template(manifest: Manifest) -> str | None:
    """Return the user's template, several of them joined; None if the user set none."""
    template = manifest.config.template
    return " · ".join(template) if isinstance(template, list) else template


def run_row(path: Path, manifest: Manifest, summary: Summary) -> LeaderboardRow:
    """Return the row of a run; its rank is not set."""
    data, values, identity = summary.dataset, summary.metrics, manifest.identity
    swept = read_swept(path, manifest)
    stop = ending_answer(read_questions(path, manifest), data.n_samples)
    audit = audit_of(swept, manifest, read_decisions(path, manifest)) if swept else None
    kind = REPLAYED if summary.replayed_from else MEASURED
    kind = AMONG_CANDIDATES if identity.candidates else kind
    kind = CORRUPTED if identity.corrupt else kind
    kind = CONTROL if identity.control else kind
    return LeaderboardRow(
        kind=kind if data.n_samples == data.n_total else SUBSET,
        dataset=data.name,
        version=data.version,
        split=data.split,
        fingerprint=identity.dataset.fingerprint,
        backbone=summary.backbone.name,
        trained_on=summary.backbone.trained_on,
        weights=identity.backbone.weights,
        strategy=summary.strategy.name,
        params=summary.strategy.params,
        draw_plan=identity.scoring.draw_plan,
        seed=identity.seed,
        loss=identity.scoring.loss,
        space=identity.scoring.space,
        dtype=identity.backbone.dtype,
        parameters=other_settings(manifest),
        template=user_template(manifest),
        # A run that learned its classes from images used no prompts.
        prompt=manifest.prompts[0][0] if manifest.prompts and not identity.learned_from else None,
        classes=len(manifest.classes),
        accuracy_ci95=values.accuracy_ci95,
        **values.summary_metrics(),
        n_samples=data.n_samples,
        n_total=data.n_total,
        failed_samples=summary.failed_samples,
        evaluations_per_image=summary.cost.evaluations_per_image,
        evaluation_equivalents_per_image=summary.cost.equivalents_per_image,
        cost_timed=summary.cost.timed,
        seconds=summary.cost.seconds,
        replayed_from=summary.replayed_from,
        audited=audit and audit.images,
        audited_same=audit and audit.same,
        agreement_ci95=audit and audit.agreement_ci95,
        anytime_ci95=stop and stop.interval,
        stopped=stop and stop.label,
        published=is_published(path),
        private_data=manifest.private_data,
        in_memory=(manifest.backbone.in_memory or {}).get("class"),
        adapters=manifest.backbone.adapters,
        run_id=manifest.run_id,
        command=reproducing_command(manifest),
        source=f"run {manifest.run_id}",
        path=str(path),
    )


# Fields of an identity that have their own column, or that a column implies.
IN_COLUMNS = {
    "backbone": ("name", "version", "weights", "dtype", "parameters"),
    "scoring": ("loss", "space", "draw_plan"),
    "identity": (
        *("version", "dataset", "prompts", "backbone", "scoring", "strategy", "seed"),
        *("learned_from", "candidates", "replayed", "calibrated"),
    ),
}


def other_settings(manifest: Manifest) -> Parameters:
    """Return the settings that affect a run's results and have no column of their own."""
    identity, config = manifest.identity, manifest.config.plain()
    settings = dict(identity.backbone.parameters)
    parts = {"backbone": identity.backbone, "scoring": identity.scoring, "identity": identity}
    for part, document in parts.items():
        for name, value in document.plain().items():
            if isinstance(value, str) and value.startswith("sha256 "):  # show the file's name
                value = config.get(name) or value[:15]
            if name not in IN_COLUMNS[part]:
                settings[name] = value[:8] if name == "hierarchy" else value  # a hash
    if (source := identity.candidates) is not None:
        settings |= {"candidates_from": source.run_id, "top": source.top}
    if (stated := identity.calibrated) is not None:
        settings |= {"risk": stated.risk, "calibrated_on": stated.run_id}
    if settings.get("noise") == f"seed {identity.seed}":  # shown in the column `seed`
        del settings["noise"]
    return settings


def all_reported(
    folders: Iterable[Path], left_out: LeftOut = warn_left_out
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
        LeaderboardRow(
            **result.model_dump(),
            kind=REPORTED,
            params={},
            evaluation_equivalents_per_image=result.evaluations_per_image,
        )
        for result in read_reported(file)
    ]


REPORTED_FILE = "reported.json"


def _one_line(text: str) -> str:
    if has_control(text):
        raise ValueError("expected one line, without control characters")
    return text


Line = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_one_line)]


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
    source: Line = Field(min_length=10)  # author, publication and place in it

    @classmethod
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
