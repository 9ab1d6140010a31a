"""A network on the meta device in place of a GPU: calls, shapes, and where the host would wait.

A *copy* moves a tensor of the CPU to the meta device: on a GPU that is a copy from pageable memory,
for which the stream waits, unless it is pinned and does not block (`to_device`). A *read* asks for
a value (`item`, `tolist`, a boolean of a tensor), for which the host waits. A class whose own code
needs the values that it reads is run with its small real network instead: its reads are then those
of any tensor, and copies are not seen.
"""

import collections
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers import families, released
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

from bench.contracts.strategy import Floats32, Problem
from bench.engine import trees
from bench.engine.asking import CheckedStrategy
from bench.engine.batching import Batch
from bench.engine.denoiser import CheckedDenoiser, accelerate
from bench.engine.denoising import DenoisingEngine
from bench.engine.embeddings import embed_prompts
from bench.engine.scoring import OwnNoise, Scoring, SharedNoise, coefficients, times
from bench.inputs.draws import parse_plan
from bench.inputs.prompts import make_columns
from bench_plugins.backbones._pipelines.gate import network_of
from bench_plugins.backbones.pipeline import PipelineDenoiser
from bench_plugins.strategies.hierarchy import DownTree
from bench_plugins.strategies.race import Race
from benchmarks.timing import pictures

ROOT = Path(__file__).resolve().parents[2]
OURS = (ROOT / "bench", ROOT / "plugins")
BATCH = 32
# Their own code reads values, so their networks cannot stand on the meta device.
READ_VALUES = ("Lumina2Pipeline", "Flux2Pipeline", "AuraFlowPipeline", "HunyuanDiTPipeline")
LABELS = ("cat", "fir tree", "dog", "crane")
WORDS = "a red barn beside the long winding road to some very small town near the sea"
READS = ("aten._local_scalar_dense", "aten.item", "aten.nonzero", "aten.is_nonzero", "aten.equal")
COPIES = ("aten._to_copy", "aten.to.", "aten.copy_")
TEXTS = tuple(" ".join(WORDS.split()[: 2 + 2 * (number % 4)]) + f" {number}" for number in range(8))


def place() -> tuple[str, bool]:
    """Return file and line of the innermost caller outside torch, and whether it is our code."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if "torch" not in path.parts and path != Path(__file__):
            return f"{path.name}:{frame.name}", any(map(path.is_relative_to, OURS))
    return "unknown", True


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own is not typed
    """Counts copies to the meta device and values read of it, by place.

    Args:
        everywhere: whether reads of tensors on the CPU count, too: of a network that stands there.
    """

    def __init__(self, everywhere: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.everywhere = everywhere
        self.ours: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = str(func), kwargs or {}
        source = next((leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)), None)
        if source is not None and name.startswith(READS):
            if source.is_meta or self.everywhere:
                self.add("read")
            return 1 if source.is_meta else func(*args, **kwargs)
        if source is None or not name.startswith(COPIES):
            return func(*args, **kwargs)
        target = args[0].device if name.startswith("aten.copy_") else kwargs.get("device")
        target = next((a for a in args if isinstance(a, torch.device)), target)
        if name.startswith("aten.copy_"):
            source = args[1]
        if target is not None and source.is_meta and torch.device(target).type == "cpu":
            self.add("read")  # of all values: `cpu`, `tolist`
            return torch.ones(source.shape, dtype=source.dtype)
        is_pinned = kwargs.get("non_blocking") or any(a is True for a in args)
        moves = target is not None and torch.device(target).type == "meta" and not source.is_meta
        if moves and not is_pinned:
            self.add("copy")
        return func(*args, **kwargs)

    def add(self, what: str) -> None:
        """Count a wait in our code; the class's own code is its own."""
        where, is_ours = place()
        if is_ours:
            self.ours[f"{what} {where}"] += 1


@dataclass
class Run:
    """What a run on the stand-in did.

    Attributes:
        batches: number of batches.
        cells: number of cells evaluated.
        calls: the shapes of the inputs of each call of the network.
        ours: places in our code where the host would wait.
        decided: number of images decided.
    """

    batches: int = 0
    cells: int = 0
    calls: list[tuple[tuple[int, ...], ...]] = field(default_factory=list)
    ours: collections.Counter[str] = field(default_factory=collections.Counter)
    decided: int = 0


class StandingEngine(DenoisingEngine):
    """An engine whose errors are made up: those of the network have no values.

    A prompt is worse than another by an amount of its own for each image, so images take different
    numbers of draws, as in a race on real errors.
    """

    run: Run
    waits: Waits

    @override
    def _evaluate(self, batch: Batch) -> torch.Tensor:
        with self.waits:
            errors = super()._evaluate(batch)
        assert errors.shape == (len(batch),)
        self.run.batches += 1
        self.run.cells += len(batch)
        return torch.from_numpy(made_up(batch))


