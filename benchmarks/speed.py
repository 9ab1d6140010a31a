"""What the engine makes of the hardware, on `tiny-digits` and on a small UNet with random weights.

    python benchmarks/speed.py [--rounds 9] [--cells 1280] [--cpu-time] [--compile] [--out F]
    python benchmarks/speed.py --pairs 15 [--evaluations 18000]    # short runs, and nothing else

* full, adaptive and race against the bare network at its best batch size, in its dtype (goal: full
  1.0, never under 0.97; adaptive and race 0.95 of full), and one image at a time beside them;
* the same cells by the best exact settings and by the plain loop (goal: 1.3 times);
* with `--pairs`, a full sweep of so many evaluations from its first image to its last decision,
  against the bare network on as many cells at the same batch size, pair by pair (goal: 1.0);
* memory and time from 100 to 10,000 images, and the seconds to the first image that is decided.

Medians of rounds in turns (ABCABC…). `--cpu-time` counts the process's CPU time instead of the
clock's, for a machine that is not quiet; give it one thread then (OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from bench.contracts.dataset import Sample
from bench.engine.asking import Engine
from bench.engine.batching import smallest_of_the_best
from bench.engine.denoiser import CheckedDenoiser, compile_network
from bench.engine.denoising import DenoisingEngine
from bench.engine.scoring import cell_errors, mixed
from bench.engine.trees import Tree, count
from bench.inputs.pixels import decode
from bench.running.content import PreparedRun
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from benchmarks.timing import Work, bare, in_turns, ratio, scoring

# Draws such that a turn sees many images; schedules scaled from the published 50 of 500.
STRATEGIES: dict[str, dict[str, Any]] = {
    "full": {"draws": 25},
    "adaptive": {"samples": "5,50", "keep": "5,1"},
    "race": {"draws": 250, "order": "570-614"},
}


def on_digits(backbone: str, strategy: str, params: dict[str, Any] | None = None) -> PreparedRun:
    """Return a prepared run of digits under a strategy."""
    settings = {"dataset": "digits", "backbone": backbone, "batch_size": 64}
    params = params or STRATEGIES[strategy]
    return prepare(make_config({**settings, "strategy": strategy, "params": params}))


def denoising(engine: Engine) -> DenoisingEngine:
    """Return the engine, which is a denoiser's here."""
    assert isinstance(engine, DenoisingEngine)
    return engine


def one_at_a_time(
    engine: DenoisingEngine, conditioning: Tree, samples: list[Sample], cells: int
) -> Work:
    """Return work that scores as one would first write it: image by image, draw by draw.

    All prompts of one draw are a batch, and its errors are read before the next one begins. The
    cells and their errors are those of the engine's full sweep.

    Args:
        engine: gives backbone, draws and noise, which its images share.
        conditioning: as `encode_prompts` gives it.
        samples: the images, over and over.
        cells: work ends with the draw in which so many are reached.
    """
    backbone, scoring = engine.backbone, engine.evaluator.scoring
    draws, prompts = scoring.draws, count(conditioning)

    @torch.inference_mode()
    def work() -> int:
        done = position = 0
        while done < cells:
            image = decode(samples[position % len(samples)].image)
            latent = backbone.encode_images([image]).float()
            latents = latent.expand(prompts, *latent.shape[1:])
            for k in range(len(draws.alpha)):
                draw = torch.full((prompts,), k, device=backbone.device)
                eps = scoring.noise.of([], np.empty((2, 0), np.int64), draw)
                x_t = mixed(latents, eps, draws.alpha[draw], draws.sigma[draw])
                answer = backbone.denoise(x_t, draws.time[draw], conditioning)
                wanted = mixed(latents, eps, draws.p[draw], draws.q[draw])
                cell_errors(answer, wanted, draws.factor[draw], scoring.loss).tolist()
                done += prompts
                if done >= cells:
                    break
            position += 1
        return done

    return work


