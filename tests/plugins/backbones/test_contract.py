"""Our own denoisers keep the contract that authors' denoisers keep."""

from __future__ import annotations

from pathlib import Path

import pytest

import bench as toolkit
from bench.engine.denoiser import CheckedDenoiser
from bench.testing import DenoiserContract


class TestTinyDigits(DenoiserContract):
    texts = ("one", "two", "a handwritten digit seven")

    def make(self) -> object:
        return toolkit.load_backbone("tiny-digits", device="cpu")


@pytest.mark.parametrize("kind", ["sd15", "sd21"], scope="class")
class TestStableDiffusion(DenoiserContract):
    @pytest.fixture(scope="class")
    def backbone(self, kind: str, pipelines: dict[str, Path]) -> CheckedDenoiser:
        made = toolkit.load_backbone(str(pipelines[kind]), device="cpu")
        return CheckedDenoiser(made, kind)
