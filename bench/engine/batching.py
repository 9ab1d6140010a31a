"""Queues of waiting cells, the batches cut from them, their engine, and the fastest batch size.

Strategies request small blocks of cells. The blocks of all images in progress wait in queues, and
batches are cut from the front, regardless of image, draw and prompt. If a model's calls take cells
of one noise level or prompt length only, those of each level or length wait in a line of their own,
and a batch is cut from the longest line. A new image starts only while no queue fills a batch, and
not too many images are in progress, so memory does not grow with the dataset.
"""

import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Protocol, Self

import numpy as np
from typing_extensions import override

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.executor import ModelFacts
from bench.contracts.strategy import Evaluate, Floats, Floats32, Ints, Linearise, Problem
from bench.engine.asking import CheckedSession, CheckedStrategy, Engine
from bench.engine.items import PromptedProblem, SampleInProgress
from bench.engine.transfer import fetch
from bench.inputs.prompts import Columns
from bench.machine.libraries import Tensor, torch
from bench.machine.speeds import remember_batch_size, remembered_batch_size

BATCH_FRACTIONS = (8, 4, 2, 1)  # a batch is an eighth, a quarter, a half, or all of a full one
IN_PROGRESS = 8  # images in progress per cell of a batch, at most; their latents are in memory
GroupOf = Callable[[Ints, Ints], Ints]
"""Returns the group of each cell from its prompt and draw, int64 [cells] each."""


@dataclass
class ImageInProgress:
    """One image in progress, with the errors of its current request."""

    session: CheckedSession
    sample: SampleInProgress  # the sample to which the image belongs
    views: Any  # its V views: latents, float32 [V, C, H, W], or V pictures
    request: Any = None
    errors: Floats32 = field(default_factory=lambda: np.empty(0, np.float32))
    """Errors of the request, float32 [cells]; of a linearisation [draws, P]."""
    missing: int = 0  # number of errors that are not there yet

    def expect(self, request: Evaluate | Linearise, count: int, *shape: int) -> None:
        """Make room for `count` errors of a request, each a number or of this shape."""
        self.request, self.missing = request, count
        self.errors = np.empty((count, *shape), np.float32)


@dataclass(frozen=True)
class Block:
    """Waiting cells of one request: the prompt and draw of each cell, int64 [cells] each.

    A linearised draw is a cell with prompt -1, whose "error" is a row with one error per prompt.
    `places`, int64 [cells], are the positions of the cells' errors in `image.errors`.
    """

    image: ImageInProgress
    prompts: Ints
    draws: Ints
    places: Ints
    mixture: Floats | None = None  # float64 [P], of a linearisation

    def __len__(self) -> int:
        return len(self.draws)

    def part(self, chosen: Ints | slice) -> "Block":
        """Return the block of the chosen cells."""
        prompts, draws, places = self.prompts[chosen], self.draws[chosen], self.places[chosen]
        return replace(self, prompts=prompts, draws=draws, places=places)


@dataclass
class Batch:
    """Cells to evaluate together, and the blocks to which their errors belong."""

    cells: Ints  # int64 [3, B]: prompt, draw and image of each cell. Each view counts as an image
    contents: Any  # latents, float32 [images, C, H, W], or pictures
    images: list[str]  # the sample id of each image
    parts: list[Block] = field(default_factory=list)  # its cells by request, in the same order
    group: int = 0  # the group of all its cells, by `Queue.group_of`

    def __len__(self) -> int:
        return int(self.cells.shape[1])

    def part(self, chosen: Ints | slice) -> Self:
        """Return the batch of the chosen cells; they may repeat."""
        return replace(self, cells=self.cells[:, chosen], parts=[])

    def deliver(self, errors: Floats32) -> Iterator[ImageInProgress]:
        """Hand the errors to their images; yield each image whose request is complete."""
        start = 0
        for block in self.parts:
            image, end = block.image, start + len(block)
            image.errors[block.places] = errors[start:end]
            start = end
            image.missing -= len(block)
            if image.missing == 0:
                yield image


