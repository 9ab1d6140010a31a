"""Folding changes no number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import bench as toolkit


def test_folding_changes_no_number(pipelines: dict[str, Path]) -> None:
    """`tiny-digits` has pooled text in its time embedding, `sd15` cross-attention alone."""
    from bench_plugins.backbones.stable_diffusion import Folded, unfold_prompts

    for name in ("tiny-digits", str(pipelines["sd15"])):
        backbone = toolkit.load_backbone(name)
        conditioning = backbone.encode_prompts(["one", "two", "three"])
        x_t, t = torch.randn(6, *backbone.latent_shape), torch.tensor([3, 900] * 3)
        prompt = torch.tensor([2, 0, 1, 1, 0, 2])
        with torch.inference_mode():
            exact = backbone.denoise(x_t, t, conditioning[prompt])
            backbone.fold_prompts(conditioning.flip(0))
            folded = backbone.fold_prompts(conditioning)  # anew, not on top
            assert folded.shape == (3, 1, 1)
            torch.testing.assert_close(backbone.denoise(x_t, t, folded[prompt]), exact)
            # A conditioning is still taken as such, for whoever wants its gradient.
            torch.testing.assert_close(backbone.denoise(x_t, t, conditioning[prompt]), exact)
        assert any(isinstance(m, Folded) for m in backbone.network.modules())
        unfold_prompts(backbone.network)
        assert not any(isinstance(m, Folded) for m in backbone.network.modules())


def test_folding_is_left_alone_where_it_would_take_too_much_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bench_plugins.backbones import stable_diffusion

    monkeypatch.setattr(stable_diffusion, "LIMIT", 1000)
    backbone = toolkit.load_backbone("tiny-digits")
    conditioning = backbone.encode_prompts(["one"])
    assert backbone.fold_prompts(conditioning) is conditioning
