"""Parts that score with the toolkit as a user runs it: is the device right, and how fast is it?"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from helpers import families
from helpers.pipelines import save_pipeline
from helpers.places import ROOT, UCMERCED
from helpers.published import save_published
from numpy.typing import NDArray

import bench
from bench.contracts.dataset import Sample
from bench.contracts.specs import DatasetSpec
from bench.engine.denoising import DenoisingEngine
from bench.inputs.pixels import decode
from bench.perf.measure import measure
from bench.perf.timing import in_turns
from bench.perf.work import pictures
from bench.running.prepare import Prepared, prepare
from bench.running.settings import make_config
from benchmarks.gpu.machine import Machine
from benchmarks.gpu.report import Row

CLASSES = ("cat", "fir tree", "dog")  # all of them known to the small DiT
DRAWS = 4
MOST = {"float32": 1e-3, "TF32": 1e-2, "float16": 2e-2, "bfloat16": 5e-2}  # of an error, relative
SIDES = {"sana": 32}  # of the small families' pictures; 16 of the others
Errors = NDArray[np.float32]


def pipeline(machine: Machine) -> Path:
    """Return a pipeline of the shape of Stable Diffusion 2.1-base, or a small one, made once."""
    folder = machine.folder / ("small-sd21" if machine.small else "sd21")
    if not (folder / "scheduler" / "scheduler_config.json").exists():  # the last that is saved
        shutil.rmtree(folder, ignore_errors=True)
        (save_pipeline if machine.small else _published)(folder, "sd21")
    return folder


def full_sweep(folder: Path, device: str, dtype: str, **more: Any) -> Prepared:
    """Return a prepared full sweep on made-up pictures."""
    if dtype == "TF32":
        more, dtype = {**more, "tf32": True}, "float32"
    settings = {"dataset": "-", "backbone": f"{folder}/", "device": device, "dtype": dtype}
    sweep = {"strategy": "full", "params": {"draws": DRAWS}, "batch_size": 2}
    spec = DatasetSpec(name="pictures", target="bench.perf:pictures", classes=CLASSES)
    return prepare(make_config({**settings, **sweep, **more}), spec, images=False)


def engine_of(run: Prepared) -> DenoisingEngine:
    """Return the engine of a prepared run of a denoiser."""
    engine = run.open_engine()
    assert isinstance(engine, DenoisingEngine)
    return engine


def errors_of(engine: DenoisingEngine, run: Prepared, samples: list[Sample]) -> Errors:
    """Return the errors of images, float32 [images, prompts, draws]."""
    decided = {d.sample.sample_id: d for d in engine.score(samples, run.strategy)}
    whole = np.full((len(samples), len(CLASSES), DRAWS), np.nan, np.float32)
    for position, sample in enumerate(samples):
        if error := decided[sample.sample_id].error:
            raise RuntimeError(error)
        for request, values in decided[sample.sample_id].cells:
            whole[position][np.ix_(request.prompts, request.draws)] = values
    return whole


def difference(found: Errors, exact: Errors, dtype: str) -> Row:
    """Return how far errors are from those in float32 on the CPU.

    What decides is the difference between two prompts on one draw; its error should be small
    against its spread.
    """
    relative = float(np.abs(found / exact - 1).max())
    pairs, pairs_exact = (e[:, 1:].astype(np.float64) - e[:, :1] for e in (found, exact))
    return {
        "dtype": dtype,
        "largest_relative_difference": relative,
        "error_of_paired_differences_over_their_deviation": float(
            np.sqrt(((pairs - pairs_exact) ** 2).mean()) / pairs_exact.std()
        ),
        "same_decisions": bool(
            (found.mean(axis=2).argmin(1) == exact.mean(axis=2).argmin(1)).all()
        ),
        "ok": relative <= MOST[dtype],
    }


def dtypes(machine: Machine) -> list[str]:
    """Return the dtypes that are compared with float32 on the CPU."""
    if machine.device.type == "cuda":
        return ["float32", "TF32", "bfloat16", "float16"]
    return ["float32", "bfloat16"]


def each_family(machine: Machine) -> Iterator[Row]:
    """Compare the cells of each family's small pipeline on the device with those on the CPU."""
    for kind in ("sd15", "sd21", *families.KINDS):
        side = SIDES.get(kind, 16)
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent, kind)
            (families.save if kind in families.KINDS else _saved)(kind, folder)
            yield from _compared(machine, kind, folder, pictures(side, 2), resolution=side)


def _saved(kind: str, folder: Path) -> Path:
    return save_pipeline(folder, kind)


def _published(folder: Path, kind: str) -> Path:
    return save_published(kind, folder)


def real_cells(machine: Machine) -> Iterator[Row]:
    """Compare a few cells of Stable Diffusion 2.1-base on the device with those on the CPU."""
    folder = pipeline(machine)
    side = 16 if machine.small else 512
    yield from _compared(machine, "sd21", folder, pictures(side, 1))


def _compared(
    machine: Machine, name: str, folder: Path, samples: list[Sample], **more: Any
) -> Iterator[Row]:
    run = full_sweep(folder, "cpu", "float32", **more)
    exact = errors_of(engine_of(run), run, samples)
    for dtype in dtypes(machine):
        run = full_sweep(folder, str(machine.device), dtype, **more)
        found = errors_of(engine_of(run), run, samples)
        yield {"pipeline": name, **difference(found, exact, dtype)}


