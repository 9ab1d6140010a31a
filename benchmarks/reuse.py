"""The share of an evaluation's operations that could be computed once instead.

    python benchmarks/reuse.py

Counted, not timed, on UNets without memory for their weights (torch's meta device): keys and values
of cross-attention (once a prompt), and all that comes before the first cross-attention (once a
draw of an image, where there is no pooled text in the time embedding).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers import pipelines, published

import bench


def shares(config: dict[str, Any], tokens: int = 77) -> tuple[float, float, float]:
    """Return operations of an evaluation, and the shares of keys and values and of the prefix."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
        side = unet.config.sample_size
        x_t = torch.empty(1, unet.config.in_channels, side, side)
        conditioning = torch.empty(1, tokens, unet.config.cross_attention_dim)
        keys_and_values, prefix = 0.0, 0.0
        with FlopCounterMode(display=False) as counter:
            cross = [m for m in unet.modules() if getattr(m, "is_cross_attention", False)]

            def reached(*_: Any) -> None:
                nonlocal prefix
                prefix = prefix or counter.get_total_flops()

            for module in cross:
                module.register_forward_pre_hook(reached)
            unet(x_t, torch.empty(1), conditioning)
        for module in cross:
            widths = module.to_k.out_features + module.to_v.out_features
            keys_and_values += 2 * tokens * unet.config.cross_attention_dim * widths
    total = counter.get_total_flops()
    return total, keys_and_values / total, prefix / total


def main() -> None:
    tiny = dict(bench.load_backbone("tiny-digits").network.config)
    shapes = {"tiny-digits": (tiny, 32)}
    for kind, name in (("sd15", "sd15"), ("sd21", "sd21-768")):
        shapes[f"small {kind}"] = (pipelines.UNETS[kind], 77)
        shapes[f"{kind}, published shape"] = (published.NETWORKS[name][1], 77)
    for name, (config, tokens) in shapes.items():
        total, keys_and_values, prefix = shares(config, tokens)
        print(
            f"{name:24s} {total / 1e6:12,.1f} MFLOP an evaluation, keys and values"
            f" {100 * keys_and_values:5.2f} %, before the first cross-attention"
            f" {100 * prefix:5.2f} %"
        )


if __name__ == "__main__":
    main()
