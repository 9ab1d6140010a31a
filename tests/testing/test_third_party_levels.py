"""A flow in pixels and a model of class labels, written from the documentation alone."""

import sys
from typing import Any

import pytest
from helpers.places import ROOT

from bench.engine.denoiser import CheckedDenoiser
from bench.testing import DenoiserContract

PACKAGE = ROOT / "tests" / "third_party_levels" / "src"


def made(module: str, name: str) -> Any:
    sys.path.insert(0, str(PACKAGE))
    try:
        imported = __import__(f"bench_levels.{module}", fromlist=[name])
    finally:
        sys.path.remove(str(PACKAGE))
    return getattr(imported, name)(None, device="cpu", dtype="float32")


class TestPixelFlow(DenoiserContract):
    @pytest.fixture
    def backbone(self) -> CheckedDenoiser:
        return CheckedDenoiser(made("flow", "PixelFlow"), "pixel-flow")


class TestLabels(DenoiserContract):
    texts = ("one", "seven", "a drawing of a nine")

    @pytest.fixture
    def backbone(self) -> CheckedDenoiser:
        return CheckedDenoiser(made("labels", "Labels"), "labels")
