"""A run as the Hugging Face Hub's benchmarks read it: a file in a model's `.eval_results/`."""

from __future__ import annotations

from pathlib import Path

from bench.boards.formats import assignments
from bench.boards.text import visible
from bench.contracts.training import provenance
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.store.documents import Manifest
from bench.store.runs import StoredRun, read_run

FOLDER = ".eval_results"  # in a model's repository
HUB = "hf:"


def eval_results(run: Path, dataset: str | None = None, task: str | None = None) -> str:
    """Return the YAML of one entry: the accuracy, between 0 and 1, and in its notes how it came.

    The format holds one value per entry, so strategy, cost and interval are in the notes.

    Args:
        run: the folder of a complete run.
        dataset: the benchmark's id on the Hub; None: what the dataset says of its source.
        task: the task's id in that benchmark; None: `default`.

    Raises:
        UserError: the run is not complete, its dataset is not known to be on the Hub, or the
            installed huggingface_hub has no such entries.
    """
    try:
        from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    except ImportError:
        import huggingface_hub

        raise UserError(
            f"--format eval-results needs huggingface_hub 1.4 or newer, and"
            f" {huggingface_hub.__version__} is installed: pip install -U huggingface_hub"
        ) from None
    from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]  # not in its list

    stored = read_run(run)
    summary = stored.finished()
    where, revision = _on_hub(stored.manifest, dataset)
    entry = EvalResultEntry(
        dataset_id=where,
        task_id=task or "default",
        value=summary.metrics.accuracy,
        dataset_revision=revision,
        date=stored.manifest.created,
        notes=visible(_notes(stored)),
    )
    return str(yaml_dump(eval_result_entries_to_yaml([entry]), sort_keys=False))


def _on_hub(manifest: Manifest, given: str | None) -> tuple[str, str | None]:
    """Return the id of a run's dataset on the Hub, and its revision where that is a commit."""
    name = manifest.config.dataset
    source = f"{HUB}{given.removeprefix(HUB)}" if given else name
    registered = load_plugins().datasets
    if not source.startswith(HUB) and name in registered:
        source = registered.get(name).source or ""
    if not source.startswith(HUB):
        raise UserError(
            f"{manifest.run_id}: where its dataset {name!r} is on the Hub is not known. Name it"
            " with --hub-dataset owner/name."
        )
    where, _, revision = source.removeprefix(HUB).partition("@")
    where = "/".join(where.split("/")[:2])  # what follows names a part of it
    return where, revision if len(revision) == 40 else None


def _notes(run: StoredRun) -> str:
    manifest, summary = run.manifest, run.finished()
    data, strategy = summary.dataset, summary.strategy
    low, high = summary.metrics.accuracy_ci95
    scorer = "classifier" if manifest.classifier else "diffusion classifier"
    part = "" if data.n_samples == data.n_total else f" of {data.n_total:,}"
    said = [
        f"accuracy, 95 % interval {low:.4f}-{high:.4f}, {data.n_samples:,}{part} images of"
        f" {data.split}",
        f"{scorer} {summary.backbone.name}, {provenance(summary.backbone.trained_on)}",
        f"strategy {strategy.name} {assignments(strategy.params)}".strip(),
        summary.cost.in_words(manifest.classifier),
        f"seed {manifest.identity.seed}",
        *([f"replayed from {summary.replayed_from}"] if summary.replayed_from else []),
        f"bench run {manifest.run_id}",
    ]
    return "; ".join(said)
