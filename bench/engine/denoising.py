"""Engine for denoisers: latents of images, and queues for evaluations and linearisations."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice

import numpy as np
from PIL.Image import Image
from typing_extensions import override

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.executor import ModelFacts
from bench.contracts.strategy import Evaluate, Ints, Linearise, Problem
from bench.engine import trees
from bench.engine.asking import CheckedStrategy
from bench.engine.batching import Batch, Block, CellEngine, ImageInProgress, Queue, ShrinkingBatches
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.images import CheckedViews, Opened, name_of, open_images, squash
from bench.engine.linearising import Lineariser
from bench.engine.scoring import Evaluator, Scoring, sampled
from bench.engine.transfer import ahead, fetch, inferring
from bench.engine.trees import Tree
from bench.inputs.prompts import Columns
from bench.machine.libraries import Tensor, torch

ENCODE_BATCH = 8  # images encoded by the VAE at a time
# Groups of images encoded before the network, which is much larger, takes the VAE's place again.
OFFLOADED_GROUPS = 8

THREADLESS = ("cpu",)  # devices where a thread that opens images only slows the model down


class Latents(ShrinkingBatches):
    """Encodes the images of samples to latents, in batches of at most ENCODE_BATCH pictures."""

    def __init__(
        self,
        backbone: CheckedDenoiser,
        seed: int = 0,
        sample: bool = False,  # whether the latent is a sample of the posterior, not its mean
        squashed: bool = False,  # if not, the backbone cuts out the middle of an image
        views: CheckedViews | None = None,  # views of each image; None: the image alone
    ) -> None:
        super().__init__(ENCODE_BATCH)
        self.backbone, self.seed, self.squashed = backbone, seed, squashed
        self.views = views
        self.sampled = sample or (views is not None and views.of_latents)

    def of(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, list[Tensor] | str]]:
        """Yield samples with the latents of each image, float32 [V, C, H, W], or an error."""
        groups = self._prepared(open_images(samples, ENCODE_BATCH, self._views))
        if self.backbone.device.type not in THREADLESS:
            groups = ahead(groups, depth=2)
        at_once = OFFLOADED_GROUPS if self.backbone.offloads else 1
        while together := list(islice(groups, at_once)):
            # All are encoded before the first is scored, which brings the network back.
            encodings = [[self._encoded(batch) for batch in batches] for _, batches in together]
            for (group, _), encoded_batches in zip(together, encodings, strict=True):
                encoded = chain.from_iterable(encoded_batches)  # one row per view
                for sample, opened in group:
                    if isinstance(opened, str):
                        yield sample, opened
                        continue
                    of_images = [torch.stack(list(islice(encoded, len(v)))) for v in opened]
                    names = [name_of(sample, number) for number in range(len(of_images))]
                    yield sample, list(map(self._latents, of_images, names))

    def _prepared(
        self, groups: Iterable[list[Opened]]
    ) -> Iterator[tuple[list[Opened], list[Sequence[Image] | Tensor]]]:
        """Yield groups with their pictures in batches, preprocessed by the backbone if it can."""
        for group in groups:
            readable = [opened for _, opened in group if not isinstance(opened, str)]
            pictures = [picture for opened in readable for views in opened for picture in views]
            starts = range(0, len(pictures), ENCODE_BATCH)
            batches = (pictures[start : start + ENCODE_BATCH] for start in starts)
            yield group, [self.backbone.preprocess(batch) for batch in batches]

    def _views(self, image: Image, name: str) -> list[Image]:
        views = [image] if self.views is None else self.views.of(image, self.seed, name)
        side = self.backbone.resolution
        return [squash(view, side) for view in views] if self.squashed else views

    def _latents(self, encoded: Tensor, name: str) -> Tensor:
        """Return float32 [V, C, H, W] of one image from its encoded views."""
        encoded = encoded.float()
        if not self.sampled:
            return encoded
        if self.views is not None and self.views.of_latents:
            encoded = encoded.expand(self.views.count, *encoded.shape[1:])
        names = [f"{name}\0view {view}" if view else name for view in range(len(encoded))]
        views = zip(encoded, names, strict=True)
        return torch.stack([sampled(posterior, self.seed, view) for posterior, view in views])

    def _encoded(self, images: Sequence[Image] | Tensor) -> Tensor:
        """Return one row per image."""
        encode = self.backbone.posterior if self.sampled else self.backbone.encode_images
        rows = np.arange(len(images))

        def work(part: Ints) -> Tensor:
            if np.array_equal(part, rows):
                return encode(images)
            if isinstance(images, torch.Tensor):
                return encode(images[torch.from_numpy(part)])
            return encode([images[row] for row in part])

        return self.in_batches(rows, work)


class DenoisingEngine(CellEngine):
    """Scores images with a denoiser.

    Batches have one size. If fewer cells wait and nothing else can be done, as at the end of a run,
    a batch has a half, a quarter or an eighth of that size, and is padded by repeating its last
    cell. On a GPU, the next batch is launched before the errors of the previous one are read.

    If errors need the null prompt, it is the last row of the conditioning, and its cell precedes
    the cells of each draw of a request. The `Evaluator` keeps the last null prediction for the next
    batch.
    """

    def __init__(
        self,
        backbone: CheckedDenoiser,
        conditioning: Tree,  # embedded prompts, one row each, on the host
        problem: Problem,  # problem of an image; its prompts are columns
        columns: Columns,  # prompts behind each column
        scoring: Scoring,  # definition of an error
        batch_size: int,  # cells per batch; halved for good when memory runs out
        latents: Latents | None = None,  # encodes images; None: to the mean of the posterior
        view_of_draw: Ints | None = None,  # int64 [N], view that each draw sees; None: one view
        subtracts_null: bool = False,
    ) -> None:
        super().__init__(problem, columns, batch_size, view_of_draw)
        self.backbone, self.columns = backbone, columns
        self.device, self.model = backbone.device.type, ModelFacts(problem, backbone.levels)
        self.evaluator = Evaluator(backbone, conditioning, scoring)
        self.latents = latents or Latents(backbone)
        self.subtracts_null = subtracts_null
        self.with_nulls = subtracts_null or scoring.guidance is not None
        self.prompts = trees.count(conditioning) - self.with_nulls
        self.lineariser = Lineariser(self.evaluator, batch_size, problem.linearisation_cost)
        # Cost so far, in evaluations; cells that only fill a batch are not counted.
        self.evaluated = 0.0
        self.depth = 2 if backbone.device.type == "cuda" else 1
        self.one_shape = False  # whether all batches are filled up, for a compiled network

    @override
    def load_images(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, list[Tensor] | str]]:
        return self.latents.of(samples)

    @override
    def queues(self) -> list[Queue]:
        level, key = self.level_of_draw, self.key_of_prompt
        if self.evaluator.scoring.guidance is not None:
            key = np.zeros_like(key)  # guidance needs all cells of a draw in order
        keys, view_of_draw = int(key.max()) + 1, self.view_of_draw

        def by_level_and_key(prompts: Ints, draws: Ints) -> Ints:
            return np.asarray(level[draws] * keys + key[prompts])

        return [
            Queue(self.lineariser, self._linearise, view_of_draw, lambda _, draws: level[draws]),
            Queue(self, self._evaluate, view_of_draw, by_level_and_key),
        ]

    @cached_property
    def level_of_draw(self) -> Ints:
        """Number of each draw's level, int64 [N]; all 0 if a batch may have several levels."""
        rows = self.problem.timesteps
        return np.unique(rows, return_inverse=True)[1] if self.backbone.one_level else 0 * rows

    @cached_property
    def key_of_prompt(self) -> Ints:
        """Number of each prompt's key, int64 [P]; the prompts of a batch have the same key."""
        return self.backbone.batch_keys(self.evaluator.prompts.tree)

    @inferring
    @override
    def score(self, samples: Iterable[Sample], strategy: CheckedStrategy) -> Iterator[Decided]:
        yield from super().score(samples, strategy)

    @override
    def filled(self, count: int) -> int:
        return self.batch_size if self.one_shape else super().filled(count)

    def warm_up(self) -> None:
        """Evaluate a batch of each shape that a run has."""
        for prompt in np.unique(self.key_of_prompt, return_index=True)[1]:
            for _ in range(2):  # the second call records a CUDA graph
                self.rehearse(self.batch_size, prompt)

    @inferring
    def rehearse(self, size: int, prompt: int = -1) -> None:
        """Evaluate one batch of `size` made-up cells and wait for it; OutOfMemoryError passes.

        The cells have the level of the first draw and the key of `prompt`.
        """
        cell = np.arange(size)
        level, key = self.level_of_draw, self.key_of_prompt
        draws, prompts = np.flatnonzero(level == level[0]), np.flatnonzero(key == key[prompt])[::-1]
        cells = [
            prompts[cell % len(prompts)],
            draws[cell // len(prompts) % len(draws)],
            np.zeros_like(cell),
        ]
        latents = torch.zeros(1, *self.backbone.latent_shape, device=self.backbone.device)
        fetch(self.evaluator.errors(Batch(np.stack(cells), latents, [""])))()

    @override
    def blocks(self, image: ImageInProgress, request: Evaluate | Linearise) -> Iterator[Block]:
        if isinstance(request, Linearise):
            image.expect(request, len(request.draws), self.prompts)
            mixture = self.columns.mixture(request.mixture)
            prompts, places = np.full(len(request.draws), -1), np.arange(len(request.draws))
            yield Block(image, prompts, request.draws, places, mixture)
        elif not self.with_nulls:
            yield from super().blocks(image, request)
        else:
            by_draw = image.sample.prompted.cells(request)[0].reshape(len(request.draws), -1)
            prompts = np.insert(by_draw, 0, self.prompts, axis=1).ravel()
            image.expect(request, len(prompts))
            draws = np.repeat(request.draws, by_draw.shape[1] + 1)
            yield Block(image, prompts, draws, np.arange(len(draws)))

    @override
    def tell(self, image: ImageInProgress) -> None:
        request, decided = image.request, image.session.decided
        if isinstance(request, Linearise):
            values = self.columns.first_order(image.errors)
            image.session.tell(request, values, self.lineariser.cost)
        elif not self.with_nulls:
            super().tell(image)
        else:
            by_draw = image.errors.reshape(len(request.draws), -1)
            columns = image.sample.prompted.columns
            values = columns.errors(by_draw[:, 1:], len(request.prompts))
            if self.subtracts_null:
                values = values - by_draw[:, 0]
            image.session.tell(request, values)
        if decided.error is not None and not np.isfinite(image.errors).all():
            decided.error += self.backbone.advice

    def _evaluate(self, batch: Batch) -> Tensor:
        """Return the batch's errors, float32 [B]."""
        cells = np.arange(len(batch))
        errors = self.in_batches(cells, lambda part: self.evaluator.errors(batch.part(part)))
        self.evaluated += len(batch)
        return errors

    def _linearise(self, batch: Batch) -> Tensor:
        """Return first-order errors, float32 [B, P]."""
        errors = self.lineariser.first_order(batch)
        self.evaluated += len(batch) * self.lineariser.cost
        return errors
