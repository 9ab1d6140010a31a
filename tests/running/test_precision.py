"""`--dtype auto`: chosen before anything is loaded, and compared with float32."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.command import bench

from bench.contracts.specs import BackboneSpec
from bench.engine.denoising import DenoisingEngine
from bench.errors import BenchWarning
from bench.running import finders
from bench.running.kinds import denoiser
from bench.running.kinds.denoiser import DenoiserKind
from bench.running.prepare import prepare
from bench.running.question import PreparedRun, RunQuestion
from bench.running.settings import make_config

DIGITS = {"dataset": "digits", "strategy": "full", "params": {"draws": 8}, "batch_size": 8}


@pytest.mark.parametrize(
    ("asked", "trained_in", "has", "wanted"),
    [
        (None, "float32", True, "float32"),
        (None, "bfloat16", False, "bfloat16"),
        ("float16", "bfloat16", True, "float16"),
        ("auto", "bfloat16", True, "bfloat16"),
        ("auto", "bfloat16", False, "float32"),
        ("auto", "float16", True, "float32"),
        ("auto", "float32", True, "float32"),
    ],
)
def test_auto_is_bfloat16_where_spec_and_device_allow_it(
    asked: str | None, trained_in: str, has: bool, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = BackboneSpec(name="mine", target="a:B", dtype=trained_in)  # type: ignore[arg-type]
    monkeypatch.setattr(finders, "has_bfloat16", lambda device: has)
    assert finders.resolve_dtype(asked, spec, "cpu") == wanted


def test_the_command_takes_auto() -> None:
    done = bench("run", "digits", "--dtype", "auto", "--dry-run", "--json")
    assert done.code == 0 and done.json["dtype"] == "float32"


def test_a_run_is_known_by_the_dtype_that_auto_resolves_to() -> None:
    found = [prepare(make_config({**DIGITS, "dtype": dtype})) for dtype in ("auto", None)]
    assert found[0].manifest.run_id == found[1].manifest.run_id
    assert found[0].dtype == "float32" and not found[0].checks_dtype


@pytest.fixture
def in_half() -> PreparedRun:
    """A run for which `auto` chose bfloat16."""
    run = prepare(make_config({**DIGITS, "dtype": "bfloat16"}))
    return replace(run, checks_dtype=True)


def test_sixty_four_cells_are_compared_with_float32(
    in_half: PreparedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", BenchWarning)
        warnings.filterwarnings(
            "ignore", "The model predicts these images"
        )  # its weights are random
        engine = in_half.open_engine()
    assert isinstance(engine, DenoisingEngine)
    monkeypatch.setattr(denoiser, "MAX_RELATIVE_ERROR", 1e-5)  # bfloat16 cannot be as good as that
    warning = denoiser.check_precision(in_half, engine) or ""
    assert "chose bfloat16" in warning and "(56 differences" in warning  # 8 prompts on 8 draws
    whole = replace(in_half, prompts=replace(in_half.prompts, texts=in_half.prompts.texts[:1]))
    assert denoiser.check_precision(whole, engine) is None  # nothing to confuse


def test_a_check_without_memory_is_said(
    in_half: PreparedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens = DenoiserKind.open_engine

    def first_only(self: DenoiserKind, run: RunQuestion, *rest: Any) -> Any:
        if run.dtype == "float32":
            raise torch.OutOfMemoryError("simulated")
        return opens(self, run, *rest)

    monkeypatch.setattr(DenoiserKind, "open_engine", first_only)
    with pytest.warns(BenchWarning, match="was not checked"):
        in_half.open_engine()