class ShrinkingBatches:
    """Base class for work in batches, whose size is halved permanently when memory runs out.

    `out_of_memory` is called with each reduced batch size.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.out_of_memory: Callable[[int], None] = lambda size: None

    def filled(self, count: int) -> int:
        """Return the size to which a batch of `count` rows is filled, by repeating the last row."""
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

    Its batches have the batch size of `sized`. `work` returns one error, or row of errors, per cell
    of a batch. `view_of_draw`, int64 [N], is the view of the image that each draw uses. Cells of
    different groups are never in one batch; by default, all cells are of one group.
    """

    def __init__(
        self,
        sized: ShrinkingBatches,
        work: Callable[[Batch], Tensor],
        view_of_draw: Ints,
        group_of: GroupOf = lambda prompts, draws: np.zeros_like(draws),
    ) -> None:
        self.sized, self.work, self.view_of_draw = sized, work, view_of_draw
        self.group_of = group_of
        self.lines: dict[int, deque[Block]] = {}  # by group; no line is empty
        self.waiting: dict[int, int] = {}  # number of cells in each line

    @property
    def full(self) -> bool:
        """Whether the cells of a group fill a batch."""
        return max(self.waiting.values(), default=0) >= self.sized.batch_size

    @property
    def cells(self) -> int:
        """Number of waiting cells."""
        return sum(self.waiting.values())

    def append(self, block: Block) -> None:
        """Append a block to the lines of its cells' groups."""
        groups = self.group_of(block.prompts, block.draws)
        for group in np.unique(groups).tolist():
            own = np.flatnonzero(groups == group)
            self.lines.setdefault(group, deque()).append(block.part(own))
            self.waiting[group] = self.waiting.get(group, 0) + len(own)

    def cut(self) -> Batch:
        """Remove a batch, of at least one cell, from the front of the longest line."""
        group = max(self.waiting, key=lambda group: self.waiting[group])
        line, size = self.lines[group], self.sized.batch_size
        parts: list[Block] = []
        while line and size:
            block = line.popleft()
            if len(block) > size:
                line.appendleft(block.part(slice(size, None)))
                block = block.part(slice(size))
            parts.append(block)
            size -= len(block)
        counts = [len(block) for block in parts]
        self.waiting[group] -= sum(counts)
        if not line:
            del self.lines[group], self.waiting[group]
        images = [block.image for block in parts]
        views, part = len(images[0].views), np.repeat(np.arange(len(parts)), counts)
        prompt = np.concatenate([block.prompts for block in parts])
        draw = np.concatenate([block.draws for block in parts])
        view = part * views + self.view_of_draw[draw]
        ids = [image.session.decided.sample.sample_id for image in images for _ in range(views)]
        contents: Any = [image.views for image in images]
        if isinstance(contents[0], torch.Tensor):
            contents = torch.cat(contents)
        else:
            contents = list(chain.from_iterable(contents))
        return Batch(np.stack([prompt, draw, view]), contents, ids, parts, group)


class CellEngine(ShrinkingBatches, Engine):
    """Base class of engines of denoisers and likelihoods, which score images by errors of cells.

    Subclasses load images (`load_images`) and evaluate batches (the `work` of their `queues`).
    """

    depth = 1  # number of batches launched before the errors of the first are read
    in_progress = 0  # number of images that are started and not decided

    def __init__(
        self,
        problem: Problem,  # problem of an image; its prompts are columns
        columns: Columns,  # prompts behind each column
        batch_size: int,  # cells per batch; halved for good when memory runs out
        view_of_draw: Ints | None = None,  # int64 [N], view that each draw sees; None: one view
    ) -> None:
        super().__init__(batch_size)
        self.model, self.prompted = ModelFacts(problem), PromptedProblem(problem, columns)
        n_draws = len(problem.timesteps)
        self.view_of_draw = np.zeros(n_draws, np.int64) if view_of_draw is None else view_of_draw

    @abstractmethod
    def load_images(
        self, samples: Iterable[Sample]
    ) -> Iterator[tuple[Sample, Sequence[Any] | str]]:
        """Yield samples with the views of each image, or with why one cannot be read."""

    @abstractmethod
    def queues(self) -> list[Queue]:
        """Return empty queues, that of evaluations last; the first that is full is cut first."""

    @override
    def score(self, samples: Iterable[Sample], strategy: CheckedStrategy) -> Iterator[Decided]:
        """Yield each image as it is decided; an image that fails does not stop the others."""
        loaded, queues = self.load_images(samples), self.queues()
        self.in_progress = 0
        # Batches, each with a function that waits for its errors.
        launched: deque[tuple[Batch, Callable[[], Floats32]]] = deque()
        while True:
            while (
                not any(queue.full for queue in queues)
                and self.in_progress < IN_PROGRESS * self.batch_size
                and (next_loaded := next(loaded, None)) is not None
            ):
                sample, images = next_loaded
                if isinstance(images, str):
                    yield Decided(sample, error=images)
                    continue
                started = SampleInProgress(sample, strategy, self.prompted)
                self.in_progress += len(images)
                for session, views in zip(started.sessions, images, strict=True):
                    yield from self._ask(ImageInProgress(session, started, views), queues)
            full = [queue for queue in queues if queue.full and len(launched) < self.depth]
            not_full = [queue for queue in queues if queue.cells and not launched]
            if ready := full or not_full:
                batch = ready[0].cut()
                launched.append((batch, fetch(ready[0].work(batch))))
            elif launched:
                batch, errors = launched.popleft()
                for image in batch.deliver(errors()):
                    self.tell(image)
                    yield from self._ask(image, queues)
            else:
                return

    def _ask(self, image: ImageInProgress, queues: Sequence[Queue]) -> Iterator[Decided]:
        """Queue the image's next request, or yield the sample if this was its last open image."""
        request = image.session.ask()
        if request is not None:
            queue = queues[0 if isinstance(request, Linearise) else -1]
            for block in self.blocks(image, request):
                queue.append(block)
            return
        self.in_progress -= 1
        if whole := image.sample.finish_image():
            yield whole

    def blocks(self, image: ImageInProgress, request: Evaluate | Linearise) -> Iterator[Block]:
        """Make room for the errors of a request, and yield blocks of its cells."""
        assert isinstance(request, Evaluate), "there are no gradients to linearise with"
        prompts, draws = image.sample.prompted.cells(request)
        image.expect(request, len(draws))
        yield Block(image, prompts, draws, np.arange(len(draws)))

    def tell(self, image: ImageInProgress) -> None:
        """Reply to the request of an image with its errors."""
        request, columns = image.request, image.sample.prompted.columns
        image.session.tell(request, columns.errors(image.errors, len(request.prompts)))


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


