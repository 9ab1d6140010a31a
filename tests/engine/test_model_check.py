"""A run warns of a model that does not fit, keeps the warning, and remembers what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command import bench
from helpers.pipelines import altered

from bench.engine import sanity
from bench.engine.denoiser import CheckedDenoiser

ARGUMENTS = ("--limit", 20, "--strategy", "full", "--set", "draws=40", "--results")
FEWER = ("--limit", 10, "--strategy", "full", "--set", "draws=20", "--results")


@pytest.mark.long
def test_the_warning_is_shown_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    folder = altered(tmp_path / "m", "scheduler", {"prediction_type": "sample"})
    command = ("run", "digits", "--backbone", folder, *FEWER, tmp_path / "r")
    first = bench(*command, "--json")
    assert first.code == 0 and "no better than a linear guess" in first.err
    (warning,) = first.json["warnings"]
    run = Path(first.json["results_dir"])
    assert json.loads((run / "manifest.json").read_text())["warnings"] == [warning]
    assert "no better than a linear guess" in " ".join(bench("show", run).out.split())
    assert bench("report", run, "--out", tmp_path / "report.html").code == 0
    assert "no better than a linear guess" in (tmp_path / "report.html").read_text()

    def again(*_: Any) -> None:
        raise AssertionError("it was measured before")

    monkeypatch.setattr(sanity, "check_fit", again)
    assert bench(*command, "--fresh", "--json").json["warnings"] == [warning]


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
