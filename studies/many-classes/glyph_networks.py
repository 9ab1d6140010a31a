"""The trained denoisers: one small pixel network, conditioned in three ways, and its training.

`table` looks a class up in a table. `pooled` reads its Unicode name and adds one vector, `cross`
reads it by cross-attention alone. The networks see x_t and predict x_0; the target is the velocity.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from glyphs import Glyphs, photograph
from numpy.typing import NDArray
from torch import Tensor, nn

Kind = Literal["table", "pooled", "cross"]
WIDTH, BLOCKS, TEXT, WORDS, PARTS = 512, 3, 128, 10, 16
VIEWS = 20  # training pictures per class; each gets new noise whenever it is used
TOGETHER = 4  # pictures of a class in a batch, for which its name is read once
LEVELS = 1000
# Angles of the noise levels: alpha is their cosine, sigma their sine.
ANGLES = np.linspace(0.2, 0.5 * np.pi - 0.02, LEVELS)


class GlyphNet(nn.Module):
    """Residual blocks over all 256 pixels at once, with time and conditioning in each of them."""

    def __init__(self, kind: Kind, n: int) -> None:
        """`n` is the number of classes of a table, or of words."""
        super().__init__()
        self.kind = kind
        self.embedding = nn.Embedding(n, TEXT)
        if kind != "table":
            self.place = nn.Parameter(torch.randn(WORDS, TEXT) * 0.02)
            self.reader = nn.TransformerEncoderLayer(
                TEXT, 4, 2 * TEXT, dropout=0.0, batch_first=True, norm_first=True
            )
        self.time = nn.Sequential(nn.Linear(32, WIDTH), nn.SiLU())
        self.enter, self.leave = nn.Linear(256, WIDTH), nn.Linear(WIDTH, 256)
        self.blocks = nn.ModuleList(Block(kind) for _ in range(BLOCKS))

    def encode(self, tokens: Tensor) -> Tensor:
        """Return the conditioning of classes [n] or names [n, 10]: [n, 128] or [n, 10, 128]."""
        embedded: Tensor = self.embedding(tokens)
        if self.kind == "table":
            return embedded
        words: Tensor = self.reader(embedded + self.place)
        return words if self.kind == "cross" else words.mean(dim=1)

    def forward(self, x_t: Tensor, angle: Tensor, conditioning: Tensor) -> Tensor:
        """Return the velocity, [B, 256], at angles [B].

        A single picture and angle, [1, 256] and [1], serve all rows of the conditioning; what they
        alone determine is computed once.
        """
        waves = angle[:, None] * torch.arange(1, 17)
        time = self.time(torch.cat([waves.sin(), waves.cos()], dim=1))
        h = self.enter(x_t)
        for block in self.blocks:
            h = block(h, time, conditioning)
        x_0: Tensor = self.leave(h)
        return (angle.cos()[:, None] * x_t - x_0) / angle.sin()[:, None]


class Block(nn.Module):
    """One residual block; with `cross`, each of 16 parts of its state attends to the words."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.norm, self.time = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        part = WIDTH // PARTS
        if kind == "cross":
            self.query, self.keys = nn.Linear(WIDTH, WIDTH), nn.Linear(TEXT, 2 * part)
        else:
            self.condition = nn.Linear(TEXT, WIDTH)

    def forward(self, h: Tensor, time: Tensor, conditioning: Tensor) -> Tensor:
        """Return the state [B, 512] after the block."""
        normed = self.norm(h)
        inner = self.up(normed) + self.time(time)
        if conditioning.dim() == 2:
            inner = inner + self.condition(conditioning)
        else:
            query = self.query(normed).unflatten(1, (PARTS, -1))
            key, value = self.keys(conditioning).chunk(2, dim=2)
            fit = query @ key.transpose(1, 2) / query.shape[2] ** 0.5
            inner = inner + (fit.softmax(dim=2) @ value).flatten(1)
        change: Tensor = self.down(nn.functional.silu(inner))
        return h + change


@dataclass(frozen=True)
class Trained:
    """A trained network and the tokens of each class; `held_out` are classes it never saw."""

    network: GlyphNet
    tokens: Tensor
    held_out: NDArray[np.bool_]

    def conditioning(self) -> Tensor:
        """Return what the network is told of each class, one row each."""
        with torch.no_grad():
            return self.network.encode(self.tokens)