def engine_against_bare(
    backbone: str, rounds: int, cells: int, compiled: bool, clock: Callable[[], float]
) -> dict[str, Any]:
    """Time all of it in turns and return rates and ratios."""
    run = on_digits(backbone, "full")
    samples = list(run.samples(run.sample_ids))
    network = run.content.kind.load(run.content)  # not compiled: the bare one
    assert isinstance(network, CheckedDenoiser)
    conditioning = network.encode_prompts(run.content.prompts.texts)
    sizes = {str(s): bare(network, conditioning, s, 256) for s in (16, 32, 64, 128)}
    table = {int(s): median(r) for s, r in in_turns(sizes, max(3, rounds // 2), clock).items()}
    best = smallest_of_the_best(table)
    works = {"bare": bare(network, conditioning, best, cells)}
    shared = run.content.kind.load(run.content)
    for name in STRATEGIES:
        one = on_digits(backbone, name)
        engine = denoising(one.content.kind.open_engine(one.content, shared))
        engine.batch_size = best
        works[name] = scoring(engine, one.strategy, samples, cells)
        if name == "full":
            plain = denoising(run.content.kind.open_engine(run.content, network))
            works["one image at a time"] = one_at_a_time(plain, conditioning, samples, cells)
    if compiled:
        fast = denoising(run.open_engine())
        compile_network(fast.backbone, conditioning)
        fast.batch_size, fast.one_shape = best, True
        works["full, compiled"] = scoring(fast, run.strategy, samples, cells)
    rates = in_turns(works, rounds, clock)
    exact = [n for n in ("full", "full, compiled") if n in rates]
    return {
        "bare_by_batch_size": table,
        "batch_size": best,
        "evaluations_per_second": {name: median(r) for name, r in rates.items()},
        "full_over_bare": ratio(rates, "full", "bare"),
        "adaptive_over_full": ratio(rates, "adaptive", "full"),
        "race_over_full": ratio(rates, "race", "full"),
        "exact_over_plain_loop": {n: ratio(rates, n, "one image at a time") for n in exact},
    }


def short_runs(pairs: int, evaluations: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Time whole runs of digits against the bare network, in turns, and return all ratios.

    Unlike `engine_against_bare`, a run ends: its last batches are not full.
    """
    run = on_digits("tiny-digits", "full")
    network, shared = run.content.kind.load(run.content), run.content.kind.load(run.content)
    assert isinstance(network, CheckedDenoiser)
    engine = denoising(run.content.kind.open_engine(run.content, shared))
    engine.batch_size = 64
    each = len(run.content.prompts.texts) * STRATEGIES["full"]["draws"]
    images = list(run.samples(run.sample_ids))[: max(1, round(evaluations / each))]

    def whole() -> float:
        before = engine.evaluated
        for _ in engine.score(images, run.strategy):
            pass
        return engine.evaluated - before

    cells = len(images) * each
    conditioning = network.encode_prompts(run.content.prompts.texts)
    works = {"bare": bare(network, conditioning, 64, cells), "full": whole}
    rates = in_turns(works, pairs, clock)
    ratios = [a / b for a, b in zip(rates["full"], rates["bare"], strict=True)]
    return {
        "evaluations": cells,
        "evaluations_per_second": {name: median(r) for name, r in rates.items()},
        "full_over_bare": median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "pairs": ratios,
    }


GROWTH = """
import json, sys, time
from pathlib import Path
started = time.perf_counter()
sys.path.insert(0, sys.argv[1])
from speed import many_images
images, seconds, first, cpu = many_images(int(sys.argv[2]), started)
# Not getrusage: a child's peak begins with its parent's there.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
peak = int(status["VmHWM"].split()[0]) / 1024
found = {"images": images, "seconds": seconds, "first_image_after": first, "peak_mib": peak}
found["cpu_seconds_to_first_image"] = cpu
print(json.dumps(found))
"""


def many_images(images: int, started: float) -> tuple[int, float, float, float]:
    """Score so many images, digits over and over, on one draw."""
    run = on_digits("tiny-digits", "full", {"draws": 1})
    samples = list(run.samples(run.sample_ids))
    engine = run.open_engine()
    first, cpu, begun = 0.0, 0.0, time.perf_counter()

    def many() -> Iterator[Sample]:
        for position in range(images):
            yield samples[position % len(samples)]

    done = 0
    for _ in engine.score(many(), run.strategy):
        done += 1
        first = first or time.perf_counter() - started
        cpu = cpu or time.process_time()
    return done, time.perf_counter() - begun, first, cpu


def growth(counts: list[int]) -> list[dict[str, Any]]:
    """Score each number of images in a process of its own."""
    here = str(Path(__file__).parent)
    found = []
    for images in counts:
        done = subprocess.run(
            [sys.executable, "-c", GROWTH, here, str(images)],
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cells", type=int, default=1280, help="evaluations a turn")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--compile", action="store_true", dest="compiled")
    parser.add_argument(
        "--images", default="100,1000,10000", help="for memory and time; '' for none"
    )
    parser.add_argument("--skip", default="", help="'engine' leaves only memory and time")
    parser.add_argument("--pairs", type=int, help="of short runs; nothing else is measured")
    parser.add_argument("--evaluations", type=int, default=18_000, help="of a short run")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    report: dict[str, Any] = {"cpu_time": arguments.cpu_time, "threads": os.cpu_count()}
    if arguments.pairs:
        report["short_runs"] = short_runs(arguments.pairs, arguments.evaluations, clock)
        print(json.dumps(report["short_runs"], indent=1))
        if arguments.out:
            arguments.out.write_text(json.dumps(report, indent=1))
        return
    with tempfile.TemporaryDirectory() as folder:
        from helpers.pipelines import save_pipeline

        small = save_pipeline(Path(folder) / "small-unet", "sd15")
        for backbone in () if arguments.skip else ("tiny-digits", str(small)):
            report[Path(backbone).name] = engine_against_bare(
                backbone, arguments.rounds, arguments.cells, arguments.compiled, clock
            )
            print(
                json.dumps({Path(backbone).name: report[Path(backbone).name]}, indent=1), flush=True
            )
    if arguments.images:
        report["growth"] = growth([int(n) for n in arguments.images.split(",")])
        print(json.dumps(report["growth"], indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