def made_up(batch: Batch) -> Floats32:
    """Return errors of a batch's cells, float32 [B], from image, prompt and draw alone."""
    errors = []
    for prompt, draw, image in batch.cells.T:
        seed = int(batch.images[image].rpartition("-")[2])
        gap = np.random.default_rng([seed, int(prompt)]).gamma(2.0, 0.3)
        noise = np.random.default_rng([seed, int(prompt), int(draw), 1]).normal()
        errors.append(1 + gap + 0.3 * noise)
    return np.array(errors, np.float32)


def denoiser_of(kind: str, on_meta: bool) -> tuple[PipelineDenoiser, Any]:
    """Return the denoiser of a class's small pipeline, and its prompts, encoded on the CPU."""
    if kind in released.MAKERS:
        pipe, side = released.made(kind), released.SIDES.get(kind, 16)
    else:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            pipe, side = families.save(kind, Path(folder, kind)), 32 if kind == "sana" else 16
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False)
    if kind == "dit":
        pipe.labels = {name: number for number, name in enumerate(LABELS)}
    denoiser = PipelineDenoiser(pipe, resolution=side)
    if on_meta:
        denoiser.untried = None
    with torch.no_grad():
        tree = embed_prompts(CheckedDenoiser(denoiser, kind), kind, texts_of(kind))
    if on_meta:
        network_of(pipe).to("meta")
        pipe.vae.to("meta")
        denoiser = PipelineDenoiser(pipe, learned=denoiser.learned, device=torch.device("meta"))
    return denoiser, tree


def texts_of(kind: str) -> tuple[str, ...]:
    """Return the prompts of a class, of different lengths."""
    return LABELS if kind == "dit" else TEXTS


def stand(
    kind: str,
    images: int,
    draws: int,
    real: bool = False,
    own_noise: bool = False,
    tree_of_classes: bool = False,
) -> Run:
    """Run a race of made-up pictures on a class's small network, and return what happened."""
    real = real or kind in READ_VALUES
    denoiser, conditioning = denoiser_of(kind, on_meta=not real)
    checked = CheckedDenoiser(denoiser, kind)
    _ = denoiser.network  # tries a network that has values
    run = Run()

    def counted(module: Any, arguments: Any, keywords: Any) -> None:
        leaves = tree_leaves((arguments, keywords))
        run.calls.append(tuple(tuple(x.shape) for x in leaves if isinstance(x, torch.Tensor)))

    count = len(texts_of(kind))
    of_prompt, parents = np.arange(count), None
    strategy: Any = Race(draws=draws, first=2)
    if tree_of_classes:
        leaves = count - 2  # the last two prompts are those of two inner nodes
        parents = np.array([leaves + (n >= leaves // 2) for n in range(leaves)] + [-1, -1])
        strategy = DownTree(draws=draws)
    levels, plan = denoiser.levels, parse_plan("grid")
    rows = plan.assign_levels(draws, len(levels))
    problem = Problem(of_prompt, rows, np.ones(draws), parents=parents)
    shape, device = denoiser.latent_shape, denoiser.device
    noise = (
        OwnNoise(plan, 0, shape, device)
        if own_noise
        else SharedNoise(plan.make_noise(0, draws, shape), device)
    )
    scoring = Scoring(coefficients(levels, rows, "prediction", device), noise, "l2")
    engine = StandingEngine(
        checked, conditioning, problem, make_columns(of_prompt, "best"), scoring, BATCH
    )
    engine.run, engine.waits = run, Waits(everywhere=real)
    engine.depth, encoded = 2, engine.latents._encoded

    def encode(images: Any) -> torch.Tensor:
        with engine.waits:
            return encoded(images)

    engine.latents._encoded = encode  # type: ignore[method-assign]
    hook = network_of(denoiser.pipe).register_forward_pre_hook(counted, with_kwargs=True)
    try:
        samples = pictures(denoiser.resolution, images)
        for decided in engine.score(samples, CheckedStrategy(strategy, kind)):
            assert decided.error is None, decided.error
            run.decided += 1
    finally:
        hook.remove()
    run.ours = engine.waits.ours
    return run


def layout_of(kind: str) -> tuple[int, int]:
    """Lay a class's real network out as on a GPU; return how many of its 4-D weights were."""
    denoiser, conditioning = denoiser_of(kind, on_meta=False)
    checked = CheckedDenoiser(denoiser, kind)
    x_t = torch.randn(2, *denoiser.latent_shape, generator=torch.Generator().manual_seed(0))
    levels = denoiser.levels
    time, two = times(levels, np.array([len(levels) // 2] * 2)), trees.rows(conditioning, slice(2))
    with torch.no_grad():
        before = denoiser.denoise(x_t, time, two)
        accelerate(checked, "channels-last", "auto", False)
        after = denoiser.denoise(x_t, time, two)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5 * float(before.abs().max()))
    weights = [p for p in network_of(denoiser.pipe).parameters() if p.ndim == 4]
    laid = sum(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    return laid, len(weights)


KINDS = (*families.KINDS, *released.RELEASED)
