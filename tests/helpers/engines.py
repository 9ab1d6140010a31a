"""Engines made ready to score the shipped digits, and networks that are watched or run short."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tables import concluded

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.strategy import Ints
from bench.engine.batching import Batch
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.denoising import DenoisingEngine
from bench.engine.trees import Tree
from bench.running.content import PreparedRun
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench_plugins.backbones.families import StableDiffusion


def prepared(**settings: Any) -> tuple[DenoisingEngine, PreparedRun, list[Sample]]:
    """Return an engine, its prepared run, and the images, four by default."""
    base = {"dataset": "digits", "strategy": "race", "params": {"draws": 12}, "batch_size": 16}
    run = prepare(make_config({**base, "limit": 4, **settings}))
    engine = run.open_engine()
    assert isinstance(engine, DenoisingEngine)
    return engine, run, list(run.samples(run.split.sample_ids[: run.config.limit]))


def outcomes(
    engine: DenoisingEngine, run: PreparedRun, samples: list[Sample]
) -> dict[str, Decided]:
    """Return what becomes of each image; none fails."""
    decided = {d.sample.sample_id: d for d in engine.score(samples, run.strategy)}
    assert len(decided) == len(samples) and all(d.error is None for d in decided.values())
    return decided


def assert_same(found: dict[str, Decided], wanted: dict[str, Decided]) -> None:
    """The same cells were asked for and the same classes won; errors agree to float32's digits."""
    assert found.keys() == wanted.keys()
    for sample_id, decided in wanted.items():
        other = found[sample_id]
        assert other.evaluations == decided.evaluations
        assert list(concluded(other).ranking) == list(concluded(decided).ranking)
        for (asked, errors), (asked_too, errors_too) in zip(
            decided.cells, other.cells, strict=True
        ):
            assert list(asked.draws) == list(asked_too.draws)
            np.testing.assert_allclose(errors_too, errors, rtol=2e-5)


def network_of(checked: CheckedDenoiser) -> StableDiffusion:
    """Return the backbone itself, with all that a Stable Diffusion can beside denoising."""
    assert isinstance(checked.backbone, StableDiffusion)
    return checked.backbone


def before_passes(
    monkeypatch: pytest.MonkeyPatch,
    backbone: CheckedDenoiser | StableDiffusion,
    check: Callable[[torch.Tensor, Tree], None],
) -> None:
    """Call `check(x_t, conditioning)` before every pass through the network."""
    denoise = backbone.denoise

    def checked(x_t: torch.Tensor, t: torch.Tensor, conditioning: Tree) -> torch.Tensor:
        check(x_t, conditioning)
        return denoise(x_t, t, conditioning)

    monkeypatch.setattr(backbone, "denoise", checked)


def limit_memory(monkeypatch: pytest.MonkeyPatch, engine: DenoisingEngine, cells: int) -> list[int]:
    """Let memory end beyond so many cells per batch; returns the sizes that were tried."""
    sizes: list[int] = []

    def limited(x_t: torch.Tensor, _: Tree) -> None:
        sizes.append(len(x_t))
        if len(x_t) > cells:
            raise torch.OutOfMemoryError("simulated")

    before_passes(monkeypatch, engine.backbone, limited)
    return sizes


def errors_at(
    engine: DenoisingEngine, draws: Ints, latents: torch.Tensor, conditioning: Tree
) -> torch.Tensor:
    """The errors of cells whose conditioning is given, float32 [B]; images share their noise."""
    image = np.arange(len(draws))
    batch = Batch(np.stack([np.zeros_like(draws), draws, image]), latents, [""] * len(draws))
    return engine.evaluator.errors_at(engine.evaluator.cells(batch), conditioning)
