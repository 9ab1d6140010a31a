"""What settings stand for lies beside them; they stay as they were read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.refusals import refused

from bench.discovery.loading import load_plugins
from bench.running.parts.names import Names
from bench.running.parts.texts import make_prompts
from bench.running.prepare import check_effect, prepare, resolve
from bench.running.settings import make_config


def resolved(**settings: Any) -> Names:
    return resolve(make_config({"dataset": "digits", **settings}))


def test_settings_stay_as_they_were_read_and_the_manifest_holds_what_they_stand_for() -> None:
    run = resolved()
    assert (run.config.backbone, run.config.dtype, run.config.strategy) == (None, None, None)
    assert (run.backbone.name, run.precision.dtype) == ("tiny-digits", "float32")
    recorded = run.recorded()
    assert (recorded["backbone"], recorded["dtype"]) == ("tiny-digits", "float32")
    assert set(recorded) == set(run.config.model_dump())


def test_a_path_in_place_of_a_name(pipelines: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    run = resolved(dataset=str(tmp_path), backbone=str(pipelines["sd15"]))
    assert (run.config.dataset, run.config.weights) == (str(tmp_path), None)
    assert (run.data.name, run.data.data_dir) == ("folder", str(tmp_path))
    assert run.source.weights == str(pipelines["sd15"]) and run.source.trained_on == "unknown"
    assert run.backbone_name == pipelines["sd15"].name


def test_an_explicit_template_is_no_default_even_if_it_equals_the_backbone_s() -> None:
    """A backbone with a template of its own reads the dataset's labels unless one is given."""
    text, classes = "the number {class}", tuple("0123456789")
    spec = replace(load_plugins().backbones.get("tiny-digits"), template=text, labels="index")
    labels = {"index": tuple(f"n{digit}" for digit in classes)}
    labelled = replace(load_plugins().datasets.get("digits"), labels=labels)
    for given, first in ((None, "n0"), (text, "the number 0")):
        run = resolved(template=given)
        run = replace(run, data=replace(run.data, spec=labelled))
        run = replace(run, source=replace(run.source, spec=spec))
        assert (
            make_prompts(run.config, run.dataset, run.source, run.decider, classes).texts[0]
            == first
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "@aerial"}, "@aerial"),
        ({"template": "a {class}", "prompts": "p.csv"}, "--prompts"),
        ({"labels": "labels.csv"}, "--labels"),
        ({"backbone": "./somewhere", "weights": "else"}, "--weights"),
        ({"backbone": "folder"}, "--weights FOLDER"),
        ({"backbone": "random", "normalize": "half"}, "--normalize"),
        ({"strategy": "race", "hierarchy": "tree.csv"}, "'race'"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], message: str) -> None:
    with refused(message):
        check_effect(resolved(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top": 3}, "--candidates-from"),
        ({"risk_else": "schedule"}, "--risk-else"),
        ({"revision": "v1"}, "--revision v1"),
        ({"revision": "v1", "backbone": "random"}, "--revision v1"),
    ],
)
def test_what_would_change_nothing_is_refused(settings: dict[str, Any], message: str) -> None:
    with refused(message):
        prepare(make_config({"dataset": "digits", "backbone": "tiny-digits", **settings}))
