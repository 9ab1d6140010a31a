"""Kernels and precisions: what is asked for is what runs, or it is refused."""

from pathlib import Path

import numpy as np
import pytest
from helpers.command import bench
from helpers.engines import prepared

import bench as toolkit
from bench.store.folder import read_records
from bench.store.formats.cells import read_cells


def test_the_attention_kernel_is_pinned() -> None:
    from torch.profiler import profile

    operators = {}
    for kernel in ("math", "flash"):
        engine = prepared(attention=kernel)[0]
        with profile() as profiled:
            engine.rehearse(2)
        operators[kernel] = {e.key for e in profiled.key_averages() if "dot_product" in e.key}
    assert any("math" in name for name in operators["math"])
    assert any("flash" in name for name in operators["flash"])
    assert not any("flash" in name for name in operators["math"])


def test_switches_that_cannot_work_are_refused(tmp_path: Path) -> None:
    for options, hint in (
        (["--attention", "cudnn"], "cannot be used on cpu"),
        (["--tf32", "--device", "cpu"], "NVIDIA"),
        (["--dtype", "tf32", "--device", "cpu"], "NVIDIA"),
        (["--batch-size", "some"], "--batch-size"),
        (["--batch-size", "0"], "--batch-size"),
    ):
        done = bench("run", "digits", *options, "--results", tmp_path)
        assert done.code == 2 and hint in done.err and "Traceback" not in done.err, done.err


@pytest.mark.long
def test_half_precision_keeps_float32_errors(pipelines: dict[str, Path], tmp_path: Path) -> None:
    runs = {}
    for dtype in ("float32", "bfloat16"):
        summary = toolkit.run(
            "digits",
            backbone=str(pipelines["sd15"]),
            strategy="full",
            params={"draws": 3},
            dtype=dtype,
            limit=2,
            batch_size=16,
            save_errors=True,
            results=str(tmp_path),
        )
        runs[dtype] = Path(summary["results_dir"])
    assert runs["float32"] != runs["bfloat16"]  # another dtype is another run
    for sample_id in read_records(runs["float32"]):
        exact, rounded = (read_cells(runs[d] / "errors", sample_id, (10, 3)) for d in runs)
        np.testing.assert_allclose(rounded, exact, rtol=0.05)
        # bfloat16 has 8 bits; errors kept in it would all be multiples of 2^-8 of their size.
        assert len(np.unique(rounded)) > 25


def test_a_model_that_yields_nan_fails_the_sample_not_the_run(
    pipelines: dict[str, Path], tmp_path: Path
) -> None:
    import shutil

    from diffusers import AutoencoderKL

    broken = tmp_path / "broken"
    shutil.copytree(pipelines["sd15"], broken)
    vae = AutoencoderKL.from_pretrained(broken / "vae")
    vae.encoder.conv_in.weight.data[:] = 1e38  # finite, but nothing that it makes is
    vae.save_pretrained(broken / "vae")
    done = bench(
        *("run", "digits", "--backbone", broken, "--strategy", "full", "--set", "draws=2"),
        *("--limit", 2, "--batch-size", 16, "--results", tmp_path / "results", "--json"),
    )
    assert done.code == 3, done.err
    assert "nan" in done.err and "Traceback" not in done.err
    assert done.json["failed_samples"] == 2 and done.json["metrics"]["accuracy"] == 0
