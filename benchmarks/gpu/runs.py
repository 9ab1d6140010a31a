"""Parts that score with the toolkit as a user runs it: how fast is it?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from helpers.places import ROOT, UCMERCED

import bench
from bench.cli.doctor import matmul_peak
from bench.engine.batching import rates_by_size, smallest_of_the_best
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.denoising import DenoisingEngine
from bench.inputs.pixels import decode
from bench.running.manifest import evaluation_flops
from benchmarks.gpu.machine import Machine
from benchmarks.gpu.report import Row
from benchmarks.gpu.sweeps import DRAWS, engine_of, full_sweep, pipeline
from benchmarks.timing import bare, in_turns, pictures, ratio, scoring


def engine_over_bare(machine: Machine) -> Iterator[Row]:
    """Measure strategies in the engine against the bare network, on Stable Diffusion 2.1-base."""
    place, device = pipeline(machine), str(machine.device)
    params: dict[str, Any] = {"draws": DRAWS} if machine.small else {}
    names = ("full", "race") if machine.small else ("full", "adaptive", "race")
    for compiled in (False,) if machine.small else (False, True):
        more = {"compile": compiled, "params": params}
        runs = {
            name: full_sweep(place, device, "bfloat16", strategy=name, **more) for name in names
        }
        network = runs["full"].kind.load(runs["full"])
        assert isinstance(network, CheckedDenoiser)
        engines = {name: engine_of(run, network) for name, run in runs.items()}
        size = 8 if machine.small else 32
        if not machine.small and not compiled:
            size = smallest_of_the_best(rates_by_size(engines["full"], 15.0))
        cells = size * (2 if machine.small else 32)
        conditioning = network.encode_prompts(runs["full"].prompts.texts)
        works = {"bare": bare(network, conditioning, size, cells)}
        samples = pictures(16 if machine.small else 512)
        for name, engine in engines.items():
            engine.batch_size = size
            works[name] = scoring(engine, runs[name].names.strategy, samples, cells)
        rates = in_turns(works, 1 if machine.small else 3)
        flops = evaluation_flops(runs["full"]) or 0.0
        peak = matmul_peak(machine.device, torch.bfloat16, 0.002 if machine.small else 0.1)
        for name in engines:
            speed = median(rates[name])
            yield {
                "strategy": name,
                "dtype": "bfloat16",
                "compile": compiled,
                "batch": size,
                "evaluations_per_second": speed,
                "engine_over_bare": ratio(rates, name, "bare"),
                "percent_of_the_best_product": 100 * speed * flops / peak,
                "gib": machine.memory(),
            }


def linearised(machine: Machine) -> Iterator[Row]:
    """Time a linearised draw against an evaluation, and compare with its counted price."""
    folder, device = pipeline(machine), str(machine.device)
    for dtype in ("float32", "bfloat16"):
        batch_size = 4 if machine.small else "auto"
        sweep = full_sweep(folder, device, dtype, strategy="full-linearised", batch_size=batch_size)
        engine = engine_of(sweep)
        linear, plain = engine.lineariser, engine.batch_size
        size = linear.batch_size

        def evaluations(engine: DenoisingEngine = engine, size: int = plain) -> int:
            engine.rehearse(size)
            return size

        def draws(engine: DenoisingEngine = engine, size: int = size) -> int:
            engine.lineariser.rehearse(size)
            return size

        machine.forget_memory()
        found = in_turns({"evaluations": evaluations, "draws": draws}, machine.rounds)
        speeds = {name: median(values) for name, values in found.items()}
        yield {
            "dtype": dtype,
            "batch": plain,
            "linearised_batch": size,
            "evaluations_per_second": speeds["evaluations"],
            "linearised_draws_per_second": speeds["draws"],
            "price_timed": speeds["evaluations"] / speeds["draws"],
            "price_counted": linear.cost,
            "gib": machine.memory(),
        }


def ucmerced(machine: Machine) -> Iterator[Row]:
    """Run UC Merced, or made-up pictures of its classes, on Stable Diffusion 2.1-base's shape."""
    given: dict[str, Any] = {"data_dir": str(_images(machine) or "")}
    dataset = "ucmerced"
    if not given["data_dir"] or machine.small:
        given, dataset = {}, str(_made_up(machine))
    draws = DRAWS if machine.small else 40
    strategies: list[tuple[str, dict[str, Any]]] = [
        ("adaptive", {"draws": draws, "samples": (max(1, draws // 10), draws), "keep": (5, 1)}),
        ("race", {"draws": draws, "first": 2, "ceiling": "published"}),
    ]
    for strategy, params in strategies:
        found = bench.run(
            dataset,
            f"{pipeline(machine)}/",
            strategy,
            params,
            device=str(machine.device),
            dtype="bfloat16",
            results=str(machine.folder / "ucmerced"),
            fresh=True,
            **given,
        )
        cost = found["cost"]
        yield {
            "data": dataset if given else "made-up pictures",
            "images": found["dataset"]["n_samples"],
            "strategy": strategy,
            "draws": draws,
            "accuracy_at_random_weights": found["metrics"]["accuracy"],
            "evaluations_per_image": cost["evaluations_per_image"],
            "seconds": cost["seconds"],
            "evaluations_per_second": cost["evaluations"] / cost["seconds"],
            "total_seconds": cost["total_seconds"],
        }


def _images(machine: Machine) -> Path | None:
    """Return where UC Merced is, beside the checkout or in it; None: nowhere."""
    places = (UCMERCED, ROOT / "shared/data/ucmerced")
    return next((place for place in places if place.is_dir()), None)


def _made_up(machine: Machine) -> Path:
    """Return a folder of pictures, 10 per class of 21; in small, 2 of 3."""
    folder = machine.folder / "pictures"
    classes, each = (3, 2) if machine.small else (21, 10)
    samples = iter(pictures(64 if machine.small else 256, classes * each))
    for label in range(classes):
        (folder / f"thing {label}").mkdir(parents=True, exist_ok=True)
        for number in range(each):
            decode(next(samples).image).save(folder / f"thing {label}" / f"{number}.png")
    return folder
