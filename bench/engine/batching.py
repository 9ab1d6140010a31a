"""Queues of waiting cells, the batches that are cut from them, and the fastest batch size."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Protocol, Self

import numpy as np

from bench.contracts.strategy import Evaluate, Floats, Floats32, Ints, Linearise
from bench.engine.asking import Interview
from bench.engine.items import Joint
from bench.machine.environment import remember_batch_size, remembered_batch_size
from bench.machine.libraries import Tensor, torch

BATCH_FRACTIONS = (8, 4, 2, 1)  # a batch is an eighth, a quarter, a half, or all of a full one


@dataclass
class Flight:
    """One image in progress, with the errors of its current request."""

    interview: Interview
    joint: Joint  # the sample to which the image belongs
    views: Any  # one per view: latents, float32 [V, C, H, W], or V pictures
    request: Any = None
    errors: Floats32 = field(default_factory=lambda: np.empty(0, np.float32))
    """Errors of the request, float32 [cells]; of a linearisation [draws, P]."""
    missing: int = 0  # number of errors that are not there yet

    def expect(self, request: Evaluate | Linearise, count: int, *shape: int) -> None:
        """Make room for `count` errors of a request, each a number or of this shape."""
        self.request, self.missing = request, count
        self.errors = np.empty((count, *shape), np.float32)


@dataclass
class Block:
    """Waiting cells of one request: the prompt and draw of each cell, int64 [cells] each.

    A linearised draw is a cell with prompt -1, whose "error" is a row with one error per prompt.
    """

    flight: Flight
    prompts: Ints
    draws: Ints
    mixture: Floats | None = None  # float64 [P], of a linearisation
    start: int = 0  # number of cells that were cut


@dataclass
class Batch:
    """Cells to evaluate together, and the blocks to which their errors belong."""

    cells: Ints  # int64 [3, B]: prompt, draw and image of each cell. Each view counts as an image
    contents: Any  # latents, float32 [images, C, H, W], or pictures
    images: list[str]  # the sample id of each image
    parts: list[tuple[Block, int, int]] = field(default_factory=list)
    """Block, offset in its flight's errors, and number of cells, in the cells' order."""

    def __len__(self) -> int:
        return int(self.cells.shape[1])

    def part(self, chosen: Ints) -> Self:
        """Return the batch of the chosen cells; they may repeat."""
        return replace(self, cells=self.cells[:, chosen], parts=[])

    def deliver(self, errors: Floats32) -> Iterator[Flight]:
        """Hand the cells' errors to their flights; yield each whose request is complete."""
        start = 0
        for block, offset, count in self.parts:
            flight = block.flight
            flight.errors[offset : offset + count] = errors[start : start + count]
            start += count
            flight.missing -= count
            if flight.missing == 0:
                yield flight


