"""Engines made ready to score the shipped digits, and memory that ends where a test wants it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.engine.denoising import DenoisingEngine
from bench.running.prepare import Prepared, prepare
from bench.running.settings import make_config


def prepared(**settings: Any) -> tuple[DenoisingEngine, Prepared, list[Sample]]:
    base = {"dataset": "digits", "strategy": "race", "params": {"draws": 12}, "batch_size": 16}
    run = prepare(make_config({**base, "limit": 6, **settings}))
    engine = run.open_engine()
    assert isinstance(engine, DenoisingEngine) and run.split is not None
    return engine, run, list(run.samples(run.split.sample_ids[: run.config.limit]))


def outcomes(engine: DenoisingEngine, run: Prepared, samples: list[Sample]) -> dict[str, Decided]:
    decided = {d.sample.sample_id: d for d in engine.score(samples, run.strategy)}
    assert len(decided) == len(samples) and all(d.error is None for d in decided.values())
    return decided


def limit_memory(monkeypatch: pytest.MonkeyPatch, engine: DenoisingEngine, cells: int) -> list[int]:
    denoise, sizes = engine.backbone.denoise, []

    def limited(x_t: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x_t))
        if len(x_t) > cells:
            raise torch.OutOfMemoryError("simulated")
        return denoise(x_t, *rest)

    monkeypatch.setattr(engine.backbone, "denoise", limited)
    return sizes
