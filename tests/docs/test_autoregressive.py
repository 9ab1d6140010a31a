"""The PixelCNN of the page about likelihoods is a likelihood, and runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers.command import bench
from helpers.places import ROOT
from PIL import Image

from bench.contracts.specs import BackboneSpec
from bench.discovery.loading import load_plugins
from bench.testing import LikelihoodContract

PAGE = ROOT / "docs" / "items.md"


@pytest.fixture(scope="module", autouse=True)
def module() -> Iterator[ModuleType]:
    text = PAGE.read_text("utf-8").partition("### An autoregressive model")[2]
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    module = ModuleType("bench_pixelcnn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "bench_pixelcnn", module)
        exec(compile(code[1], str(PAGE), "exec"), module.__dict__)
        yield module


class TestPixelCNN(LikelihoodContract):
    texts = tuple(f"a handwritten digit {name}" for name in ("zero", "seven", "three"))

    def make(self) -> Any:
        torch.manual_seed(0)
        return sys.modules["bench_pixelcnn"].PixelCNN(None)


def test_a_pixel_is_predicted_without_itself_and_what_follows(module: ModuleType) -> None:
    torch.manual_seed(0)
    model = module.PixelCNN(None)
    pixels = torch.rand(1, 1, 8, 8, requires_grad=True)
    logits = model.net["last"](model.net["first"](pixels))
    logits[0, :, 4, 3].sum().backward()
    assert pixels.grad is not None
    reached = pixels.grad[0, 0].flatten() != 0
    assert reached[: 4 * 8 + 3].any() and not reached[4 * 8 + 3 :].any()


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = BackboneSpec(
        name="pixelcnn",
        target="bench_pixelcnn:PixelCNN",
        summary="of the page",
        scorer="likelihood",
        draws=1,
        trained_on=None,
    )
    monkeypatch.setitem(load_plugins().backbones._specs, "pixelcnn", spec)
    done = bench("run", "digits", "--backbone", "pixelcnn", "--limit", "6", "--results", tmp_path)
    assert done.code == 0, done.err
    assert Image.open(next(tmp_path.glob("*/examples.png"))).size
