"""What a kind of backbone decides about its runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from helpers.refusals import refused

from bench.contracts.backbone import LINEARISATION_COST
from bench.contracts.specs import Scorer
from bench.running.prepare import KINDS, prepare
from bench.running.question import PreparedRun
from bench.running.settings import make_config


def prepared(**settings: Any) -> PreparedRun:
    config = {"dataset": "digits", "strategy": "full", "params": {"draws": 8}, "limit": 2}
    return prepare(make_config({**config, **settings}))


def with_scorer(run: PreparedRun, scorer: Scorer) -> PreparedRun:
    """Return the run as if its backbone were of another kind."""
    source = run.content.names.source
    spec = replace(source.spec, scorer=scorer, learns=False)
    content = run.content.naming(source=replace(source, spec=spec), kind=KINDS[scorer])
    return replace(run, content=content)


def test_there_is_an_object_for_every_kind() -> None:
    assert set(KINDS) == set(get_args(Scorer))


def test_a_classifier_has_one_draw_and_measures_no_error() -> None:
    run = prepared(backbone="random")
    kind = run.names.kind
    problem = kind.problem(run.content, run.content.columns())
    assert run.names.n_draws == 1 and list(problem.timesteps) == [0]
    assert kind.scoring(run.content).plain() == {}
    assert kind.text_files(run.content) == []


@pytest.mark.long
def test_a_denoiser_s_cells_cost_what_the_settings_ask(pipelines: dict[str, Path]) -> None:
    run = prepared(backbone=str(pipelines["sd15"]))
    kind = run.names.kind

    def cost(run: PreparedRun) -> tuple[float, float, float]:
        problem = kind.problem(run.content, run.content.columns())
        return problem.cell_cost, problem.null_cost, problem.linearisation_cost

    assert cost(run) == (1, 0, LINEARISATION_COST)
    guided = prepared(backbone=str(pipelines["sd15"]), guidance=2.0)
    assert cost(guided)[:2] == (1, 1)
    gradients = {"backbone": str(pipelines["sd15"]), "strategy": "full-linearised"}
    assert cost(prepared(**gradients, guidance=2.0))[2] == cost(prepared(**gradients))[2] + 1
    both = guided.config.model_copy(update={"subtract_null": True})
    assert cost(replace(guided, content=guided.content.naming(config=both)))[1] == 1


def test_levels_of_the_model_give_the_draws_their_rows_and_weights() -> None:
    run = prepared(weighting="exp:-7")
    kind = run.names.kind
    columns = run.content.columns()
    backbone = kind.make(run.content)
    levels: Any = getattr(backbone, "levels")  # noqa: B009  # a checked denoiser of some kind
    problem = kind.problem(run.content, columns, levels)
    assert list(problem.timesteps) == list(run.names.plan.assign_levels(8, len(levels)))
    assert len(set(problem.weights.tolist())) > 1
    assert set(kind.problem(run.content, columns).weights.tolist()) == {1.0}


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
