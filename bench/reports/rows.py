"""`RunRow`: the row of a run in tables of the leaderboard, of stored runs and of studies."""

from typing import Literal, Self

from pydantic import Field, JsonValue, PrivateAttr

from bench.contracts.parameters import Parameters
from bench.contracts.specs import training_group
from bench.discovery.loading import load_plugins
from bench.reports.facts import Fact, assignments
from bench.reports.run_facts import settings_of
from bench.reports.run_view import RunView
from bench.running.command import reproducing_command
from bench.stats.calibration.agreement import Audit
from bench.stats.metrics.summarise import INCOMPLETE
from bench.store.errata import Touch, in_cell
from bench.store.formats.documents import Manifest
from bench.store.formats.fields import FullDocument, Interval, MetricFields, Share
from bench.store.summary import WorstGroup

Currency = Literal["evaluations", "flop", "seconds"]  # what costs per image are counted in
ALTERED = ("corrupt", "control")  # settings that alter the images


class RunRow(MetricFields, FullDocument):
    """A run in a table, in JSON and in CSV; unknown values are None."""

    run_id: str | None = None  # id of the run
    status: str | None = None  # `complete`, `failed_samples`, `incomplete` or `unreadable`
    dataset: str | None = None  # registered name, or that of the folder
    version: int | None = None  # version of the registered dataset
    split: str | None = None  # split of the dataset
    fingerprint: str | None = None  # hash of the data
    backbone: str | None = None  # registered name
    trained_on: str | None = None  # `dataset/split`, `unknown` or `undeclared`; None: zero-shot
    weights: str | None = None  # hash of the backbone's files
    strategy: str | None = None  # strategy that decided
    params: Parameters = Field({})  # parameters of the strategy
    settings: Parameters = Field({})  # all other settings, by the names of their options
    classes: int | None = None  # number of classes
    accuracy: Share | None = None  # share of the decided images whose prediction is right
    accuracy_ci95: Interval | None = None  # 95 % interval, for a fixed number of images
    anytime_ci95: tuple[float, float] | None = None
    """Confidence sequence of the accuracy, 95 %, if a stopping rule ended the run."""
    stopped: str | None = None  # where a stopping rule ended the run and what it shows, in words
    n_samples: int | None = None  # number of decided images
    n_asked: int | None = None  # number of images of the run
    n_total: int | None = None  # number of images of the whole split
    failed_samples: int | None = None  # number of images that failed and therefore count as wrong
    worst_group: WorstGroup | None = None  # group of images with the lowest accuracy
    cost: float | None = None  # evaluation equivalents per image; 1 for a classifier
    flop_per_image: float | None = None  # floating-point operations, without encoders
    evaluations_per_image: float | None = None  # forward passes of the network; 1 for a classifier
    cost_timed: bool | None = None  # whether the cost of gradients was timed on one machine
    seconds: float | None = None  # scoring time
    replayed_from: str | None = None  # run whose errors were replayed; None: not a replay
    audit: Audit | None = None  # agreement with the full sweep; None if no image was audited
    private_data: bool = False  # whether others cannot get the data
    in_memory: str | None = None  # class of the object that scored, if it exists only in memory
    adapters: str | None = None  # LoRAs and their scales, such as `style × 0.5`
    errata: list[Touch] = Field([])  # what was wrong in runs such as this one
    created: str | None = None  # time at which the run was started, in ISO 8601
    note: str | None = None  # the user's note
    tags: list[str] = Field([])  # the user's tags
    command: str | None = None  # command that makes the run again
    path: str | None = None  # folder of the run; None: not on this machine

    _run: RunView | None = PrivateAttr(None)

    @classmethod
    def of(cls, run: RunView, **added: object) -> Self:
        """Return the row of a run, with the fields that its table adds."""
        row = cls.model_validate({**_fields(run), **added})
        row._run = run
        return row

    def cells(self) -> dict[str, JsonValue]:
        """Return column → value for CSV, with all digits; the ends of intervals come last."""
        line, worst, audit = self.plain(), self.worst_group, self.audit
        line |= {"params": assignments(self.params), "settings": assignments(self.settings)}
        line |= {"tags": " ".join(self.tags), "errata": in_cell(self.errata)}
        del line["accuracy_ci95"], line["anytime_ci95"], line["audit"]
        pairs = {  # two columns each
            "worst_group worst_group_accuracy": (worst.group, worst.accuracy) if worst else None,
            "audit_images audit_same": (audit.images, audit.same) if audit else None,
            "agreement_low agreement_high": audit.agreement_ci95 if audit else None,
            "anytime_low anytime_high": self.anytime_ci95,
            "accuracy_low accuracy_high": self.accuracy_ci95,
        }
        for names, pair in pairs.items():
            line |= zip(names.split(), pair or (None, None), strict=True)
        return line

    @property
    def run(self) -> RunView:
        """The run, which must be on this machine."""
        assert self._run is not None
        return self._run

    @property
    def n_declared(self) -> int | None:
        """Number of images of the split that the registered dataset declares; None if none is."""
        return None if self._run is None else declared_images(self._run.manifest)

    @property
    def shown_ci95(self) -> tuple[float, float] | None:
        """The 95 % interval of the accuracy, valid also if a stopping rule ended the run."""
        return self.anytime_ci95 or self.accuracy_ci95

    @property
    def classifier(self) -> bool:
        """Whether the backbone is a classifier, which scores an image in one pass without draws."""
        return self._run is not None and self._run.manifest.classifier

    @property
    def wrong(self) -> bool:
        """Whether an erratum says that the run's numbers are wrong, so that it has no rank."""
        return any(touch.unranks for touch in self.errata)

    @property
    def errata_marks(self) -> str:
        """The marks of the run's errata, such as `wrong`; "" if none has a mark."""
        return ", ".join(dict.fromkeys(touch.mark for touch in self.errata if touch.mark))

    @property
    def aside(self) -> bool:
        """Whether default tables leave the row out: a replay, a control or a corruption."""
        return self.replayed_from is not None or any(name in self.settings for name in ALTERED)

    @property
    def seconds_per_image(self) -> float | None:
        """Scoring time per image in seconds; None if unknown."""
        return self.seconds / self.n_samples if self.seconds and self.n_samples else None

    def spent(self, currency: Currency) -> Fact:
        """Return the cost per image in a currency; None if unknown."""
        if currency == "flop":
            flop = self.flop_per_image
            return Fact("TFLOP", None if flop is None else flop / 1e12, "cost")
        if currency == "seconds":
            return Fact("s", self.seconds_per_image, "cost")
        return Fact("cost", self.cost, "passes" if self.classifier else "cost")

    @property
    def training(self) -> tuple[str, str]:
        """Key that is equal for rows whose backbones were trained on the same data."""
        return training_group(self.trained_on, self.weights or self.backbone or "")


