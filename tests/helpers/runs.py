"""Run folders in the real format, written by the real store, of any size."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from bench.stats.metrics.summarise import summarize
from bench.store.formats.decisions import read_decisions
from bench.store.formats.documents import Manifest
from bench.store.formats.identity import Identity, prompts_digest, run_id
from bench.store.formats.journal import Record
from bench.store.writing import RunFolder

REPORTED: dict[str, Any] = {
    "dataset": "ucmerced",
    "split": "test",
    "backbone": "clip",
    "strategy": "none",
    "accuracy": 0.6,
    "source": "A. Author, a paper, table 2",
}


def a_record(sample_id: str, label: int, prediction: int | None, **changes: Any) -> Record:
    """Return a record; `prediction` None: of an image that failed."""
    other = 0 if prediction else 1
    top = [] if prediction is None else [[prediction, 0.1, 5], [other, 0.12, 5]]
    known = None if prediction is None else 1.0
    record = {
        "sample_id": sample_id,
        "label": label,
        "prediction": prediction,
        "score": known and 0.1,
        "margin": known and 0.02,
        "margin_stderr": known and 0.01,
        "confidence": known and 0.9,
        "evaluations": 50,
        "top": top,
        "seconds": 0.5,
        "error": "broken" if prediction is None else None,
        **changes,
    }
    return cast(Record, record)  # changes may be what no record should have


def a_manifest(
    samples: Sequence[str],
    n_classes: int = 3,
    dataset: str = "d",
    backbone: str = "b",
    strategy: str = "full",
    version: int = 1,
    split: str = "test",
    n_total: int | None = None,
    trained_on: str | None = None,
    fingerprint: str = "f" * 64,
    seed: int = 0,
    scoring: Mapping[str, Any] | None = None,
    draws: int = 5,
    prompts_hash: str | None = None,
    **more: Any,
) -> Manifest:
    prompts = more.pop("prompts", [[f"a class {c}", c] for c in range(n_classes)])
    data = {"name": dataset, "version": version, "split": split}
    described = {"name": strategy, "version": 1, "params": {"draws": draws}}
    identity: dict[str, Any] = {
        "version": 1,
        "dataset": {**data, "fingerprint": fingerprint},
        "prompts": prompts_hash or prompts_digest(prompts),
        "backbone": {"name": backbone, "version": 1, "weights": None, "dtype": "float32"},
        "scoring": dict(scoring or {}),
        "strategy": described,
        "seed": seed,
    }
    identity |= {name: more.pop(name) for name in ("corrupt", "control") if name in more}
    if "replayed_from" in more:
        identity["replayed"] = {"run_id": more["replayed_from"], "identity": "e" * 64}
    content = {
        "format": 1,
        "run_id": run_id(dataset, backbone, strategy, Identity.model_validate(identity)),
        "identity": identity,
        "created": "2026-12-02T00:00:00+00:00",
        "config": {"dataset": dataset, "limit": None},
        "dataset": {**data, "n_total": n_total or len(samples)},
        "backbone": {
            "name": backbone,
            "version": 1,
            "weights": None,
            "revision": None,
            "dtype": "float32",
            "trained_on": trained_on,
        },
        "strategy": described,
        "classes": [f"class {c}" for c in range(n_classes)],
        "prompts": prompts,
        "samples": list(samples),
        "environment": {"python": "3.11", "packages": {}, "git": None},
        **more,
    }
    return Manifest.model_validate(content)


def store(
    results: Path,
    labels: Sequence[int],
    predictions: Sequence[int | None],
    record: dict[str, Any] | None = None,
    sample_ids: Sequence[str] | None = None,
    complete: bool = True,
    groups: Sequence[str | None] | None = None,
    **manifest: Any,
) -> Path:
    """Store a run; returns its folder. `record` changes fields of every record."""
    ids = list(sample_ids or [f"s{i:04d}" for i in range(len(labels))])
    described = a_manifest(ids, **manifest)
    path = results / described.run_id
    with RunFolder(path, described) as folder:
        of_group = [{"group": group} for group in groups] if groups else [{}] * len(ids)
        for sample_id, label, prediction, own in zip(
            ids, labels, predictions, of_group, strict=True
        ):
            line = a_record(sample_id, label, prediction, **{**(record or {}), **own})
            folder.append(line, None, np.zeros(0, np.int64))
        if complete:
            decided = read_decisions(path, folder.manifest, top=True)
            folder.finish(summarize(described, decided, 10.0, 1_000_000))
    return path
