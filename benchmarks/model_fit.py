"""Does the check of a model against its images stay silent where a model is right?

    python benchmarks/model_fit.py [--data ../shared/data] [--write design/pipelines.md] [--quick]

For both included models: as published, with other images, templates and guidance, in half
precision, on images with each corruption of ImageNet-C at severities 1 to 3, with random LoRAs of
their attention, with noise in the weights, and with the settings of every published run of a
denoiser; with `--quick` of three corruptions and three LoRAs, and without the last two. Each is
judged as a run does it (`bench.engine.sanity`), by the first eight images of the run and five of
its prompts, with W, S and D, and again by the first four. Printed are how many were tried and
warned of, the highest W, the lowest S that two neighbouring levels both have, and the lowest D of
the level with the largest; a warning is W >= 1, that S < 0.9, or that D < 10 at every level.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain, groupby, product
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.loras import save_lora

from bench.engine.sanity import COMPARED_PROMPTS, MAX_IMAGES, MIN_SCALED, ModelFit, check_fit
from bench.engine.trees import rows
from bench.inputs.corruptions import CORRUPTIONS
from bench.inputs.pixels import decode
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench.store.folder import read_manifest
from bench_plugins import backbones

ROOT = Path(__file__).parents[1]
WEIGHTS = Path(backbones.__file__).parent / "weights"
MODELS = {"tiny-digits": "digits", "tiny-landuse": "ucmerced"}
SEVERITIES, HALVES, LORAS = (1, 2, 3), ("bfloat16", "float16"), 12
LORA_SCALES = (0.25, 0.5, 1.0)  # repeated over the LoRAs
COPIES, LEAST_NOISE, MOST_NOISE = 20, 0.02, 0.2  # of a tensor's standard deviation
QUESTION = ("split", "template", "prompts", "limit", "seed")  # settings of what is asked
START, END = "<!-- silence -->", "<!-- /silence -->"
HEAD = (
    "| model | tried | fits | warnings | highest W | lowest S | lowest D |",
    "|---|---|--:|--:|--:|--:|--:|",
)
SEEDS, TEMPLATES = range(5), (None, "{class}")  # of other images, and of prompts
QUICK = ("gaussian-noise", "motion-blur", "contrast")  # corruptions


class Case(NamedTuple):
    """What was tried, and what was measured."""

    model: str
    what: str
    fit: ModelFit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="the folder that has `ucmerced`")
    parser.add_argument("--quick", action="store_true", help="fewer cases: minutes")
    parser.add_argument("--write", type=Path, help="the page whose table is written anew")
    chosen = parser.parse_args()
    os.environ["BENCH_LOAD_PLUGINS"] = ""
    lines: list[str] = []
    for line in chain(HEAD, table(cases(chosen.data, chosen.quick))):
        print(line, flush=True)
        lines.append(f"{line}\n")
    if chosen.write is not None:
        before, _, rest = chosen.write.read_text("utf-8").partition(START)
        page = f"{before}{START}\n{''.join(lines)}{END}{rest.partition(END)[2]}"
        chosen.write.write_text(page, "utf-8")


def table(measured: Iterator[Case]) -> Iterator[str]:
    """Yield a row for each model and kind of case, which are in order."""
    for (model, what), group in groupby(measured, key=itemgetter(0, 1)):
        fits = [case.fit for case in group]
        guess = max(fit.guess for fit in fits)
        elsewhere = min(neighbours(fit) for fit in fits)
        warned = sum(fit.problem is not None for fit in fits)
        effect = min(max(fit.effect) for fit in fits)
        figures = f"{guess:.2f} | {elsewhere:.2f} | {effect:.1e}"
        yield f"| {model} | {what} | {len(fits)} | {warned} | {figures} |"


def neighbours(fit: ModelFit) -> float:
    """Return the lowest S that two neighbouring levels both have."""
    ratios = np.asarray(fit.elsewhere)
    return float(np.maximum(ratios[:-1], ratios[1:]).min())


def cases(data: Path | None, quick: bool) -> Iterator[Case]:
    """Yield every case of both models."""
    for model, dataset in MODELS.items():
        settings = {"dataset": dataset, "backbone": model, "device": "cpu"}
        if (folder := data and data / dataset) and folder.is_dir():
            settings["data_dir"] = str(folder)
        own = loaded(settings)
        yield from judged(model, "as published", settings, own)
        for seed, template in product(SEEDS, TEMPLATES):
            asked = {**settings, "template": template} if template else settings
            yield from judged(model, "other images and templates", asked, own, seed)
        yield from judged(model, "guidance", {**settings, "guidance": 3.0}, own)
        for severity in SEVERITIES:
            for name in QUICK if quick else CORRUPTIONS:
                corrupted = {**settings, "corrupt": f"{name}:{severity}"}
                yield from judged(model, f"corrupted, severity {severity}", corrupted, own)
        for dtype in HALVES:
            yield from judged(model, dtype, {**settings, "dtype": dtype})
        yield from with_loras(model, settings, LORAS // 4 if quick else LORAS)
        if not quick:
            yield from perturbed(model, settings)
            yield from published(model, settings, own)


def loaded(settings: dict[str, Any]) -> Any:
    """Return the backbone of a run."""
    run = prepare(make_config(settings))
    return run.content.kind.load(run.content)


@torch.inference_mode()
def judged(
    model: str,
    what: str,
    settings: dict[str, Any],
    backbone: Any = None,
    seed: int | None = None,
) -> Iterator[Case]:
    """Yield what a run's first images and prompts say of a backbone, by default its own.

    A `seed` chooses other images.
    """
    run = prepare(make_config(settings))
    backbone = backbone or run.content.kind.load(run.content)
    count = len(run.content.prompts.texts)
    chosen = slice(0, count, -(-count // min(count, COMPARED_PROMPTS)))
    prompts = rows(run.content.encode_texts(backbone), chosen)
    ids = list(run.sample_ids)
    if seed is not None:
        np.random.default_rng(seed).shuffle(ids)
    samples = run.samples(ids[:MAX_IMAGES])
    latents = backbone.encode_images([decode(sample.image) for sample in samples]).float()
    for count in (MAX_IMAGES, MIN_SCALED):
        fit = check_fit(backbone, latents[:count], prompts, 64, True)
        assert fit is not None
        if fit.problem is not None:
            print(f"{model} {what} {settings}: {fit}", file=sys.stderr)
        yield Case(model, what, fit)


def with_loras(model: str, settings: dict[str, Any], count: int) -> Iterator[Case]:
    """Yield the cases of random LoRAs."""
    folder = WEIGHTS / model.replace("-", "_")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, requires_safety_checker=False, torch_dtype=torch.float32
    )
    for seed in range(count):
        with tempfile.TemporaryDirectory() as scratch:
            file = save_lora(pipe, Path(scratch), seed)
            scale = LORA_SCALES[seed % len(LORA_SCALES)]
            yield from judged(model, "random LoRAs", {**settings, "lora": f"{file}:{scale}"})


def perturbed(model: str, settings: dict[str, Any]) -> Iterator[Case]:
    """Yield the cases of copies with noise in the weights."""
    for copy, noise in enumerate(np.linspace(LEAST_NOISE, MOST_NOISE, COPIES)):
        backbone = loaded(settings)
        generator = torch.Generator().manual_seed(copy)
        with torch.no_grad():
            for weights in backbone.network.parameters():
                scale = float(noise) * weights.std().nan_to_num()
                weights.add_(scale * torch.randn(weights.shape, generator=generator))
        yield from judged(model, "noise of 2 to 20 % in the weights", settings, backbone)


def published(model: str, settings: dict[str, Any], backbone: Any) -> Iterator[Case]:
    """Yield the cases of the published runs of a model."""
    for file in sorted((ROOT / "results" / "published").glob("*/manifest.json")):
        manifest = read_manifest(file.parent)
        if manifest.backbone.name == model:
            stored = manifest.config.plain()
            own = {name: stored[name] for name in QUESTION if stored.get(name) is not None}
            yield from judged(model, "published runs", {**own, **settings}, backbone)


if __name__ == "__main__":
    main()
