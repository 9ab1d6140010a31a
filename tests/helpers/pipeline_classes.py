"""What happens to each pipeline class of the installed diffusers, as a page shows it.

PYTHONPATH=tests python -m helpers.pipeline_classes    # writes the table of the page anew
"""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
from helpers.places import ROOT

from bench.discovery.loading import load_plugins
from bench_plugins.backbones._facts import facts_of
from bench_plugins.backbones._pipelines.gate import CLASS_LABELS, class_problem

PAGE = ROOT / "design/pipelines.md"
START, END = "<!-- classes -->", "<!-- /classes -->"
TRIED = "tried before it is used, and refused with the reason if that fails"


def pipeline_classes() -> Iterator[Any]:
    """Yield the classes of diffusers whose pipelines take a prompt or a class label."""
    for name in sorted(dir(diffusers)):
        if not name.endswith("Pipeline") or name.startswith(("Flax", "Onnx", "Auto", "Diffusion")):
            continue
        try:
            kind: Any = getattr(diffusers, name)
        except (ImportError, RuntimeError):  # it needs a package that is not installed
            continue
        if not issubclass(kind, diffusers.DiffusionPipeline):
            continue
        if {"prompt", CLASS_LABELS} & inspect.signature(kind.__call__).parameters.keys():
            yield kind


def outcome(kind: Any) -> str:
    """Return what happens to a pipeline of a class."""
    if problem := class_problem(kind):
        return f"refused: {problem}"
    name = kind.__name__
    for spec in load_plugins().backbones:
        if name in spec.pipelines:
            return f"family `{spec.family}`"
    return "declared" if facts_of(name) else TRIED


def rows() -> list[str]:
    """Return the lines of the table: one per outcome, with its classes."""
    classes: dict[str, list[str]] = {}
    for kind in pipeline_classes():
        classes.setdefault(outcome(kind), []).append(kind.__name__.removesuffix("Pipeline"))
    head = f"| with diffusers {diffusers.__version__} | classes, without `Pipeline` |"
    body = [f"| {what} | {', '.join(names)} |" for what, names in sorted(classes.items())]
    return [head, "|---|---|", *body]


def main(page: Path = PAGE) -> None:
    """Write the table anew."""
    before, _, rest = page.read_text("utf-8").partition(START)
    lines = "\n".join(["", *rows(), ""])
    page.write_text(f"{before}{START}{lines}{END}{rest.partition(END)[2]}", "utf-8")


if __name__ == "__main__":
    main()
