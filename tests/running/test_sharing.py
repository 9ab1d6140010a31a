"""One backbone is loaded once for all runs that use it in the same way."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from bench.running.lifecycle import Shared
from bench.running.prepare import prepare
from bench.running.question import PreparedRun
from bench.running.settings import RunConfig


def prepared(backbone: str, **settings: object) -> PreparedRun:
    return prepare(RunConfig(dataset="digits", backbone=backbone, limit=3, **settings))  # type: ignore[arg-type]  # pydantic checks them


@pytest.mark.long
def test_runs_share_a_backbone_unless_it_is_loaded_in_another_way() -> None:
    name, shared = "tiny-digits", Shared()
    first = shared.backbone_of(prepared(name).content)
    assert first is shared.backbone_of(
        prepared(name, seed=3, template="{class}", strategy="full").content
    )
    other = shared.backbone_of(prepared(name, dtype="bfloat16").content)
    assert other is not first and other is not None
    learner = prepared("nearest-mean").content
    assert shared.backbone_of(learner) is None  # it learns anew for every run


def test_a_shared_backbone_decides_as_one_of_the_runs_own() -> None:
    shared = Shared()
    settings = {"strategy": "full", "params": {"draws": 2}}
    runs = [prepared("tiny-digits", template=t, **settings) for t in ("{class}", "a {class}")]
    for run in runs:
        ids, others = run.sample_ids, [r.config for r in runs]
        lent = replace(run, lend=partial(shared.backbone_of, others=others))
        engines = (run.open_engine(), lent.open_engine())
        own, its = (
            [d.outcome.scores for d in e.score(run.samples(ids), run.strategy) if d.outcome]
            for e in engines
        )
        assert len(own) == 3 and all((a == b).all() for a, b in zip(own, its, strict=True))
