"""What a kind of backbone decides about its runs, and what they share."""

from dataclasses import replace
from typing import Any, get_args

import pytest
from helpers.refusals import refused

from bench.contracts.specs import Scorer
from bench.running.content import PreparedRun
from bench.running.kinds import KINDS
from bench.running.lifecycle import LoadedResources
from bench.running.parts.settings import RunConfig, make_config
from bench.running.prepare import prepare


def prepared(**settings: Any) -> PreparedRun:
    config = {"dataset": "digits", "strategy": "full", "params": {"draws": 8}, "limit": 2}
    return prepare(make_config({**config, **settings}))


def with_scorer(run: PreparedRun, scorer: Scorer) -> PreparedRun:
    """Return the run as if its backbone were of another kind."""
    source = run.content.names.source
    spec = replace(source.spec, scorer=scorer, learns=False)
    content = run.content.naming(source=replace(source, spec=spec))
    return replace(run, content=replace(content, kind=KINDS[scorer]))


def test_there_is_an_object_for_every_kind() -> None:
    assert set(KINDS) == set(get_args(Scorer))


def test_a_classifier_has_one_draw_and_measures_no_error() -> None:
    run = prepared(backbone="random")
    kind = run.content.kind
    problem = kind.problem(run.content, run.content.columns())
    assert run.names.n_draws == 1 and list(problem.timesteps) == [0]
    assert kind.scoring(run.content).plain() == {}
    assert kind.text_files(run.content) == []


def test_scoring_holds_only_what_differs_from_the_default() -> None:
    plain = prepared().manifest.identity.scoring.plain()
    assert set(plain) == {"loss", "space", "draw_plan", "noise"}
    assert prepared(latent="mean", fit="crop").manifest.identity.scoring.plain() == plain
    assert prepared(fit="squash").manifest.identity.scoring.plain() == {**plain, "fit": "squash"}


@pytest.mark.parametrize("scorer", ["denoiser", "classifier"])
def test_texts_alone_need_a_likelihood(scorer: Scorer) -> None:
    run = with_scorer(prepared(control="text-only"), scorer)
    with refused("--control", "prior()"):
        run.check()


def of_digits(backbone: str, **settings: object) -> PreparedRun:
    return prepare(RunConfig(dataset="digits", backbone=backbone, limit=3, **settings))  # type: ignore[arg-type]  # pydantic checks them


@pytest.mark.long
def test_runs_share_a_backbone_unless_it_is_loaded_in_another_way() -> None:
    name, shared = "tiny-digits", LoadedResources()
    first = shared.backbone_of(of_digits(name).content)
    assert first is shared.backbone_of(
        of_digits(name, seed=3, template="{class}", strategy="full").content
    )
    other = shared.backbone_of(of_digits(name, dtype="bfloat16").content)
    assert other is not first and other is not None
    learner = of_digits("nearest-mean").content
    assert shared.backbone_of(learner) is None  # it learns anew for every run
