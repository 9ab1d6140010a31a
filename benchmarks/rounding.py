"""The comparison of a precision with float32: its figures, and its false alarms in 200 draws of it.

    python benchmarks/rounding.py --out rounding.json

For each included model, errors of `--images` images, ten prompts and all pairs of neighbouring
draws are computed in float32, bfloat16 and float16, on the CPU. A check is then drawn 200 times:
8 of the images and 8 of the pairs, as the check before a run has them. No draw of it should warn,
because the precisions are sound: `decisions` has how many of all images another prompt is best for.
"""

import argparse
import json
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from bench.engine.denoising import DenoisingEngine
from bench.engine.rounding import MAX_IMAGES, MAX_PROMPTS, PAIRS, Rounding, compare, errors_of
from bench.running.checks import _latents
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare

CHECKS = 200
MODELS = {"tiny-digits": ("digits", 40), "tiny-landuse": ("ucmerced", 40)}


def errors(model: str, dtype: str, images: int, data_dir: str | None) -> np.ndarray:
    """Return the errors, float64 [images, prompts, draws], of a model's own draws."""
    dataset, draws = MODELS[model]
    settings = {"dataset": dataset, "backbone": model, "strategy": "full", "dtype": dtype}
    folder = data_dir if dataset == "ucmerced" else None
    config = make_config(
        {**settings, "params": {"draws": draws}, "data_dir": folder, "limit": images}
    )
    run = prepare(config)
    engine = run.open_engine()
    assert isinstance(engine, DenoisingEngine)
    pairs = list(islice(_latents(run, engine), images))
    names, latents = [name for name, _ in pairs], torch.stack([latent for _, latent in pairs])
    prompts = np.arange(MAX_PROMPTS) * engine.prompts // MAX_PROMPTS
    return errors_of(engine.evaluator, latents, names, prompts, np.arange(draws))


def drawn(rounded: np.ndarray, exact: np.ndarray, rng: np.random.Generator) -> Rounding:
    """Return a check on random images and pairs of draws."""
    images = rng.choice(len(exact), min(MAX_IMAGES, len(exact)), replace=False)
    first = 2 * rng.choice(exact.shape[2] // 2, PAIRS, replace=False)
    draws = np.stack([first, first + 1], axis=1).ravel()
    chosen = np.ix_(images, np.arange(exact.shape[1]), draws)
    return compare(rounded[chosen], exact[chosen])


def main() -> None:
    """Print a row per model and precision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--data-dir", help="a copy of UC Merced")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for model, (_, draws) in MODELS.items():
        exact = errors(model, "float32", options.images, options.data_dir)
        for dtype in ("bfloat16", "float16"):
            rounded = errors(model, dtype, options.images, options.data_dir)
            rng = np.random.default_rng(0)
            checks = [drawn(rounded, exact, rng) for _ in range(CHECKS)]
            best = [table.mean(axis=2).argmin(axis=1) for table in (rounded, exact)]
            rows.append(
                {
                    "model": model,
                    "dtype": dtype,
                    "images": len(exact),
                    "noise": float(np.median([one.noise for one in checks])),
                    "largest noise": max(one.noise for one in checks),
                    "shown below": sum(one.shown(draws) == "shown below it" for one in checks),
                    "alarms": sum(one.problem(dtype, draws) is not None for one in checks),
                    "checks": CHECKS,
                    "decisions": int((best[0] != best[1]).sum()),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
