"""The answers that come with the included weights are those of their classes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers.places import ROOT

from bench.discovery import backbones
from bench.discovery.answers import read_shipped


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("answers_tool", ROOT / "tools/answers.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _tool()


@pytest.mark.long
@pytest.mark.parametrize("spec", TOOL.included(), ids=lambda spec: spec.name)
def test_they_are_what_the_classes_answer(spec: Any) -> None:
    stored, made = json.loads(TOOL.file_of(spec).read_text()), TOOL.content_of(spec)
    assert stored["spec"] == made["spec"]
    assert stored["answers"].keys() == made["answers"].keys(), "run tools/answers.py"
    for question, entry in stored["answers"].items():
        answer = made["answers"][question]["answer"]
        if question.startswith("level_table"):
            levels = backbones._revived("level_table", entry["answer"])
            answer = backbones._revived("level_table", answer)
            for name, column in levels.columns().items():
                assert column == pytest.approx(answer.columns()[name], rel=1e-6), name
        else:
            # Other versions of the libraries may count a few operations or bytes more.
            answer = pytest.approx(answer, rel=0.05) if isinstance(answer, float | int) else answer
            assert entry == {"answer": answer, "warnings": []}, question


def test_they_are_not_those_of_another_version(tmp_path: Path) -> None:
    spec = TOOL.included()[0]
    file = tmp_path / "x.answers.json"
    file.write_text(json.dumps({"spec": [spec.name, spec.version + 1], "answers": {"q": {}}}))
    assert read_shipped(file, spec) == {} == read_shipped(tmp_path / "missing", spec)
