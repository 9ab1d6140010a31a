"""A training loop that can be stopped at any time; the same command resumes it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

CHECKPOINT_SECONDS = 60.0


class Stateful(Protocol):
    """A module or an optimiser."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Restore it."""


def resumable(name: str, total: int, folder: Path, parts: dict[str, Stateful]) -> Iterator[int]:
    """Yield the steps that are left of `total`, restoring `parts` first and saving them as it goes.

    Whatever is random in a step must be seeded by the step, so that a resumed run repeats an
    uninterrupted one. Progress goes to stderr: a bar on a terminal, else a line a checkpoint.
    """
    path = folder / f"{name}.pt"
    first = 0
    if path.exists():
        saved = torch.load(path, weights_only=True, map_location="cpu")
        first = saved["step"]
        for key, part in parts.items():
            part.load_state_dict(saved[key])
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    began = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total, completed=first)
        saved_at = time.monotonic()
        for step in range(first, total):
            yield step
            progress.advance(task)
            if step == total - 1 or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                state = {key: part.state_dict() for key, part in parts.items()}
                torch.save({**state, "step": step + 1}, path.with_suffix(".tmp"))
                path.with_suffix(".tmp").replace(path)
                saved_at = time.monotonic()
                if not console.is_terminal:
                    done, left = step + 1 - first, total - step - 1
                    minutes = (saved_at - began) / done * left / 60
                    console.print(
                        f"{name}: {step + 1} of {total} steps, {minutes:.1f} min left",
                        highlight=False,
                    )


def learning_rate(step: int, total: int, peak: float, warm_up: int = 100) -> float:
    """Linear warm-up, then a half cosine down to a hundredth of the peak."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    share = (step - warm_up) / max(1, total - warm_up)
    return peak * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)


def descend(
    optimiser: torch.optim.Optimizer, loss: torch.Tensor, rate: float, longest: float = inf
) -> None:
    """Step down the loss at a learning rate, with a gradient of this length at most, in place."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    torch.autograd.backward(loss)
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    torch.nn.utils.clip_grad_norm_(weights, longest)
    optimiser.step()


def log(folder: Path, **values: object) -> None:
    """Append one line to ``training.jsonl``."""
    with (folder / "training.jsonl").open("a") as file:
        file.write(json.dumps(values) + "\n")
