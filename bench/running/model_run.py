"""A run that is scored by a model, and the checks before it is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bench.contracts.dataset import Sample
from bench.contracts.decision import Engine
from bench.contracts.strategy import Floats, Ints, Problem
from bench.discovery import backbones
from bench.errors import UserError, warn_user
from bench.inputs.survey import CHECKING, reading
from bench.running.executors.protocol import Executable
from bench.running.prepared import Prepared, run_samples
from bench.running.scorers import kind_of, open_engine

if TYPE_CHECKING:
    from bench.engine.denoising import DenoisingEngine
    from bench.running.scorers.kind import CheckedBackbone


CELLS = 64  # number of cells compared with float32
PROMPTS = 8  # largest number of prompts among them
MAX_RELATIVE_ERROR = 0.2  # RMS error of paired differences / their standard deviation


def check(prepared: Prepared) -> None:
    """Validate a run before it is scored; imports the backbone's class but reads no tensor.

    Raises UserError if weights are absent, a prompt has too many tokens or settings do not fit.
    """
    if prepared.absent:
        raise UserError(prepared.absent[0])
    prompts, spec, strategy = prepared.prompts, prepared.backbone, prepared.strategy
    backbones.check_weights(
        spec, prepared.weights, dtype=prepared.dtype, **prepared.backbone_parameters
    )
    kind_of(prepared).check(prepared)
    if (counted := token_counts(prepared)) is not None:
        counts, limit = counted
        for source, text, n in zip(prompts.sources, prompts.texts, counts, strict=True):
            if n > limit:
                raise UserError(
                    f"{source}: the prompt has {n} tokens and would be cut at {limit}: {text!r}."
                )
    if strategy.linearises and not backbones.can_linearise(spec):
        raise UserError(
            f"Strategy {prepared.decider.spec.name!r} needs gradients with respect to the text"
            f" conditioning, which backbone {prepared.backbone_name!r} does not offer. `race` needs"
            " no gradients."
        )
    strategy.check(problems(prepared)[-1][0])


def problems(prepared: Prepared) -> list[tuple[Problem, int]]:
    """Return the problems that the strategy solves, each with its number of images.

    There is one, or one per shape of items, or the smallest and the largest with
    `--candidates-from`; they are sorted by the number of prompts. Draws have no noise levels yet,
    but costs are those of the run.
    """
    split, config, kind = prepared.split, prepared.config, kind_of(prepared)

    def problem(classes: Ints) -> Problem:
        return kind.problem(prepared, kind.columns(prepared, classes))

    if split is not None and split.items is not None:
        shapes = sorted({(texts, images) for images, texts in split.items.shapes})
        return [(problem(np.arange(texts)), images) for texts, images in shapes]
    classes = np.array(prepared.prompts.class_of_prompt)
    if not config.candidates_from:
        return [(problem(classes), 1)]
    by_size = np.argsort(np.bincount(classes), kind="stable")
    few, many = (
        classes[np.isin(classes, chosen)]
        for chosen in (by_size[: config.top], by_size[-config.top :])
    )
    sizes = [few] if len(few) == len(many) else [few, many]
    return [(problem(np.unique(shortlist, return_inverse=True)[1]), 1) for shortlist in sizes]


def token_counts(prepared: Prepared) -> tuple[list[int], int] | None:
    """Return the tokens per prompt and the limit; None if the backbone counts no tokens."""
    return backbones.count_tokens(prepared.backbone, prepared.weights, prepared.prompts.texts)


def check_precision(prepared: Prepared, engine: Engine) -> str | None:
    """Return a warning if 64 cells of a run in half precision differ too much from float32.

    Decisions rest on the difference between two prompts on one draw. So the root-mean-square error
    of these differences is compared with their standard deviation over prompts and draws. The
    network is loaded once more, in float32. Returns None without a check if the engine has no
    cells, there is a single prompt, or items have texts of their own.
    """
    import torch

    from bench.engine.denoising import DenoisingEngine

    texts, split = prepared.prompts.texts, prepared.split
    if not isinstance(engine, DenoisingEngine) or len(texts) < 2 or split is None or split.items:
        return None
    prompts = _spread(min(PROMPTS, len(texts)), len(texts))
    draws = len(engine.problem.timesteps)
    chosen = _spread(min(draws, CELLS // len(prompts)), draws)
    rounded = _differences(engine, prepared, prompts, chosen)
    probed = replace(
        prepared.prompts,
        texts=tuple(texts[p] for p in prompts),
        sources=tuple(prepared.prompts.sources[p] for p in prompts),
        class_of_prompt=tuple(range(len(prompts))),
        parents=None,
    )
    half = prepared.dtype
    config = prepared.config.model_copy(update={"batch_size": PROMPTS, "compile": False})
    exactly = replace(
        prepared, config=config, dtype="float32", checks_dtype=False, prompts=probed, loaded=None
    )
    try:
        other = open_engine(exactly)
        assert isinstance(other, DenoisingEngine)
        exact = _differences(other, prepared, np.arange(len(prompts)), chosen)
    except torch.OutOfMemoryError:
        return (
            f"--dtype auto chose {half}. Its accuracy was not checked, because there is no memory"
            " for a second network in float32."
        )
    error, spread = float(np.sqrt(((rounded - exact) ** 2).mean())), float(exact.std())
    if error <= MAX_RELATIVE_ERROR * spread:
        return None
    return (
        f"--dtype auto chose {half}, in which the difference between two prompts on a draw has an"
        f" error of {error:.2g} (root mean square), more than a fifth of its standard deviation"
        f" {spread:.2g} ({rounded.size} differences of one image). Decisions may differ from those"
        " in float32; --dtype float32 is safe."
    )


def _spread(count: int, of: int) -> Ints:
    """Return int64 [count], evenly spaced indices below `of`."""
    return np.arange(count) * of // count


def _differences(engine: DenoisingEngine, prepared: Prepared, prompts: Ints, draws: Ints) -> Floats:
    """Return float64 [P - 1, N]: errors of the first image, minus those of the first prompt."""
    import torch

    from bench.engine.batching import Batch
    from bench.engine.transfer import fetch
    from bench.inputs.pixels import decode

    sample = next(run_samples(prepared, prepared.sample_ids[:1]))
    with torch.inference_mode():
        latents = engine.backbone.encode_images([decode(sample.image)]).float()
        rows = []
        for prompt in prompts:
            cells = np.stack([np.full_like(draws, prompt), draws, np.zeros_like(draws)])
            batch = Batch(cells, latents, [sample.sample_id])
            rows.append(fetch(engine.evaluator.errors(batch))())
    errors = np.stack(rows).astype(np.float64)
    return np.asarray(errors[1:] - errors[0])


class ModelRun(Executable):
    """A run that is scored by a model.

    When scoring begins, `shared_backbone` returns a backbone that runs share, or None for an own.
    """

    def __init__(
        self,
        prepared: Prepared,
        shared_backbone: Callable[[], CheckedBackbone | None] = lambda: None,
    ) -> None:
        config, sweep = prepared.config, prepared.sweep
        super().__init__(
            prepared.manifest,
            prepared.strategy,
            prepared.folder,
            prepared.started,
            config.fresh,
            config.save_errors,
            sweep=None if sweep is None else (sweep.folder, sweep.samples),
        )
        self.prepared, self.shared_backbone = prepared, shared_backbone

    def samples(self, sample_ids: Iterable[str]) -> Iterator[Sample]:
        """Yield the images with these ids; an id is consumed only when its image is."""
        return run_samples(self.prepared, sample_ids)

    def check(self) -> None:
        """Validate the run with the backbone's class; reads no tensor."""
        check(self.prepared)

    def open_engine(self) -> Engine:
        """Load the backbone, unless it is shared, and return the engine that fits it."""
        kind = kind_of(self.prepared)
        reading.stage = f"Loading {self.prepared.backbone_name}"
        try:
            engine = kind.open_engine(self.prepared, self.shared_backbone())
        finally:
            reading.stage = (
                CHECKING  # not the previous stage, since runs may begin at the same time
            )
        if self.prepared.checks_dtype and (warning := check_precision(self.prepared, engine)):
            warn_user(warning)
        return engine
