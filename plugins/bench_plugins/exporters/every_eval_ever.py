"""Export a run for Every Eval Ever, a shared database of evaluation results (arXiv 2606.14516).

Two files are written, at their paths in the database's repository: a document with one result per
metric, and JSON Lines with one line per image. They follow its schemas of version 0.3.0.
"""

import hashlib
import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar

from bench import __version__
from bench.contracts.exporters import Exporter
from bench.contracts.specs import provenance
from bench.discovery.queries import metric_specs
from bench.errors import UserError
from bench.machine.hub import SCHEME
from bench.reports.facts import assignments, value_text
from bench.reports.leaderboard.adding import strip_paths
from bench.reports.run_facts import scores
from bench.reports.run_view import RunView
from bench.running.command import reproducing_command
from bench.store.formats.documents import Manifest
from bench.store.formats.fields import without_none
from bench_plugins.exporters.hub import on_hub

SCHEMA_VERSION = "0.3.0"
MAX_CHOICES = 100  # with more classes, the lines do not list them
OWNER = "diffusion-classifier-bench"  # of models that are not on the Hub
_UNUSUAL = re.compile(r"[^\w.+-]")  # characters to avoid in the name of a folder


class EveryEvalEver(Exporter):
    """A result per metric and a line per image, for Every Eval Ever (arXiv 2606.14516)."""

    spec: ClassVar[dict[str, Any]] = {"name": "every-eval-ever", "several": True, "adds": True}

    def write(self, run: RunView, folder: Path) -> None:
        """Write both files at their paths in the database; UserError if the run is incomplete."""
        run.stored.require_summary()
        manifest, model = run.manifest, _model_id(run.manifest)
        names = (_UNUSUAL.sub("-", name).strip(".-") for name in (manifest.dataset.name, *model))
        place = Path("data", *(name or "unnamed" for name in names))
        name = uuid.UUID(bytes=hashlib.sha256(manifest.run_id.encode()).digest()[:16], version=4)
        now = f"{time.time():.0f}"
        evaluation = f"{manifest.dataset.name}/{'/'.join(model)}/{now}"
        shared = {"schema_version": SCHEMA_VERSION, "evaluation_id": evaluation}
        lines = list(_lines(run, {**shared, "model_id": "/".join(model)}))
        content = "".join(f"{_json(line)}\n" for line in lines).encode()
        document = {
            **shared,
            "retrieved_timestamp": now,
            "evaluation_timestamp": f"{datetime.fromisoformat(manifest.created).timestamp():.0f}",
            "source_metadata": {
                "source_type": "evaluation_run",
                "source_organization_name": "unknown",
                "evaluator_relationship": "other",
                "additional_details": {"run_id": manifest.run_id},
            },
            "eval_library": {"name": "diffusion-classifier-bench", "version": __version__},
            "model_info": _model(manifest, model),
            "evaluation_results": list(_results(run)),
            "detailed_evaluation_results": {
                "format": "jsonl",
                "file_path": (place / f"{name}_samples.jsonl").as_posix(),
                "hash_algorithm": "sha256",
                "checksum": hashlib.sha256(content).hexdigest(),
                "total_rows": len(lines),
            },
        }
        (folder / place).mkdir(parents=True)
        (folder / place / f"{name}.json").write_text(_json(strip_paths(document)), "utf-8")
        (folder / place / f"{name}_samples.jsonl").write_bytes(content)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _model_id(manifest: Manifest) -> tuple[str, str]:
    """Return the owner and the name of the model, as on the Hub if its weights are from there."""
    weights = (manifest.backbone.weights or "").removeprefix(SCHEME).partition("@")[0]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", weights) and not Path(weights).exists():
        owner, _, name = weights.partition("/")
        return owner, name
    return OWNER, manifest.backbone.name.replace("/", "-")


def _model(manifest: Manifest, model: tuple[str, str]) -> dict[str, object]:
    backbone = manifest.backbone
    return {
        "name": backbone.name,
        "id": "/".join(model),
        "additional_details": {
            "deployment_type": "self_deployed",
            "model_availability": "unknown" if model[0] == OWNER else "open_weights",
            "trained_on": provenance(backbone.trained_on),
            **without_none(
                weights=backbone.weights, revision=backbone.revision, dtype=backbone.dtype
            ),
        },
    }


