"""Write what the classes of the included weights answer, beside the folders of the weights.

    python tools/answers.py

With these files the first `bench prompts` and the first plan on a machine import no model. They
hold what a plan of each strategy, on the dataset that the weights were trained for, asks about the
class and the weights. `tests/plugins/backbones/test_shipped_answers.py` compares them with what
the classes answer: run this again when it fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from bench.contracts.specs import BackboneSpec, Spec
from bench.discovery import backbones
from bench.discovery.answers import ANSWERS_SUFFIX
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.inputs.weights import locate
from bench.running.estimate import make_plan
from bench.running.prepare import ask
from bench.running.settings import RunConfig

ALSO = ({"latent": "sample"}, {"guidance": 2.0})


def included() -> list[BackboneSpec]:
    """Return the backbones whose weights are in the package of their class."""
    specs = [spec for spec in load_plugins().backbones if spec.weights]
    packages = {spec.name: spec.target.partition(".")[0] for spec in specs}
    return [spec for spec in specs if str(spec.weights).startswith(f"{packages[spec.name]}:")]


def file_of(spec: BackboneSpec) -> Path:
    """Return the file of a backbone's answers."""
    return Path(locate(str(spec.weights)) + ANSWERS_SUFFIX)


def content_of(spec: BackboneSpec) -> dict[str, Any]:
    """Ask the class what plans and manifests of the backbone need; return the file's content."""
    answers: dict[str, Any] = {}

    def asked(
        spec: Spec, question: str, ask: Callable[[], Any], shipped: Path | None = None
    ) -> Any:
        answer = ask()
        answers[question] = {"answer": answer, "warnings": []}
        return answer

    dataset = str(spec.trained_on).partition("/")[0]
    with TemporaryDirectory() as results, mock.patch.object(backbones, "remember", asked):
        base = RunConfig(dataset=dataset, backbone=spec.name, results=results)
        for strategy in load_plugins().strategies:
            with suppress(UserError):  # such as one that needs a tree of classes
                make_plan(base.model_copy(update={"strategy": strategy.name}))
        for changes in ALSO:
            make_plan(base.model_copy(update=changes))
        question = ask(base)
        parameters = question.backbone_parameters
        backbones.recorded_parameters(spec, question.weights, parameters)
        backbones.encoder_key(spec, question.weights, parameters)
    return {"spec": [spec.name, spec.version], "answers": dict(sorted(answers.items()))}


if __name__ == "__main__":
    for included_spec in included():
        text = json.dumps(content_of(included_spec), indent=1) + "\n"
        file_of(included_spec).write_text(text, "utf-8")
        print(f"{file_of(included_spec)}: {len(text):,} bytes")
