"""A training loop that can be interrupted at any time and resumed by the same command."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

CHECKPOINT_SECONDS = 60.0
LOG_STEPS = 50  # interval between log lines with losses


class Phase:
    """A training phase: its steps, its checkpoint, and its lines in ``training.jsonl``.

    Random numbers in a step must depend on its number alone, so that a resumed training equals an
    uninterrupted one; torch's generator is seeded before each step. `parts` are stored in the
    checkpoint: modules and the `optimiser`. `peak` is the highest learning rate.
    """

    def __init__(
        self, name: str, total: int, peak: float, folder: Path, seed: int, **parts: Any
    ) -> None:
        self.name, self.total, self.peak = name, total, peak
        self.folder, self.seed, self.parts = folder, seed, parts
        self.step = 0

    def steps(self) -> Iterator[int]:
        """Yield the numbers of the remaining steps.

        Restores the parts in place from the checkpoint if there is one, and saves them about once
        per minute and after the last step. Progress is shown on stderr.
        """
        path = self.folder / f"{self.name}.pt"
        first = 0
        if path.exists():
            saved = torch.load(path, weights_only=True, map_location="cpu")
            first = saved["step"]
            for key, part in self.parts.items():
                part.load_state_dict(saved[key])
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        began = saved_at = time.monotonic()
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task(self.name, total=self.total, completed=first)
            for step in range(first, self.total):
                self.step, done = step, step + 1
                torch.manual_seed(self.seed * 1_000_003 + step)
                yield step
                progress.advance(task)
                if done == self.total or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                    state = {key: part.state_dict() for key, part in self.parts.items()}
                    torch.save({**state, "step": done}, path.with_suffix(".tmp"))
                    path.with_suffix(".tmp").replace(path)
                    saved_at = time.monotonic()
                    if not console.is_terminal:
                        left = (self.total - done) / (done - first)
                        minutes = (saved_at - began) * left / 60
                        console.print(
                            f"{self.name}: {done} of {self.total} steps, {minutes:.1f} min left",
                            highlight=False,
                        )

    def descend(self, loss: torch.Tensor, max_norm: float = inf) -> None:
        """Update the weights by one step of the optimiser, with the gradient norm clipped."""
        optimiser = self.parts["optimiser"]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.total, self.peak)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        torch.nn.utils.clip_grad_norm_(weights, max_norm)
        optimiser.step()

    def log(self, **values: float) -> None:
        """Append the values of this step as a line to ``training.jsonl``."""
        line = {"phase": self.name, "step": self.step + 1, **values}
        with (self.folder / "training.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def log_losses(self, **losses: torch.Tensor) -> None:
        """Append the losses of every 50th step to ``training.jsonl``."""
        if (self.step + 1) % LOG_STEPS == 0:
            self.log(**{name: loss.item() for name, loss in losses.items()})


def learning_rate(step: int, total: int, peak: float, warm_up: int = 100) -> float:
    """Return the learning rate: a linear warm-up, then cosine annealing to 1 % of the peak."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, total - warm_up)
    return peak * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)