def settle_batch_size(engine: Batched, key: str) -> bool:
    """Give `engine` the batch size remembered under `key`; return whether it was measured now.

    The key names everything on which the best size depends except the device: backbone, dtype and
    latent shape. If memory runs out later, the size that then fits is remembered instead.
    """
    key = f"{key} {device_name(engine.backbone.device)}"
    size = remembered_batch_size(key)
    unknown = size is None
    if size is None:
        size = best_batch_size(engine)
        remember_batch_size(key, size)
    engine.batch_size = size
    engine.out_of_memory = lambda fits: remember_batch_size(
        key, min(fits, remembered_batch_size(key) or fits)
    )
    return unknown


def best_batch_size(engine: Batched) -> int:
    """Return the smallest batch size whose cells per second are within 4 % of the best rate.

    Returns the engine's own batch size if a measurement would take too long.
    """
    rates = rates_by_size(engine, SECONDS)
    if rates.pop(1) < 1 / SLOW:
        return engine.batch_size
    if not rates:
        return SMALLEST // 2  # the run halves it further where it does not fit
    return smallest_of_the_best(rates)


def rates_by_size(engine: Batched, seconds: float) -> dict[int, float]:
    """Return the cells per second by batch size, of 1 and of powers of 2 from SMALLEST on.

    Sizes double until a batch takes too long for a measurement of about `seconds`, or memory runs
    out. They are timed in turns, so that a disturbance of the machine affects all of them.
    """
    started = time.perf_counter()
    engine.rehearse(1)
    shortest = {1: _seconds(engine, 1)}
    if shortest[1] > SLOW:
        return {1: 1 / shortest[1]}
    on_cpu = engine.backbone.device.type == "cpu"

    def gains_nothing(size: int) -> bool:
        return shortest[size] > (2 - GAIN) * shortest[size // 2]

    size = SMALLEST
    while size <= LARGEST:
        try:
            engine.rehearse(size)  # the first batch of a shape prepares kernels
            shortest[size] = _seconds(engine, size)
        except torch.OutOfMemoryError:
            break
        spent = time.perf_counter() - started
        if on_cpu and spent + 2 * ROUNDS * shortest[size] > seconds:
            break
        # A GPU's times are steady enough to stop at the first size that gains nothing.
        if not on_cpu and size > SMALLEST and gains_nothing(size):
            for again in (size // 2, size):  # a disturbance must not end the growth
                shortest[again] = min(shortest[again], _seconds(engine, again))
            if gains_nothing(size):
                break
        size *= 2
    torch.cuda.empty_cache()
    for _ in range(ROUNDS - 1):
        for size in shortest:
            shortest[size] = min(shortest[size], _seconds(engine, size))
    return {size: size / taken for size, taken in shortest.items()}


def smallest_of_the_best(rates: Mapping[int, float]) -> int:
    """Return the smallest batch size whose cells per second are within GAIN of the best rate."""
    return min(size for size, rate in rates.items() if rate >= max(rates.values()) * (1 - GAIN))


def device_name(device: "torch.device") -> str:
    """Return the name under which speeds are kept: the GPU's model, or the CPU's threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.get_num_threads()} threads"


def _seconds(engine: Batched, size: int) -> float:
    started = time.perf_counter()
    engine.rehearse(size)
    return time.perf_counter() - started
