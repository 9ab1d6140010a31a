"""Transfers between host and device that let the device work while the host continues."""

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Floats32, Ints
from bench.engine.trees import Tree, grown, leaves, rows, size
from bench.machine.libraries import Tensor, torch

P = ParamSpec("P")
T = TypeVar("T")


def inferring(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function, or a generator, that runs in torch's inference mode."""

    @wraps(function)
    def run(*arguments: P.args, **keywords: P.kwargs) -> T:
        result: T = torch.inference_mode()(function)(*arguments, **keywords)
        return result

    return run


def to_device(values: NDArray[Any] | Tensor, device: "torch.device") -> Tensor:
    """Return values of the host on the device; the host does not wait for a copy to a GPU."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # itself if it is pinned
    return tensor.to(device, non_blocking=device.type != "mps")  # mps does not order such copies


def fetch(values: Tensor) -> Callable[[], Floats32]:
    """Begin to copy float32 values to the host; the function returned waits for them."""
    if values.device.type != "cuda":
        return lambda: values.cpu().numpy()
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch gives it no types
    done.record()

    def wait() -> Floats32:
        done.synchronize()
        return host.numpy()

    return wait


def ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Yield `items` in order, computed by a thread that is at most `depth` items ahead.

    An exception of an item is raised here, in its place. The thread ends with the iterator.
    """
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        pending = deque(thread.submit(next, iterator, end) for _ in range(depth))
        try:
            while (item := pending.popleft().result()) is not end:
                pending.append(thread.submit(next, iterator, end))
                yield cast(T, item)
        finally:
            thread.shutdown(cancel_futures=True)


GPU_SHARE = 10  # a GPU holds a conditioning that takes at most a tenth of its memory


class Pool:
    """Conditioning of the prompts, on the device (`near`) or, if it is too large, on the host.

    Leaves whose paths are in `on_host` stay on the host.
    """

    def __init__(self, tree: Tree, device: "torch.device", on_host: Collection[str] = ()) -> None:
        self.device, self.near, self.on_host = device, device.type != "cuda", on_host
        if not self.near:
            memory = int(torch.cuda.get_device_properties(device).total_memory)
            self.near = size(tree) <= memory // GPU_SHARE
        self.tree = self.moved(tree) if self.near else tree

    def take(self, prompts: Ints, there: Tensor) -> Tree:
        """Return rows on the device of `prompts`; `there` are the same indices on the device."""
        if self.near:
            return rows(self.tree, there, torch.from_numpy(prompts))
        # A batch repeats few prompts; each is moved once.
        distinct, place = np.unique(prompts, return_inverse=True)
        moved = self.moved(rows(self.tree, torch.from_numpy(distinct)))
        return rows(moved, to_device(place, self.device), torch.from_numpy(place))

    def part(self, chosen: slice) -> Tree:
        """Return the rows of consecutive prompts on the device."""
        return self.moved(rows(self.tree, chosen))

    def moved(self, tree: Tree) -> Tree:
        """Return a tree with its leaves moved to the device, except those `on_host`."""
        moved = {
            path: leaf if path in self.on_host else to_device(leaf, self.device)
            for path, leaf in leaves(tree).items()
        }
        return grown(moved)
