"""With `--compile`, a run's batches have one shape, so that its network is compiled once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.engines import assert_same, outcomes, prepared


def test_a_run_compiles_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.testing import CompileCounter

    counter, compiled = CompileCounter(), torch.nn.Module.compile
    kept: dict[str, Any] = {}

    def counting(network: torch.nn.Module, **settings: Any) -> None:
        kept.update(settings)
        compiled(network, backend=counter, dynamic=settings["dynamic"])

    monkeypatch.setattr(torch.nn.Module, "compile", counting)
    torch._dynamo.reset()
    settings: dict[str, Any] = {"limit": 3, "batch_size": 16}
    found = outcomes(*prepared(compile=True, **settings))
    assert kept == {"dynamic": False, "mode": None}
    assert counter.frame_count == 1
    assert_same(found, outcomes(*prepared(**settings)))
