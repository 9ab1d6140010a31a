"""A run on the Hugging Face Hub: as a model card, or as an entry of `.eval_results/`."""

from pathlib import Path
from typing import Any, ClassVar

from bench.contracts.exporters import Exporter
from bench.contracts.specs import provenance
from bench.discovery.loading import load_plugins
from bench.discovery.queries import metric_specs
from bench.errors import UserError
from bench.machine.hub import SCHEME
from bench.reports.facts import assignments
from bench.reports.run_facts import scores
from bench.reports.run_view import RunView
from bench.reports.text import escape_hidden, escape_yaml
from bench.store.formats.documents import Manifest
from bench.store.formats.fields import without_none

EVAL_RESULTS = ".eval_results"  # folder in a model's repository


class ModelIndex(Exporter):
    """The YAML header of a model card on the Hugging Face Hub, with one result per metric.

    It states the dataset's version, split, fingerprint and number of images, the strategy with its
    parameters, and the cost.
    """

    spec: ClassVar[dict[str, Any]] = {"name": "model-index"}

    def write(self, run: RunView, folder: Path) -> None:
        """Write the header; UserError if the run is incomplete."""
        from huggingface_hub import EvalResult, ModelCardData

        summary = run.stored.require_summary()
        task, arguments = escape_yaml(_task(run)), escape_yaml(_metric_arguments(run))
        values = summary.metrics.plain()
        accuracy, *_ = scores(run)
        results = []
        for key, metric in metric_specs().items():
            if metric.hub and values.get(key) is not None:
                kind, name = metric.hub
                interval = {"ci95": list(accuracy.interval or ())} if key == "accuracy" else {}
                results.append(
                    EvalResult(
                        **task,
                        metric_type=kind,
                        metric_name=name,
                        metric_value=values[key],
                        metric_args=arguments | metric.hub_arguments | interval,
                    )
                )
        name = escape_hidden(summary.backbone.name)
        card = ModelCardData(model_name=name, eval_results=results)
        (folder / "README.md").write_text(str(card.to_yaml()), "utf-8")


def _task(run: RunView) -> dict[str, object]:
    """Return the fields of a result that name the task and the data."""
    manifest, data = run.manifest, run.summary.dataset
    scorer = "Classifier" if manifest.classifier else "Diffusion classifier"
    zero_shot = run.summary.backbone.trained_on is None
    return {
        "task_type": "zero-shot-image-classification" if zero_shot else "image-classification",
        "task_name": f"{scorer} ({_method(run)})",
        "dataset_type": data.name,
        "dataset_name": f"{data.name}/{data.split}",
        "dataset_split": data.split,
        "dataset_args": {
            "version": data.version,
            "fingerprint": manifest.identity.dataset.fingerprint,
            "n_samples": data.n_samples,
            "n_total": data.n_total,
        },
    }


def _metric_arguments(run: RunView) -> dict[str, object]:
    """Return what a result says of the model, the strategy and the cost."""
    summary = run.summary
    classifier = run.manifest.classifier  # whether the backbone scores directly
    return {
        "strategy": _method(run),
        "trained_on": provenance(summary.backbone.trained_on),
        "evaluations_per_image": round(summary.cost.passes_per_image(classifier), 2),
        "evaluation_equivalents_per_image": round(summary.cost.per_image(classifier), 2),
        "run_id": run.manifest.run_id,
        **without_none(replayed_from=summary.replayed_from),
        **({"errata": [erratum.sentence for erratum in run.errata]} if run.errata else {}),
    }


def _method(run: RunView) -> str:
    """Return the strategy with its parameters."""
    strategy = run.summary.strategy
    return f"{strategy.name} {assignments(strategy.params)}".strip()


class EvalResults(Exporter):
    """An entry of .eval_results/ in a model's repository on the Hub, with the accuracy from 0 to 1.

    An entry holds a single value, so strategy, cost and interval are stated in its notes.

    Args:
        hub_dataset: the benchmark on the Hub, OWNER/NAME; by default the source of the dataset.
        task: the id of the task in that benchmark.
    """

    spec: ClassVar[dict[str, Any]] = {"name": "eval-results", "repository": "model"}

    def __init__(self, hub_dataset: str | None = None, task: str = "default") -> None:
        self._dataset, self._task = hub_dataset, task

    def write(self, run: RunView, folder: Path) -> None:
        """Write the entry.

        Raises UserError if the run is incomplete, its dataset not on the Hub, or huggingface_hub
        too old.
        """
        try:
            from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
        except ImportError:
            import huggingface_hub

            raise UserError(
                f"--format eval-results needs huggingface_hub 1.4 or newer, and"
                f" {huggingface_hub.__version__} is installed: pip install -U huggingface_hub"
            ) from None
        from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]  # not in __all__

        run.stored.require_summary()
        dataset_id, revision = on_hub(run.manifest, self._dataset)
        accuracy, *_ = scores(run)
        entry = EvalResultEntry(
            dataset_id=dataset_id,
            task_id=self._task,
            value=accuracy.value,
            dataset_revision=revision,
            date=run.manifest.created,
            notes=escape_hidden(_notes(run)),
        )
        text = yaml_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
        (folder / EVAL_RESULTS).mkdir()
        file = folder / EVAL_RESULTS / f"{run.manifest.run_id}.yaml"
        file.write_text(str(text), "utf-8")


def on_hub(manifest: Manifest, stated: str | None) -> tuple[str, str | None]:
    """Return the id of a run's dataset on the Hub, and its revision if that is a commit hash.

    `stated` is the id that the user stated; None: the registered source of the dataset. Raises
    UserError if the dataset is not known to be on the Hub.
    """
    name = manifest.config.dataset
    source = f"{SCHEME}{stated.removeprefix(SCHEME)}" if stated else name
    registered = load_plugins().datasets
    if not source.startswith(SCHEME) and name in registered:
        source = registered.get(name).source or ""
    if not source.startswith(SCHEME):
        raise UserError(
            f"{manifest.run_id}: its dataset {name!r} is not known to be on the Hub. Name it there"
            " with --set hub_dataset=owner/name."
        )
    path, _, revision = source.removeprefix(SCHEME).partition("@")
    dataset_id = "/".join(path.split("/")[:2])  # the rest is a path inside the repository
    return dataset_id, revision if len(revision) == 40 else None  # hex digits of a commit


def _notes(run: RunView) -> str:
    """Return what an entry has no field for."""
    manifest, summary = run.manifest, run.summary
    data = summary.dataset
    accuracy, *_ = scores(run)
    scorer = "classifier" if manifest.classifier else "diffusion classifier"
    part = "" if data.n_samples == data.n_total else f" of {data.n_total:,}"
    facts = [
        f"accuracy, % (95 % interval): {accuracy.text},"
        f" {data.n_samples:,}{part} images of {data.split}",
        f"{scorer} {summary.backbone.name}, {provenance(summary.backbone.trained_on)}",
        f"strategy {_method(run)}",
        summary.cost.in_words(manifest.classifier),
        f"seed {manifest.identity.seed}",
        *([f"replayed from {summary.replayed_from}"] if summary.replayed_from else []),
        f"bench run {manifest.run_id}",
        *(f"{erratum.mark or 'erratum'}: {erratum.sentence}" for erratum in run.errata),
    ]
    return "; ".join(facts)
