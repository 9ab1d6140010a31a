"""A run as the Hugging Face Hub reads it: the `model-index` of a model card."""

from __future__ import annotations

from pathlib import Path

from bench.boards.formats import assignments
from bench.boards.text import visible, yaml_value
from bench.contracts.training import provenance
from bench.store.runs import read_run

# our name → the Hub's metric, its name for people, its arguments
METRICS: dict[str, tuple[str, str, dict[str, str | int]]] = {
    "accuracy": ("accuracy", "Accuracy", {}),
    "balanced_accuracy": ("accuracy", "Balanced accuracy", {"balanced": True}),
    "precision_weighted": ("precision", "Precision, weighted", {"average": "weighted"}),
    "recall_weighted": ("recall", "Recall, weighted", {"average": "weighted"}),
    "f1_weighted": ("f1", "F1, weighted", {"average": "weighted"}),
    "f1_macro": ("f1", "F1, macro", {"average": "macro"}),
    "top5_accuracy": ("accuracy", "Top-5 accuracy", {"top_k": 5}),
}


def model_index(run: Path) -> str:
    """Return the YAML of a model card's header: `model-index` with a result for each metric.

    Task, data set and its version, split and fingerprint, how many images, the strategy with its
    parameters and the evaluations per image are in it, so that the figure can be made again.

    Args:
        run: the folder of a complete run.

    Raises:
        UserError: the run is not complete.
    """
    from huggingface_hub import EvalResult, ModelCardData

    stored = read_run(run)
    manifest, summary = stored.manifest, stored.finished()
    data, strategy, backbone = summary.dataset, summary.strategy, summary.backbone
    method = f"{strategy.name} {assignments(strategy.params)}".strip()
    described = {
        "version": data.version,
        "fingerprint": manifest.identity.dataset.fingerprint,
        "n_samples": data.n_samples,
        "n_total": data.n_total,
    }
    how: dict[str, str | float] = {
        "strategy": method,
        "trained_on": provenance(backbone.trained_on),
        "evaluations_per_image": round(summary.cost.evaluations_per_image, 2),
        "evaluation_equivalents_per_image": round(summary.cost.equivalents_per_image, 2),
        "run_id": manifest.run_id,
    }
    if summary.replayed_from:
        how["replayed_from"] = summary.replayed_from
    zero_shot = backbone.trained_on is None
    model = "Classifier" if manifest.classifier else "Diffusion classifier"
    values = summary.metrics.plain()
    results = [
        EvalResult(
            task_type="zero-shot-image-classification" if zero_shot else "image-classification",
            **yaml_value(
                {
                    "task_name": f"{model} ({method})",
                    "dataset_type": data.name,
                    "dataset_name": f"{data.name}/{data.split}",
                    "dataset_split": data.split,
                    "dataset_args": described,
                }
            ),
            metric_type=kind,
            metric_name=name,
            metric_value=values[key],
            metric_args=yaml_value(how)
            | arguments
            | ({"ci95": values["accuracy_ci95"]} if key == "accuracy" else {}),
        )
        for key, (kind, name, arguments) in METRICS.items()
        if values.get(key) is not None
    ]
    card = ModelCardData(model_name=visible(backbone.name), eval_results=results)
    return str(card.to_yaml())
