"""The table of pipelines, and what their own code costs beside the network that it calls.

    python benchmarks/pipelines.py [--write design/pipelines.md]
    python benchmarks/pipelines.py --pairs 7 [--side 512] [--batch 4] [--device cuda]

The table is of small pipelines with random weights: the largest deviation of a prediction from
what the pipeline's own sampling gave its scheduler in three steps, relative to the largest number:
alone, and in a batch with another prompt at another level, in float32 and in bfloat16.

With `--pairs`, the engine's evaluations of one batch by Stable Diffusion 1.5's network, as large as
it is and with random weights: the same module called by the pipeline's code and alone, pair by
pair (goal: 0.95 of its speed). Its forward passes are counted, too. On a CPU, 512 pixels and 7
pairs of 4 cells take minutes; `--small` shows that it runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.families import save
from helpers.pipelines import UNETS, save_pipeline
from helpers.released import RELEASED, SIDES, made, sampled

import bench as toolkit
from bench.contracts.levels import Levels
from bench.engine.trees import rows
from bench_plugins.backbones._facts import FACTS_FOLDER, facts_of
from bench_plugins.backbones._weights.components import EMBEDDINGS
from bench_plugins.backbones.pipeline import PipelineDenoiser

PROMPT = "a fir tree (tall)"
START, END = "<!-- pipelines -->", "<!-- /pipelines -->"
FAMILIES = {"sdxl": 16, "sd3": 16, "flux": 16, "pixart": 16, "sigma": 16, "sana": 32, "dit": None}
HEAD = (
    "| class | alone | in a batch, float32 | bfloat16 | in one call | guidance left out by |"
    " diffusers | lines | source |",
    "|---|--:|--:|--:|---|---|---|--:|---|",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", type=Path, help="the page whose table is written anew")
    parser.add_argument("--pairs", type=int, help="compare the speeds, in so many pairs")
    parser.add_argument("--side", type=int, default=512, help="of the images in pixels")
    parser.add_argument("--batch", type=int, default=4, help="cells of a batch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--small", action="store_true", help="a small network")
    chosen = parser.parse_args()
    if chosen.pairs:
        speed(chosen.pairs, chosen.side, chosen.batch, chosen.device, chosen.small)
        return
    lines = "\n".join(["", *HEAD, *table(), ""])
    if chosen.write is None:
        print(lines)
        return
    before, _, rest = chosen.write.read_text("utf-8").partition(START)
    chosen.write.write_text(f"{before}{START}{lines}{END}{rest.partition(END)[2]}", "utf-8")


def table() -> list[str]:
    """Return a row for each class that can be made here."""
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        for kind, side in FAMILIES.items():
            backbones = []
            for dtype in (torch.float32, torch.bfloat16):
                pipe = save(kind, Path(scratch, f"{kind}-{dtype}"))
                for name, part in pipe.components.items():
                    if isinstance(part, torch.nn.Module) and name != "vae":
                        part.to(dtype)
                backbones.append(PipelineDenoiser(pipe, resolution=side))
            lines.append(row_of(*backbones))
    for kind in RELEASED:
        lines.append(
            row_of(
                *(
                    PipelineDenoiser(made(kind, dtype), resolution=SIDES.get(kind, 16))
                    for dtype in (torch.float32, torch.bfloat16)
                )
            )
        )
    return sorted(lines)


def row_of(exact: PipelineDenoiser, half: PipelineDenoiser) -> str:
    """Return the row of one class, of the same pipeline in two precisions."""
    name = type(exact.pipe).__name__
    facts = facts_of(name)
    assert facts is not None, name
    together = "one level" if facts.times == "one" else "all levels"
    if (slots := exact.learned.slots) is not None and not slots.masked:
        varying = [slot for call in slots.slots for slot in call if slot.limit is not None]
        if any(slot.kind == "rows" for slot in varying):
            together += ", one length"
    off = ", ".join(
        f"`{key}={exact.runner.call[key]:g}`"
        for key in ("guidance_scale", "true_cfg_scale")
        if key in exact.runner.call
    )
    lines = len((FACTS_FOLDER / f"{name}.toml").read_text("utf-8").splitlines())
    source = facts.source["file"].rpartition("/")[2]
    alone, mixed = deviations(exact)
    alone_half, mixed_half = deviations(half)
    return (
        f"| `{name}` | {max(alone, alone_half):.0g} | {mixed:.0g} | {mixed_half:.0g} | {together} |"
        f" {off or 'told to the network'} | {facts.requires.partition('>=')[2]} |"
        f" {lines} | `{source}` |"
    )


@torch.inference_mode()
def deviations(backbone: PipelineDenoiser) -> tuple[float, float]:
    """Return the largest relative deviation from its own sampling, alone and in a batch."""
    conditioning = backbone.encode_prompts(
        [PROMPT, "a cat"] if backbone.learned.slots else ["11", "3"]
    )
    alone, mixed = [], []
    for answer, t, sample in sampled(backbone, PROMPT):
        x_t, wanted = (backbone.learned.unpacked(packed) for packed in (sample, answer.float()))
        largest = wanted.abs().max()
        prediction = backbone.denoise(x_t, t, rows(conditioning, slice(0, 1)))
        alone.append(float((prediction.float() - wanted).abs().max() / largest))
        both, times = torch.cat([x_t, x_t.flip(-1)]), torch.cat([t, (t / 2).to(t.dtype)])
        prediction = backbone.denoise(both, times, conditioning)[:1]
        mixed.append(float((prediction.float() - wanted).abs().max() / largest))
    return max(alone), max(mixed)


def speed(pairs: int, side: int, batch: int, device: str, small: bool) -> None:
    """Print the ratio of the speeds of one network, called alone and by the pipeline."""
    if not small:
        UNETS["sd15"] = {
            **UNETS["sd15"],
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "layers_per_block": 2,
            "cross_attention_dim": 48,
            "norm_num_groups": 32,
        }
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        folder = save_pipeline(Path(scratch) / "sd15", "sd15")
        backbone: Any = toolkit.load_backbone(f"{folder}/", device=device, dtype="float32")
        backbone = type(backbone)(
            backbone.weights, device=device, resolution=16 if small else side // 4
        )
        # On a CPU its own time, which other processes change less.
        clock = time.process_time if device == "cpu" else time.perf_counter
        passes = [0]
        backbone.network.register_forward_hook(lambda *a: passes.__setitem__(0, passes[0] + 1))
        x_t = torch.randn(batch, *backbone.latent_shape, device=device)
        t = times(backbone.levels, batch).to(device)
        conditioning = backbone.encode_prompts([PROMPT] * batch)
        texts = conditioning[EMBEDDINGS]
        calls: dict[str, Callable[[], torch.Tensor]] = {
            "alone": lambda: backbone.network(x_t, t, texts, return_dict=False)[0],
            "pipeline": lambda: backbone.denoise(x_t, t, conditioning),
        }
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        counts = dict.fromkeys(seconds, 0)
        for number in range(pairs + 1):  # the first warms up
            for name, call in calls.items():
                passes[0] = 0
                began = clock()
                float(call().float().sum())  # waits for the device
                if number:
                    seconds[name].append(clock() - began)
                    counts[name] += passes[0]
    ratios = [a / b for a, b in zip(seconds["alone"], seconds["pipeline"], strict=True)]
    print(f"passes: alone {counts['alone']}, pipeline {counts['pipeline']}")
    print(f"seconds per batch of {batch}: {median(seconds['alone']):.4g} alone,")
    print(f"{median(seconds['pipeline']):.4g} by the pipeline; its speed: {median(ratios):.3f}")


def times(levels: Levels, count: int) -> torch.Tensor:
    """Return times from the first level to the last."""
    return torch.linspace(0, len(levels) - 1, count).long()


if __name__ == "__main__":
    main()
