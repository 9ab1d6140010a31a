"""Cells of many images that wait, and the batches that are cut from them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.contracts.decision import Interview
from bench.contracts.strategy import Evaluate, Floats, Ints, Linearise
from bench.engine.items import Joint

BATCH_FRACTIONS = (8, 4, 2, 1)  # a batch is an eighth, a quarter, a half, or all of a full one


@dataclass
class Flight:
    """One image under way.

    Attributes:
        joint: the sample to which the image belongs.
        views: one per view: latents, float32 [V, C, H, W], or V pictures.
        order: in a linearisation, the draw of each row of `errors`.
        errors: of the request, float32 [cells]; of a linearisation [draws, P].
        missing: number of errors that are not there yet.
        null: the null's errors where a run subtracts them, float32 [N]; NaN: not evaluated yet.
        fresh: int64, the draws whose null is evaluated with the present request.
    """

    interview: Interview
    joint: Joint
    views: Any
    request: Any = None
    order: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    errors: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    missing: int = 0
    null: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    fresh: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    def expect(self, request: Evaluate | Linearise, count: int, *shape: int) -> None:
        """Make room for `count` errors of a request, each a number or of this shape."""
        self.request, self.missing = request, count
        self.errors = np.empty((count, *shape), np.float32)


@dataclass
class Block:
    """Cells of one request that wait: the prompt and draw of each cell.

    A linearised draw is a cell without a prompt (-1); its "error" is a row, one for each prompt.

    Attributes:
        offset: position of the block in the flight's errors.
        mixture: of a linearisation, float64 [P].
        start: number of cells that were cut.
    """

    flight: Flight
    prompts: Ints
    draws: Ints
    offset: int = 0
    mixture: Floats | None = None
    start: int = 0


@dataclass
class Batch:
    """Cells to evaluate together, and where their errors belong.

    Attributes:
        cells: int64 [3, B]: prompt, draw and image of each cell. Each view counts as an image.
        contents: latents, float32 [images, C, H, W], or pictures.
        images: the sample id of each image.
        parts: block, offset in its flight's errors, and number of cells, in the cells' order.
    """

    cells: Ints
    contents: Any
    images: list[str]
    parts: list[tuple[Block, int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return int(self.cells.shape[1])

    def part(self, chosen: Ints) -> Batch:
        """Return the batch of the chosen cells; they may repeat."""
        return Batch(self.cells[:, chosen], self.contents, self.images)

    def filled(self, size: int) -> Batch:
        """Return the batch with its last cell repeated until there are `size`."""
        return self.part(np.minimum(np.arange(size), len(self) - 1))

    def deliver(self, errors: NDArray[np.float32]) -> Iterator[Flight]:
        """Hand the cells' errors to their flights; yield each whose request is complete."""
        start = 0
        for block, offset, count in self.parts:
            flight = block.flight
            flight.errors[offset : offset + count] = errors[start : start + count]
            start += count
            flight.missing -= count
            if flight.missing == 0:
                yield flight


class Queue:
    """Blocks of one kind that wait, with their number of cells.

    `view_of_draw`, int64 [N], is the view that each draw sees; `joined` concatenates views.
    """

    def __init__(self, view_of_draw: Ints, joined: Callable[[list[Any]], Any] = torch.cat) -> None:
        self.view_of_draw, self.joined = view_of_draw, joined
        self.blocks: deque[Block] = deque()
        self.cells = 0

    def append(self, block: Block) -> None:
        """Append a block."""
        self.blocks.append(block)
        self.cells += len(block.draws)

    def cut(self, size: int) -> Batch:
        """Remove up to `size` cells from the front, at least one, and return them as a batch."""
        prompts, draws, parts = [], [], []
        while self.blocks and size:
            block = self.blocks[0]
            stop = min(block.start + size, len(block.draws))
            prompts.append(block.prompts[block.start : stop])
            draws.append(block.draws[block.start : stop])
            parts.append((block, block.offset + block.start, stop - block.start))
            size -= stop - block.start
            self.cells -= stop - block.start
            block.start = stop
            if stop == len(block.draws):
                self.blocks.popleft()
        flights = [block.flight for block, *_ in parts]
        views, draw = len(flights[0].views), np.concatenate(draws)
        part = np.repeat(np.arange(len(parts)), [count for *_, count in parts])
        cells = np.stack([np.concatenate(prompts), draw, part * views + self.view_of_draw[draw]])
        names = [flight.interview.decided.sample.sample_id for flight in flights]
        images = [name for name in names for _ in range(views)]
        return Batch(cells, self.joined([flight.views for flight in flights]), images, parts)


def filled_size(cells: int, full: int) -> int:
    """Return the size that a batch of so many cells, at most `full`, is filled to."""
    sizes = (-(-full // fraction) for fraction in BATCH_FRACTIONS)
    return next(size for size in sizes if size >= cells)
