"""With `--compile`, a run's batches have one shape, so that its network is compiled once."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from helpers.engines import assert_same, outcomes, prepared
from helpers.interrupted import FORKS


def compile_a_run() -> None:
    from torch._dynamo.testing import CompileCounter

    counter, compiled = CompileCounter(), torch.compile
    kept: dict[str, Any] = {}

    def counting(function: Any, **settings: Any) -> Any:
        kept.update(settings)
        return compiled(function, backend=counter, dynamic=settings["dynamic"])

    settings: dict[str, Any] = {"limit": 3, "batch_size": 16}
    with mock.patch.object(torch, "compile", counting):
        found = outcomes(*prepared(compile=True, **settings))
    assert kept == {"dynamic": False, "mode": None}
    assert counter.frame_count == 1
    assert_same(found, outcomes(*prepared(**settings)))


@pytest.mark.long
def test_a_run_compiles_one_graph() -> None:
    """In a process of its own, since torch remembers what other tests made it skip."""
    process = FORKS.Process(target=compile_a_run)
    process.start()
    process.join()
    assert process.exitcode == 0
