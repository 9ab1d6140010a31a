"""Kernels and switches: what is asked for is what runs, or it is refused."""

from __future__ import annotations

from pathlib import Path

from helpers.command import bench
from helpers.engines import prepared


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
