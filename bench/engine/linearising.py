"""Linearisation: first-order errors of all prompts from one gradient per draw.

The error of prompt p is approximated by e(c_0) + <grad e(c_0), c_p - c_0>, where c_p is the
conditioning of the prompt and c_0 a mixture of all. Gradients are taken only with respect to the
conditioning. Floating-point leaves are mixed. Other leaves (masks, ids) must be the same for all
prompts, unless the model computes those of a mixture. A large conditioning is read in chunks.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np

from bench.contracts.strategy import Floats, Ints
from bench.engine.batching import Batch, ShrinkingBatches
from bench.engine.denoiser import with_gradients
from bench.engine.scoring import Cells, Evaluator
from bench.engine.transfer import Pool, inferring, to_device
from bench.engine.trees import MixRest, Tree, count, grown, joined, leaves, mapped, rows
from bench.errors import UserError
from bench.machine.libraries import Tensor, torch

Leaves = dict[str, Tensor]  # leaves of a conditioning by their paths
CHUNK_BYTES = 256 * 2**20  # of float32 offsets, at a time
CACHED_MIXTURES = 64  # a strategy may use other mixtures for each image


class Mixing:
    """Computes mixtures of the conditioning in `pool`, and first-order errors at them.

    `mix_rest` computes a mixture's leaves that are not floating-point; without it, they must be the
    same for all prompts. Raises UserError if they differ, or if no leaf is floating-point.
    """

    def __init__(self, pool: Pool, mix_rest: MixRest | None = None) -> None:
        self.pool, self.mix_rest = pool, mix_rest
        by_path = leaves(pool.tree)
        self.floating = [path for path, leaf in by_path.items() if leaf.is_floating_point()]
        self.rest = {path: leaf for path, leaf in by_path.items() if path not in self.floating}
        if not self.floating:
            raise UserError("The conditioning has no floating-point leaf: prompts cannot be mixed.")
        if mix_rest is None:
            for path, leaf in self.rest.items():
                if not (leaf == leaf[:1]).all():
                    raise UserError(
                        f"The prompts differ in the conditioning's {path!r}, which is not floating"
                        " and cannot be mixed; the model must compute a mixture's (mix_rest)."
                    )
        self.prompts = count(pool.tree)
        width = sum(by_path[path][0].numel() for path in self.floating)
        self._step = max(1, CHUNK_BYTES // (4 * width))  # prompts per chunk
        self._one_chunk = self._step >= self.prompts
        self._offsets: Leaves | None = None
        self._mixed: dict[bytes, Tree] = {}

    def mix(self, mixture: Floats) -> Tree:
        """Return sum_p mixture_p c_p, a conditioning of one row, in the dtypes of the prompts'."""
        weights = torch.from_numpy(np.asarray(mixture, np.float32))
        key = weights.numpy().tobytes()
        if key not in self._mixed:
            if len(self._mixed) >= CACHED_MIXTURES:
                self._mixed.clear()
            self._mixed[key] = self._mix(weights.to(self.pool.device))
        return self._mixed[key]

    def _mix(self, weights: Tensor) -> Tree:
        by_path, mixed = leaves(self.pool.tree), dict(self.centre)
        for start, offsets in self._chunks():
            for path, offset in offsets.items():
                mixed[path] = mixed[path] + weights[start : start + len(offset)] @ offset
        for path in self.floating:
            leaf = by_path[path]
            mixed[path] = mixed[path].reshape(1, *leaf.shape[1:]).to(leaf.dtype)
        if not self.rest:
            return grown(mixed)
        if self.mix_rest is None:
            rest = {path: leaf[:1] for path, leaf in self.rest.items()}
        else:
            rest = leaves(self.mix_rest(grown(self.rest), weights))
        return grown(mixed | leaves(self.pool.moved(grown(rest))))

    def first_order(self, errors: Tensor, slopes: Leaves, references: Leaves) -> Tensor:
        """Return e(c_0) + <g, c_p − c_0> for every prompt p, float32 [B, P].

        `errors` is e(c_0); `slopes` and `references` are g and c_0 of each floating leaf, [B, …].
        """
        flat = {path: _flat(slopes[path]) for path in self.floating}
        at_centre = errors
        for path, slope in flat.items():
            away = _flat(references[path]) - self.centre[path]
            at_centre = at_centre - (slope * away).sum(dim=1)
        parts = [
            sum(flat[path] @ offset.T for path, offset in offsets.items())
            for _, offsets in self._chunks()
        ]
        return at_centre[:, None] + torch.cat(parts, dim=1)  # type: ignore[arg-type]  # sum() of one or more

    @cached_property
    def centre(self) -> Leaves:
        """The prompts' mean of each floating leaf, float32 [its elements].

        Prompts are kept as offsets from this centre: the part that all prompts share (such as the
        start token's embedding) is large and would cost digits.
        """
        centre: Leaves = {}
        for _, part in self._parts():
            for path, flat in part.items():
                share = flat.mean(dim=0) if self._one_chunk else flat.sum(dim=0) / self.prompts
                centre[path] = centre[path] + share if path in centre else share
        return centre

    def _chunks(self) -> Iterator[tuple[int, Leaves]]:
        """Yield the first prompt of each chunk, and c_p − centre of each floating leaf."""
        if self._offsets is not None:
            yield 0, self._offsets
            return
        for start, part in self._parts():
            offsets = {path: flat - self.centre[path] for path, flat in part.items()}
            if self._one_chunk:
                self._offsets = offsets
            yield start, offsets

    def _parts(self) -> Iterator[tuple[int, Leaves]]:
        """Yield the first of each n prompts, and float32 [n, elements] for each floating leaf."""
        for start in range(0, self.prompts, self._step):
            chunk = leaves(self.pool.part(slice(start, start + self._step)))
            yield start, {path: _flat(chunk[path]) for path in self.floating}