def _results(run: RunView) -> Iterator[dict[str, object]]:
    manifest, summary = run.manifest, run.summary
    values = summary.metrics.plain()
    accuracy, *_ = scores(run)
    low, high = accuracy.interval or (None, None)
    method = "confidence sequence" if run.stop else "Wilson score"
    interval = {"lower": low, "upper": high, "confidence_level": 0.95, "method": method}
    source, settings = _source(manifest), _settings(run)
    for name, metric in metric_specs().items():
        if not isinstance(score := values.get(name), int | float):
            continue
        details: dict[str, object] = {"score": score}
        if name == "accuracy":
            images = summary.dataset.n_samples
            details["uncertainty"] = {"confidence_interval": interval, "num_samples": images}
        ends = [v if isfinite(v) else str(v).replace("inf", "Infinity") for v in metric.range]
        yield {
            "evaluation_result_id": f"{manifest.run_id}/{name}",
            "evaluation_name": _name(manifest),
            "source_data": source,
            "metric_config": {
                "metric_id": name,
                "metric_name": metric.words,
                "metric_unit": "proportion" if metric.unit == "share" else metric.unit,
                "lower_is_better": metric.sign < 0,
                "score_type": "continuous",
                "min_score": ends[0],
                "max_score": ends[1],
            },
            "score_details": details,
            "generation_config": settings,
        }


def _name(manifest: Manifest) -> str:
    return f"{manifest.dataset.name}/{manifest.dataset.split}"


def _source(manifest: Manifest) -> dict[str, object]:
    data, name = manifest.dataset, _name(manifest)
    details = {
        "version": str(data.version),
        "fingerprint": manifest.identity.dataset.fingerprint,
        "images_of_the_split": str(data.n_total),
    }
    shared = {"dataset_name": name, "additional_details": details}
    try:
        repository, _ = on_hub(manifest, None)
    except UserError:  # the dataset is not known to be on the Hub
        return {**shared, "source_type": "other"}
    hub = {"hf_repo": repository, "hf_split": data.split, "samples_number": len(manifest.samples)}
    return {**shared, "source_type": "hf_dataset", **hub}


def _settings(run: RunView) -> dict[str, object]:
    manifest, summary = run.manifest, run.summary
    details = {
        "strategy": f"{manifest.strategy.name} {assignments(manifest.strategy.params)}".strip(),
        "seed": str(manifest.identity.seed),
        "evaluation_equivalents_per_image": f"{summary.cost.per_image(manifest.classifier):g}",
    }
    scoring = manifest.identity.scoring.plain()
    details |= {f"scoring.{name}": value_text(value) for name, value in scoring.items()}
    details |= {f"erratum.{erratum.name}": erratum.sentence for erratum in run.errata}
    command = reproducing_command(manifest)
    return {
        "generation_args": without_none(execution_command=command, prompt_template=run.template),
        "additional_details": details,
    }


def _lines(run: RunView, shared: Mapping[str, Any]) -> Iterator[dict[str, object]]:
    manifest = run.manifest
    choices = manifest.classes if len(manifest.classes) <= MAX_CHOICES else None
    form = (
        "Which of its texts fits {}?" if manifest.items else "Which class does the image {} show?"
    )
    for row in run.samples:
        answer, seconds = row["prediction"] or "", row["seconds"]
        question = form.format(row["sample_id"])
        reference = [row["label"]]
        yield {
            **shared,
            "evaluation_name": _name(manifest),
            "evaluation_result_id": f"{manifest.run_id}/accuracy",
            "sample_id": row["sample_id"],
            "sample_hash": hashlib.sha256((question + "".join(reference)).encode()).hexdigest(),
            "interaction_type": "single_turn",
            "input": {"raw": question, "reference": reference, "choices": choices},
            "output": {"raw": [answer]},
            "messages": None,
            "answer_attribution": [
                {
                    "turn_idx": 0,
                    "source": "output.raw",
                    "extracted_value": answer,
                    "extraction_method": "exact_match",
                    "is_terminal": True,
                }
            ],
            "evaluation": {"score": float(row["correct"]), "is_correct": row["correct"]},
            "performance": None if seconds is None else {"latency_ms": 1000 * seconds},
            "error": row["error"],
            "metadata": {
                name: str(row[name])
                for name in ("score", "margin", "margin_stderr", "evaluations")
                if row[name] is not None
            },
        }