class ShrinkingBatches:
    """Base class for work in batches, whose size is halved permanently when memory runs out.

    `out_of_memory` is called with each reduced batch size.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.out_of_memory: Callable[[int], None] = lambda size: None

    def filled(self, count: int) -> int:
        """Return the size that a batch of so many rows is filled to, by repeating the last one."""
        sizes = (-(-self.batch_size // fraction) for fraction in BATCH_FRACTIONS)
        return next(size for size in sizes if size >= count)

    def in_batches(self, rows: Ints, work: Callable[[Ints], Tensor]) -> Tensor:
        """Return the result of `work` for these rows, computed for one batch of them at a time."""
        count = len(rows)
        if count > self.batch_size:
            parts = np.array_split(rows, -(-count // self.batch_size))
            return torch.cat([self.in_batches(part, work) for part in parts])
        filled = rows[np.minimum(np.arange(self.filled(count)), count - 1)]
        try:
            return work(filled)[:count]
        except torch.OutOfMemoryError:
            if self.batch_size == 1:
                raise
        torch.cuda.empty_cache()
        self.batch_size = max(1, min(self.batch_size, count) // 2)
        self.out_of_memory(self.batch_size)
        return self.in_batches(rows, work)


class Queue:
    """First-in, first-out queue of blocks, from which full batches are cut.

    `sized` has the current batch size, `work` returns one error, or row of errors, per cell, and
    `view_of_draw`, int64 [N], is the view of the image that each draw uses.
    """

    def __init__(
        self, sized: ShrinkingBatches, work: Callable[[Batch], Tensor], view_of_draw: Ints
    ) -> None:
        self.sized, self.work, self.view_of_draw = sized, work, view_of_draw
        self.blocks: deque[Block] = deque()
        self.cells = 0

    @property
    def full(self) -> bool:
        """Whether the cells fill a batch."""
        return self.cells >= self.sized.batch_size

    def append(self, block: Block) -> None:
        """Append a block."""
        self.blocks.append(block)
        self.cells += len(block.draws)

    def cut(self) -> Batch:
        """Remove a batch from the front, of at least one cell, and return it."""
        prompts, draws, parts, size = [], [], [], self.sized.batch_size
        while self.blocks and size:
            block = self.blocks[0]
            stop = min(block.start + size, len(block.draws))
            prompts.append(block.prompts[block.start : stop])
            draws.append(block.draws[block.start : stop])
            parts.append((block, block.start, stop - block.start))
            size -= stop - block.start
            self.cells -= stop - block.start
            block.start = stop
            if stop == len(block.draws):
                self.blocks.popleft()
        flights = [block.flight for block, *_ in parts]
        contents, draw = [flight.views for flight in flights], np.concatenate(draws)
        views = len(contents[0])
        part = np.repeat(np.arange(len(parts)), [count for *_, count in parts])
        cells = np.stack([np.concatenate(prompts), draw, part * views + self.view_of_draw[draw]])
        names = [flight.interview.decided.sample.sample_id for flight in flights]
        images = [name for name in names for _ in range(views)]
        if isinstance(contents[0], torch.Tensor):
            return Batch(cells, torch.cat(contents), images, parts)
        return Batch(cells, list(chain.from_iterable(contents)), images, parts)


SECONDS = 1.5  # what measuring may take
SLOW = 0.25  # seconds of one evaluation from which on a measurement costs more than it saves
ROUNDS = 3
GAIN = 0.04  # a larger batch that is faster by less only makes the run's end longer
SMALLEST, LARGEST = 8, 512


class Batched(Protocol):
    """An object whose batch size can be measured: the engine or its lineariser."""

    batch_size: int
    out_of_memory: Callable[[int], None]

    @property
    def backbone(self) -> Any:
        """The backbone; its `device` is read."""

    def rehearse(self, size: int) -> None:
        """Do one batch of `size` made-up cells and wait for it."""


def settle_batch_size(engine: Batched, key: str) -> None:
    """Give `engine` the batch size remembered under `key`, measured now where there is none.

    The key names all that decides the best size but the device: backbone, dtype, latent shape. A
    size at which memory runs out later is replaced by the one that fitted.
    """
    key = f"{key} {device_name(engine.backbone.device)}"
    size = remembered_batch_size(key)
    if size is None:
        size = best_batch_size(engine)
        remember_batch_size(key, size)
    engine.batch_size = size
    engine.out_of_memory = lambda fits: remember_batch_size(
        key, min(fits, remembered_batch_size(key) or fits)
    )


def best_batch_size(engine: Batched) -> int:
    """Return the smallest batch size whose cells per second are within 4 % of the best.

    Where measuring would take too long, it is the engine's own batch size.
    """
    rates = rates_by_size(engine, SECONDS)
    if rates.pop(1) < 1 / SLOW:
        return engine.batch_size
    if not rates:
        return SMALLEST // 2  # the run halves it further where it does not fit
    return smallest_of_the_best(rates)


def rates_by_size(engine: Batched, seconds: float) -> dict[int, float]:
    """Return the cells per second by batch size: of 1, and of those that are worth measuring.

    Sizes double until a batch takes too long for a measurement of about `seconds`, or memory runs
    out. They are timed in turns, so that a disturbance of the machine affects all of them.
    """
    started = time.perf_counter()
    engine.rehearse(1)
    shortest = {1: _seconds(engine, 1)}
    if shortest[1] > SLOW:
        return {1: 1 / shortest[1]}
    on_cpu = engine.backbone.device.type == "cpu"
    size = SMALLEST
    while size <= LARGEST:
        try:
            engine.rehearse(size)  # the first of a shape prepares kernels
            shortest[size] = _seconds(engine, size)
        except torch.OutOfMemoryError:
            break
        spent = time.perf_counter() - started
        if on_cpu and spent + 2 * ROUNDS * shortest[size] > seconds:
            break
        # A GPU's times are steady enough to stop at the first size that gains nothing.
        if not on_cpu and size > SMALLEST and shortest[size] > (2 - GAIN) * shortest[size // 2]:
            break
        size *= 2
    torch.cuda.empty_cache()
    for _ in range(ROUNDS - 1):
        for size in shortest:
            shortest[size] = min(shortest[size], _seconds(engine, size))
    return {size: size / taken for size, taken in shortest.items()}


def smallest_of_the_best(rates: Mapping[int, float]) -> int:
    """Return the smallest batch size whose cells per second are within 4 % of the best."""
    return min(size for size, rate in rates.items() if rate >= max(rates.values()) * (1 - GAIN))


def device_name(device: "torch.device") -> str:
    """Return the name of a device for its speed: the GPU's model, or the CPU's threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.get_num_threads()} threads"


def _seconds(engine: Batched, size: int) -> float:
    started = time.perf_counter()
    engine.rehearse(size)
    return time.perf_counter() - started
