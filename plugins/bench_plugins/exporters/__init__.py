"""Formats of `bench export`."""

from __future__ import annotations

from collections.abc import Callable

from bench import hookimpl
from bench.contracts.specs import Parameter

HUB_DATASET = Parameter(
    None, "the benchmark on the Hub, OWNER/NAME; by default the dataset's source"
)


@hookimpl
def register_exporters(register: Callable[..., None]) -> None:
    """Register the exporters."""
    here = "bench_plugins.exporters"
    register(
        "model-index",
        target=f"{here}.hub:ModelIndex",
        summary="the YAML of a model card on the Hugging Face Hub",
    )
    register(
        "eval-results",
        target=f"{here}.hub:EvalResults",
        summary="an entry for .eval_results/ in a model's repository on the Hub",
        repository="model",
        parameters={
            "hub_dataset": HUB_DATASET,
            "task": Parameter("default", "the task's id in that benchmark"),
        },
    )
    register(
        "errors",
        target=f"{here}.errors:ErrorDataset",
        summary="every recorded error as a dataset with a Croissant file, which others can replay",
        repository="dataset",
        several=True,
        parameters={
            "licence": Parameter(None, "licence of the errors, as SPDX id such as CC-BY-4.0"),
            "bits": Parameter(
                None,
                "round errors to so many bits of each draw's spread over the prompts, 4 to 16; the"
                " folder has a run id of its own",
                int,
            ),
        },
    )
    register(
        "every-eval-ever",
        target=f"{here}.every_eval_ever:EveryEvalEver",
        summary="a document and a line per image for the database of that name (arXiv 2606.14516)",
        several=True,
        adds=True,
    )
    table = "one row per image: label, prediction, margin, cost, stability"
    register("csv", target=f"{here}.tables:ImagesCsv", summary=f"{table}, as CSV")
    register("parquet", target=f"{here}.tables:ImagesParquet", summary=f"{table}, as parquet")
    register(
        "latex", target=f"{here}.tables:Latex", summary="metrics and cost as a table for a paper"
    )
