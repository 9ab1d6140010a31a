"""Small pipelines that are run by their own code: contract, levels, declarations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path

import diffusers
import pytest
import torch
from helpers.matrix import matrix
from helpers.released import MAKERS, RELEASED, SIDES, made

from bench.engine.denoiser import CheckedDenoiser
from bench.testing import DenoiserContract
from bench_plugins.backbones import _facts
from bench_plugins.backbones._probing import PROBED_STEPS, check_shift, check_steps
from bench_plugins.backbones.pipeline import PipelineDenoiser

Driven = Callable[[str], PipelineDenoiser]

DECLARED = sorted(path.stem for path in _facts.FACTS_FOLDER.glob("*.toml"))


@pytest.fixture(scope="session")
def driven() -> Driven:
    @cache
    def of(kind: str) -> PipelineDenoiser:
        return PipelineDenoiser(made(kind), resolution=SIDES.get(kind, 16))

    return of


# Of one network each: in frames, packed, and with a template before its prompts.
OFTEN = [kind for kind in RELEASED if kind.startswith(("Wan", "Qwen", "Lumina2"))]


@pytest.mark.parametrize("kind", matrix(RELEASED, OFTEN))
class TestEveryRelease(DenoiserContract):
    texts = ("fir tree", "cat", "dog")

    @pytest.fixture
    def backbone(self, kind: str, driven: Driven) -> CheckedDenoiser:
        return CheckedDenoiser(driven(kind), kind)


# An LCM's steps are not those of a schedule: each goes to the clean sample and back.
@pytest.mark.parametrize("kind", [kind for kind in RELEASED if not kind.startswith("LatentC")])
def test_declared_levels_are_those_of_its_own_steps(kind: str, driven: Driven) -> None:
    backbone = driven(kind)
    schedule = backbone.runner.first_latents(PROBED_STEPS).schedule or {}
    facts = backbone.runner.declared
    if facts and facts.steps:  # its shift depends on their number
        declared = backbone.runner.first_latents(facts.steps).schedule or {}
        schedule = {**schedule, "mu": declared["mu"]}
    check_steps(backbone.pipe.scheduler, backbone.levels, schedule, kind)
    check_shift(backbone.pipe.scheduler, backbone.levels, schedule, kind)


def test_each_declaration_is_of_a_class_and_says_where_diffusers_says_it() -> None:
    """Sources are read again: a version of diffusers that moves them fails here by name."""
    assert set(DECLARED) > set(MAKERS)
    root = Path(inspect.getfile(diffusers)).parent
    for kind in DECLARED:
        if kind in set(MAKERS) - set(RELEASED):  # of a later version
            continue
        facts = _facts.facts_of(kind)
        assert facts is not None and facts.requires and facts.target and facts.text, kind
        assert {"levels", "target", "call", "text", "encoding"} <= facts.source.keys(), kind
        assert f"class {kind}(" in Path(root, facts.source["file"]).read_text(), kind


def test_the_table_on_the_page_has_a_row_for_each_declared_class() -> None:
    page = (Path(__file__).parents[3] / "design/pipelines.md").read_text("utf-8")
    table = page.partition("<!-- pipelines -->")[2].partition("<!-- /pipelines -->")[0]
    named = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert named == DECLARED


def test_the_negative_prompt_is_the_pipeline_s(driven: Driven) -> None:
    """Lumina 2 says its system prompt before a prompt, and not before its negative prompt."""
    backbone = driven("Lumina2Pipeline")
    with torch.no_grad():
        wanted = backbone.pipe.encode_prompt("a cat")[2:]
        null, text = backbone.encode_null(), backbone.encode_prompts([""])
    assert isinstance(null, dict) and isinstance(text, dict)
    torch.testing.assert_close((null["0.0"], null["0.1"]), wanted)
    assert not torch.equal(null["0.1"], text["0.1"])