def digits(machine: Machine) -> Iterator[Row]:
    """Run digits on the CPU and on the device: the same decisions, for as many evaluations?"""
    device, exact = str(machine.device), None
    for where, dtype in (("cpu", "float32"), (device, "float32"), (device, "bfloat16")):
        found = bench.run(
            "digits",
            device=where,
            dtype=dtype,
            limit=6 if machine.small else None,
            results=str(machine.folder / f"digits-{where.replace(':', '-')}"),
            fresh=True,
        )
        guesses = found.samples["prediction"].to_numpy()
        exact = guesses if exact is None else exact
        same = float((guesses == exact).mean())
        yield {
            "device": where,
            "dtype": dtype,
            "images": len(guesses),
            "accuracy": found["metrics"]["accuracy"],
            "evaluations_per_image": found["cost"]["evaluations_per_image"],
            "seconds": found["cost"]["seconds"],
            "decisions_as_on_the_cpu": same,
            "ok": same == 1 or dtype != "float32",
        }


def engine_over_bare(machine: Machine) -> Iterator[Row]:
    """Measure strategies in the engine against the bare network, on Stable Diffusion 2.1-base."""
    given = {"dataset": "-", "backbone": f"{pipeline(machine)}/", "device": str(machine.device)}
    half: Row = {"dtype": "bfloat16"}
    for more in (half, {**half, "compile": True, "batch_size": 32}):
        if machine.small and "compile" in more:
            break
        names = ("full", "race") if machine.small else ("full", "adaptive", "race")
        sizes = (4, 8) if machine.small else ()
        params = {"draws": DRAWS} if machine.small else {}
        config = make_config({**given, **more, "strategy": "full", "params": params})
        found = measure(config, names, sizes, 0.05 if machine.small else 60.0)
        for name in names:
            yield {
                "strategy": name,
                **more,
                "batch": found.best_batch_size,
                "evaluations_per_second": found.engine[name],
                "engine_over_bare": found.engine_over_bare[name],
                "percent_of_the_best_product": found.utilisation,
                "gib": machine.memory(),
            }


def linearised(machine: Machine) -> Iterator[Row]:
    """Time a linearised draw against an evaluation, and compare with its counted price."""
    folder, device = pipeline(machine), str(machine.device)
    for dtype in ("float32", "bfloat16"):
        more = {"strategy": "full-linearised", "batch_size": "auto"}
        if machine.small:
            more["batch_size"] = "4"
        engine = engine_of(full_sweep(folder, device, dtype, **more))
        linear, plain = engine.linear, engine.batch_size
        size = linear.batch_size

        def evaluations(engine: DenoisingEngine = engine, size: int = plain) -> int:
            engine.rehearse(size)
            return size

        def draws(engine: DenoisingEngine = engine, size: int = size) -> int:
            engine.linear.rehearse(size)
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


def out_of_memory(machine: Machine) -> Iterator[Row]:
    """Let memory end in the middle of a run: the same cells must come out of smaller batches."""
    folder, device = pipeline(machine), machine.device
    samples = pictures(16 if machine.small else 512, 8)
    run = full_sweep(folder, str(device), "float32", batch_size=2)
    engine = engine_of(run)
    machine.forget_memory()
    exact = errors_of(engine, run, samples[:1])
    largest, size = 8, 64
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        share = 1.5 * torch.cuda.max_memory_allocated() / total
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, share), device)
    else:
        _end_memory(engine, largest)
    engine.batch_size = size
    tried: list[int] = []
    engine.out_of_memory = tried.append
    found = errors_of(engine, run, samples)
    apart = float(np.abs(found[:1] / exact - 1).max())
    yield {
        "memory": "limited" if device.type == "cuda" else "made to end by the benchmark",
        "batch": size,
        "batch_at_the_end": engine.batch_size,
        "times_halved": len(tried),
        "images_decided": len(found),
        "largest_relative_difference": apart,
        "ok": bool(tried) and apart < 1e-4,
    }


def _end_memory(engine: DenoisingEngine, cells: int) -> None:
    """Let a CPU, whose memory does not end in an exception, refuse larger batches."""
    denoise = engine.backbone.denoise

    def limited(x_t: torch.Tensor, *others: Any) -> torch.Tensor:
        if len(x_t) > cells:
            raise torch.OutOfMemoryError(f"more than {cells} cells")
        return denoise(x_t, *others)

    engine.backbone.denoise = limited  # type: ignore[method-assign, assignment]


def ucmerced(machine: Machine) -> Iterator[Row]:
    """Run UC Merced, or made-up pictures of its classes, on Stable Diffusion 2.1-base's shape."""
    given: dict[str, Any] = {"data_dir": str(_images(machine) or "")}
    dataset = "ucmerced"
    if not given["data_dir"] or machine.small:
        given, dataset = {}, str(_made_up(machine))
    draws = DRAWS if machine.small else 40
    strategies: list[tuple[str, dict[str, Any]]] = [
        ("adaptive", {"draws": draws, "samples": (max(1, draws // 10), draws), "keep": (5, 1)}),
        ("race", {"draws": draws, "first": 2, "ceiling": "adaptive"}),
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