def tokens_of(names: Sequence[str]) -> Tensor:
    """Return the words of names as numbers, int64 [n, 10]; 0 is no word."""
    words = sorted({word for name in names for word in name.split()})
    number = {word: row for row, word in enumerate(words, start=1)}
    rows = [[number[word] for word in name.split()[:WORDS]] for name in names]
    return torch.tensor([row + [0] * (WORDS - len(row)) for row in rows])


def composed(names: Sequence[str], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which composed names ("E WITH ACUTE") are held out, bool [n]: a fifth of them.

    Of each, every word is in a name that is not held out.
    """
    out = np.zeros(len(names), dtype=bool)
    words = [set(name.split()) for name in names]
    for row in rng.permutation([k for k, name in enumerate(names) if " WITH " in name]):
        others = set().union(*(w for k, w in enumerate(words) if not out[k] and k != row))
        out[row] = words[row] <= others and out.sum() < sum(" WITH " in n for n in names) // 5
    return out


def trained(kind: Kind, glyphs: Glyphs, folder: Path, steps: int) -> Trained:
    """Return the network after so many steps, from its checkpoint in `folder` or trained now."""
    n = len(glyphs)
    text = kind != "table"
    tokens = tokens_of(glyphs.names) if text else torch.arange(n)
    held_out = composed(glyphs.names, np.random.default_rng(0)) & text
    torch.manual_seed(0)
    network = GlyphNet(kind, int(tokens.max()) + 1)
    file = folder / f"{kind}-{n}-{steps}.pt"
    if not file.exists():
        train(network, tokens, glyphs, ~held_out, file, steps)
    network.load_state_dict(torch.load(file, weights_only=True)["average"])
    return Trained(network.eval().requires_grad_(False), tokens, held_out)


def train(
    network: GlyphNet,
    tokens: Tensor,
    glyphs: Glyphs,
    seen: NDArray[np.bool_],
    file: Path,
    steps: int,
    batch: int = 512,
) -> None:
    """Train a network to denoise pictures of the classes `seen`; a stopped training is resumed."""
    classes = np.repeat(np.flatnonzero(seen), VIEWS)
    rng = np.random.default_rng(1)
    parts = [
        photograph(glyphs.drawings, part, rng)
        for part in np.array_split(classes, len(classes) // 500)
    ]
    pictures = torch.cat(parts)
    place = VIEWS * (np.cumsum(seen) - 1)  # the first picture of a class
    ema = torch.optim.swa_utils.get_ema_multi_avg_fn(0.998)  # type: ignore[no-untyped-call]
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=ema)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    stopped, start = file.with_suffix(".part"), 0
    if stopped.exists():
        state = torch.load(stopped, weights_only=True)
        start = state["step"]
        network.load_state_dict(state["network"])
        average.load_state_dict(state["averages"])
        optimizer.load_state_dict(state["optimizer"])
    began = time.process_time()
    for step in range(start, steps):
        torch.manual_seed(step)
        shown = np.flatnonzero(seen)[torch.randint(int(seen.sum()), (batch // TOGETHER,))]
        rows = place[shown][:, None] + torch.randint(VIEWS, (batch // TOGETHER, TOGETHER)).numpy()
        angle = torch.tensor(ANGLES, dtype=torch.float32)[torch.randint(LEVELS, (batch,))]
        x_0, eps = pictures[rows.ravel()], torch.randn(batch, 256)
        alpha, sigma = angle.cos()[:, None], angle.sin()[:, None]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            told = network.encode(tokens[shown]).repeat_interleave(TOGETHER, dim=0)
            velocity = network(alpha * x_0 + sigma * eps, angle, told)
        loss = (velocity.float() - alpha * eps + sigma * x_0) ** 2
        for group in optimizer.param_groups:
            rise, fall = min(1.0, (step + 1) / 200), 0.5 + 0.5 * np.cos(np.pi * step / steps)
            group["lr"] = float(2e-3 * rise * (0.01 + fall))
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        average.update_parameters(network)
        if (step + 1) % 500 == 0:
            used = time.process_time() - began
            print(
                f"{network.kind}: step {step + 1}, loss {loss.mean():.4f}, {used:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            torch.save(
                {
                    "step": step + 1,
                    "network": network.state_dict(),
                    "averages": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                },
                stopped,
            )
    torch.save({"average": average.module.state_dict()}, file)
    stopped.unlink(missing_ok=True)
