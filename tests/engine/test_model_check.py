"""A run warns of a model that does not fit, keeps the warning, and remembers what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command import bench

from bench.engine import sanity
from bench.engine.denoiser import CheckedDenoiser

ARGUMENTS = ("--limit", 20, "--strategy", "full", "--set", "draws=40", "--results")


@pytest.mark.long
def test_a_model_that_fits_gives_no_warning_and_the_check_takes_two_per_cent_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    denoise, check_fit, rows = CheckedDenoiser.denoise, sanity.check_fit, [0]

    def counted(*given: Any) -> Any:
        before = rows[0]
        with pytest.MonkeyPatch.context() as within:
            within.setattr(CheckedDenoiser, "denoise", counting)
            fit = check_fit(*given)
        assert rows[0] > before
        return fit

    def counting(self: CheckedDenoiser, x_t: torch.Tensor, *more: Any) -> torch.Tensor:
        rows[0] += len(x_t)
        return denoise(self, x_t, *more)

    monkeypatch.setattr("bench.running.kinds.checks.check_fit", counted)
    done = bench("run", "digits", *ARGUMENTS, tmp_path / "r", "--json")
    assert 0 < rows[0] <= 0.02 * done.json["cost"]["evaluations"]
    assert done.code == 0 and "warnings" not in done.json
    assert "linear guess" not in done.err and "noise schedule" not in done.err
    measured = rows[0]
    assert bench("run", "digits", *ARGUMENTS, tmp_path / "r", "--fresh").code == 0
    assert rows[0] == measured, "what was measured is remembered"
