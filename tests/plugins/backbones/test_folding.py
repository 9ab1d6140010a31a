"""Folding changes no number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import bench as toolkit
from bench.engine.trees import rows


def test_folding_changes_no_number(pipelines: dict[str, Path]) -> None:
    """`tiny-digits` has pooled text in its time embedding, `sd15` cross-attention alone."""
    from bench_plugins.backbones._folding import Folded, unfold_prompts

    for name in ("tiny-digits", str(pipelines["sd15"])):
        backbone = toolkit.load_backbone(name)
        conditioning: Any = backbone.encode_prompts(["one", "two", "three"])
        x_t, t = torch.randn(6, *backbone.latent_shape), torch.tensor([3, 900] * 3)
        prompt = torch.tensor([2, 0, 1, 1, 0, 2])
        with torch.inference_mode():
            exact = backbone.denoise(x_t, t, rows(conditioning, prompt))
            backbone.fold_prompts({"0.0": conditioning["0.0"].flip(0)})
            folded = backbone.fold_prompts(conditioning)  # anew, not on top
            assert folded["0.0"].shape == (3, 1, 1)
            torch.testing.assert_close(backbone.denoise(x_t, t, rows(folded, prompt)), exact)
            # A conditioning is still taken as such, for whoever wants its gradient.
            torch.testing.assert_close(backbone.denoise(x_t, t, rows(conditioning, prompt)), exact)
        assert any(isinstance(m, Folded) for m in backbone.network.modules())
        unfold_prompts(backbone.network)
        assert not any(isinstance(m, Folded) for m in backbone.network.modules())


def test_folding_is_left_alone_where_it_would_take_too_much_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bench_plugins.backbones import _folding

    monkeypatch.setattr(_folding, "LIMIT", 1000)
    backbone = toolkit.load_backbone("tiny-digits")
    conditioning = backbone.encode_prompts(["one"])
    assert backbone.fold_prompts(conditioning)["0.0"] is conditioning["0.0"]


@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 256), ("float16", 2048)])
def test_prompts_are_folded_up_to_the_largest_number_that_a_precision_holds(
    dtype: str, most: int
) -> None:
    from diffusers import UNet2DConditionModel

    from bench_plugins.backbones._folding import fold_prompts

    unet = UNet2DConditionModel(
        block_out_channels=(4,),
        norm_num_groups=2,
        cross_attention_dim=4,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        layers_per_block=1,
    ).to(getattr(torch, dtype))
    conditioning = torch.zeros(most + 1, 2, 4, dtype=getattr(torch, dtype))
    assert fold_prompts(unet, conditioning) is conditioning
    numbers = fold_prompts(unet, conditioning[:most])
    assert numbers.dtype == conditioning.dtype
    assert numbers.flatten().long().tolist() == list(range(most))
