"""Engines made ready to score the shipped digits, and memory that ends where a test wants it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.engine.denoising import DenoisingEngine
from bench.inputs.data import load_split
from bench.running.assembly import find_weights, make_engine, make_prompts
from bench.running.resolve import Resolved, resolve
from bench.running.settings import make_config


def prepared(**settings: Any) -> tuple[DenoisingEngine, Resolved, list[Sample]]:
    base = {"dataset": "digits", "strategy": "race", "params": {"draws": 12}, "batch_size": 16}
    resolved = resolve(make_config({**base, "limit": 6, **settings}))
    split = load_split(resolved.dataset)
    weights, prompts = find_weights(resolved), make_prompts(resolved, split.classes)
    engine = make_engine(resolved, prompts, weights)
    assert isinstance(engine, DenoisingEngine)
    return engine, resolved, list(split.samples(split.sample_ids[: resolved.config.limit]))


def outcomes(
    engine: DenoisingEngine, resolved: Resolved, samples: list[Sample]
) -> dict[str, Decided]:
    decided = {d.sample.sample_id: d for d in engine.score(samples, resolved.strategy)}
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