def declared_images(manifest: Manifest) -> int | None:
    """Return the number of images that the registered dataset declares for a run's split, or None.

    None if another version of the dataset is registered than the run's, or none.
    """
    data = manifest.identity.dataset
    spec = load_plugins().datasets.by_name().get(data.name)
    return None if spec is None or spec.version != data.version else spec.splits.get(data.split)


def _fields(run: RunView) -> dict[str, object]:
    """Return the fields of a run's row; the fields of results are left out if it has none yet."""
    manifest, identity, summary = run.manifest, run.manifest.identity, run.so_far
    fields: dict[str, object] = {
        "run_id": manifest.run_id,
        "status": INCOMPLETE,
        "dataset": manifest.dataset.name,
        "version": manifest.dataset.version,
        "split": manifest.dataset.split,
        "fingerprint": identity.dataset.fingerprint,
        "backbone": manifest.backbone.name,
        "trained_on": manifest.backbone.trained_on,
        "weights": identity.backbone.weights,
        "strategy": manifest.strategy.name,
        "params": manifest.strategy.params,
        "settings": settings_of(run),
        "classes": len(manifest.classes),
        "n_samples": run.n,
        "n_asked": manifest.total,
        "n_total": manifest.dataset.n_total,
        "replayed_from": manifest.replayed_from,
        "private_data": manifest.private_data,
        "in_memory": (manifest.backbone.in_memory or {}).get("class"),
        "adapters": manifest.backbone.adapters,
        "errata": run.errata,
        "created": manifest.created,
        "note": manifest.config.note,
        "tags": manifest.config.tags,
        "command": reproducing_command(manifest),
        "path": str(run.path),
    }
    if summary is None:
        return fields
    values, cost, stop = summary.metrics, summary.cost, run.stop
    fields |= {
        "status": summary.status,
        **values.summary_metrics(),
        "accuracy_ci95": values.accuracy_ci95,
        "anytime_ci95": stop and stop.interval,
        "stopped": stop and stop.label,
        "failed_samples": summary.failed_samples,
        "worst_group": values.worst_group,
        "cost": cost.per_image(manifest.classifier),
        "flop_per_image": cost.flop_per_image or _declared_flop(run),
        "evaluations_per_image": cost.passes_per_image(manifest.classifier),
        "cost_timed": cost.timed,
        "seconds": cost.seconds,
        "audit": run.audit,
    }
    return fields | ({run.measured.metric: run.measured.value} if run.measured else {})


def _declared_flop(run: RunView) -> float | None:
    """Return the operations per image by the backbone's spec, if the run used its own weights.

    They stand in for the counted operations in runs of earlier versions, which did not count them.
    """
    manifest, config = run.manifest, run.manifest.config.plain()
    spec = load_plugins().backbones.by_name().get(manifest.identity.backbone.name)
    if spec is None or not spec.flops or config.get("weights") or config.get("resolution"):
        return None
    return spec.flops * run.summary.cost.per_image(manifest.classifier)


def accuracy_fact(row: RunRow, interval: bool = True) -> Fact:
    """Return a row's accuracy, struck through if an erratum says that it is wrong."""
    ends = row.shown_ci95 if interval else None
    return Fact("accuracy", row.accuracy, "share", ends, struck=row.wrong)
