"""Export a run for the Hugging Face Hub, as a model card or `.eval_results/` entry, and push it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.contracts.specs import provenance
from bench.discovery.loading import load_plugins, metric_specs
from bench.errors import BenchError, UserError
from bench.machine.hub import endpoint
from bench.recordings.recording import SCHEME
from bench.reports.error_dataset import Sharing, write_error_dataset
from bench.reports.formats import assignments, percent_text
from bench.reports.text import escape_hidden, escape_yaml
from bench.store.documents import Manifest
from bench.store.fields import without_none
from bench.store.runs import StoredRun, read_run

EVAL_RESULTS = ".eval_results"  # folder in a model's repository


def model_index(run: Path) -> str:
    """Return the YAML header of a model card, whose `model-index` has one result per metric.

    It states the dataset's version, split, fingerprint and number of images, the strategy with its
    parameters, and the cost. Raises UserError if the run is incomplete.
    """
    from huggingface_hub import EvalResult, ModelCardData

    stored = read_run(run)
    manifest, summary = stored.manifest, stored.require_summary()
    data, strategy, backbone = summary.dataset, summary.strategy, summary.backbone
    method = f"{strategy.name} {assignments(strategy.params)}".strip()
    model = "Classifier" if manifest.classifier else "Diffusion classifier"
    zero_shot = backbone.trained_on is None
    task = {
        "task_type": "zero-shot-image-classification" if zero_shot else "image-classification",
        "task_name": f"{model} ({method})",
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
    method_args = {
        "strategy": method,
        "trained_on": provenance(backbone.trained_on),
        "evaluations_per_image": round(summary.cost.evaluations_per_image, 2),
        "evaluation_equivalents_per_image": round(summary.cost.equivalents_per_image, 2),
        "run_id": manifest.run_id,
        **without_none(replayed_from=summary.replayed_from),
    }
    values = summary.metrics.plain()
    results = []
    for key, metric in metric_specs().items():
        if metric.hub and values.get(key) is not None:
            kind, name = metric.hub
            interval = {"ci95": values["accuracy_ci95"]} if key == "accuracy" else {}
            results.append(
                EvalResult(
                    **escape_yaml(task),
                    metric_type=kind,
                    metric_name=name,
                    metric_value=values[key],
                    metric_args=escape_yaml(method_args) | metric.hub_arguments | interval,
                )
            )
    card = ModelCardData(model_name=escape_hidden(backbone.name), eval_results=results)
    return str(card.to_yaml())


def eval_results(run: Path, dataset: str | None = None, task: str | None = None) -> str:
    """Return the YAML of an entry of `.eval_results/`, whose value is the accuracy from 0 to 1.

    An entry holds a single value, so strategy, cost and interval are stated in its notes. `dataset`
    is the id of the benchmark on the Hub (None: the registered source of the run's dataset), and
    `task` that of the task in the benchmark (None: `default`). Raises UserError if the run is
    incomplete, its dataset is not known to be on the Hub, or huggingface_hub is too old.
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

    stored = read_run(run)
    summary = stored.require_summary()
    dataset_id, revision = on_hub(stored.manifest, dataset)
    entry = EvalResultEntry(
        dataset_id=dataset_id,
        task_id=task or "default",
        value=summary.metrics.accuracy,
        dataset_revision=revision,
        date=stored.manifest.created,
        notes=escape_hidden(_notes(stored)),
    )
    return str(yaml_dump(eval_result_entries_to_yaml([entry]), sort_keys=False))


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
            " with --hub-dataset owner/name."
        )
    path, _, revision = source.removeprefix(SCHEME).partition("@")
    dataset_id = "/".join(path.split("/")[:2])  # the rest is a path inside the repository
    return dataset_id, revision if len(revision) == 40 else None


def _notes(run: StoredRun) -> str:
    manifest, summary = run.manifest, run.require_summary()
    data, strategy, accuracy = summary.dataset, summary.strategy, summary.metrics.accuracy
    scorer = "classifier" if manifest.classifier else "diffusion classifier"
    part = "" if data.n_samples == data.n_total else f" of {data.n_total:,}"
    facts = [
        f"accuracy, % (95 % interval): {percent_text(accuracy, summary.metrics.accuracy_ci95)},"
        f" {data.n_samples:,}{part} images of {data.split}",
        f"{scorer} {summary.backbone.name}, {provenance(summary.backbone.trained_on)}",
        f"strategy {strategy.name} {assignments(strategy.params)}".strip(),
        summary.cost.in_words(manifest.classifier),
        f"seed {manifest.identity.seed}",
        *([f"replayed from {summary.replayed_from}"] if summary.replayed_from else []),
        f"bench run {manifest.run_id}",
    ]
    return "; ".join(facts)


@dataclass(frozen=True)
class Push:
    """Files to be sent to a repository on the Hub in one commit."""

    kind: Literal["model", "dataset"]  # type of the repository
    repository: str  # id of the repository, `owner/name`
    folder: Path  # folder that holds the files
    message: str  # message of the commit

    @property
    def files(self) -> dict[str, Path]:
        """The files by their path in the repository."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in paths}


@contextmanager
def prepare_push(
    run: Path,
    kind: str,
    repository: str,
    dataset: str | None = None,
    task: str | None = None,
    sharing: Sharing | None = None,
) -> Iterator[Push]:
    """Write the files of a push to a temporary folder, which is deleted when the context ends.

    `kind` is `eval-results`, for a model's repository, or `errors`, for a dataset's repository. For
    `dataset` and `task` see `eval_results`. Raises UserError if the run lacks what `kind` needs, or
    `repository` is not of the form owner/name.
    """
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise UserError(f"--to {repository}: expected the form owner/name.")
    name = read_run(run).manifest.run_id
    with tempfile.TemporaryDirectory(prefix="bench-push-") as temporary:
        folder = Path(temporary, "push")
        if kind == "errors":
            write_error_dataset(run, folder, sharing)
            yield Push("dataset", repository, folder, f"Add the errors of {name}")
        else:
            entry = eval_results(run, dataset, task)
            (folder / EVAL_RESULTS).mkdir(parents=True)
            (folder / EVAL_RESULTS / f"{name}.yaml").write_text(entry, "utf-8")
            yield Push("model", repository, folder, f"Add the result of {name}")


def send(push: Push, pull_request: bool = False, create: bool = False) -> str:
    """Send the files to the Hub, and return the URL of the commit or pull request (BenchError).

    With `create`, a missing repository is created as a private one.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=endpoint())
    try:
        if create:
            api.create_repo(push.repository, repo_type=push.kind, private=True, exist_ok=True)
        commit = api.upload_folder(
            repo_id=push.repository,
            folder_path=push.folder,
            commit_message=push.message,
            repo_type=push.kind,
            create_pr=pull_request,
        )
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        advice = {
            401: " Log in with: hf auth login",
            403: " The token may not write there; --pull-request proposes the change instead.",
            404: f" There is no {push.kind} of that name that you can see; --create makes it.",
        }.get(status or 0, "")
        raise BenchError(
            f"--to {push.repository}: the Hub refused it ({status}).{advice}"
        ) from error
    except Exception as error:  # the Hub's client raises many types
        raise BenchError(
            f"--to {push.repository}: the Hub cannot be reached ({type(error).__name__})."
        ) from error
    return str((commit.pr_url if pull_request else commit.commit_url) or push.repository)