def _flat(leaf: Tensor) -> Tensor:
    """Return a leaf as float32 [n, elements], also if it has a single number per prompt."""
    return leaf.float().reshape(len(leaf), -1)


SHARE = 4  # a batch of linearisations is smaller by this factor: similar time, less memory


class Lineariser(ShrinkingBatches):
    """Computes first-order errors of all prompts, for batches of (image, draw, mixture).

    `cells` is the batch size of the engine; batches of linearisations are smaller by the factor
    SHARE. `cost`, in evaluations per linearised draw, rises by one once activations are recomputed
    to save memory.
    """

    def __init__(self, evaluator: Evaluator, cells: int, cost: float) -> None:
        super().__init__(max(1, cells // SHARE))
        self.evaluator, self.backbone = evaluator, evaluator.backbone
        self.cost = cost
        self._saving = False

    @cached_property
    def mixing(self) -> Mixing:
        """The mixtures, made on demand: not every conditioning can be mixed."""
        return Mixing(self.evaluator.pool, self.backbone.mixes_rest())

    def first_order(self, batch: Batch) -> Tensor:
        """Return the first-order errors of a batch, each draw at its block's mixture, [B, P]."""
        mixtures = [block.mixture for block in batch.parts if block.mixture is not None]
        mixed = joined([self.mixing.mix(mixture) for mixture in mixtures])
        row_of_cell = np.repeat(np.arange(len(mixtures)), [len(block) for block in batch.parts])

        def values(chosen: Ints) -> Tensor:
            row = row_of_cell[chosen]
            references = rows(mixed, to_device(row, self.backbone.device), torch.from_numpy(row))
            return self._values(self.evaluator.cells(batch.part(chosen)), references)

        return self.in_batches(np.arange(len(batch)), values)

    @inferring
    def rehearse(self, size: int) -> None:
        """Linearise a batch of `size` made-up draws and wait for it; OutOfMemoryError passes."""
        device = self.backbone.device
        draw = torch.zeros(size, dtype=torch.int64, device=device)
        latents = torch.zeros(size, *self.backbone.latent_shape, device=device)
        cells = Cells(draw, draw, latents, torch.zeros_like(latents), self.backbone.one_level)
        first = self.mixing.mix(np.eye(1, self.mixing.prompts)[0])
        references = mapped(lambda leaf: leaf.expand(size, *leaf.shape[1:]), first)
        self._values(cells, references).cpu()

    def _values(self, cells: Cells, references: Tree) -> Tensor:
        """Return first-order errors; if one draw exceeds the memory, the backbone keeps less."""
        try:
            return self._first_order(cells, references)
        except torch.OutOfMemoryError:
            if len(cells.draw) > 1 or self._saving or not self.backbone.save_memory():
                raise
        self._saving = True
        self.cost += 1
        torch.cuda.empty_cache()
        return self._first_order(cells, references)

    def _first_order(self, cells: Cells, references: Tree) -> Tensor:
        mixing = self.mixing
        # The engine works in inference mode, whose tensors cannot be kept for a backward pass.
        with with_gradients(self.backbone):
            conditioning = mapped(torch.clone, references)
            inputs = [leaves(conditioning)[path].requires_grad_() for path in mixing.floating]
            kept = replace(cells, latents=cells.latents.clone(), eps=cells.eps.clone())
            errors = self.evaluator.errors_at(kept, conditioning)
            # The gradient of the sum over the latent: the mean's would vanish in half precision.
            elements = cells.latents[0].numel()
            with self.backbone.guard("the gradient to its conditioning", torch.OutOfMemoryError):
                gradients = torch.autograd.grad(
                    errors.sum() * elements, inputs, allow_unused=True, materialize_grads=True
                )
        slopes = {
            path: gradient.float() / elements
            for path, gradient in zip(mixing.floating, gradients, strict=True)
        }
        return mixing.first_order(errors.detach(), slopes, leaves(references))
