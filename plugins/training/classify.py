"""A small diffusion classifier, to watch the training by and to state the final accuracy.

It is written apart from the toolkit's engine on purpose: its errors check the engine's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

    from bench_plugins.training.denoiser import Denoiser

CELLS = 168


def draw_errors(
    model: Denoiser,
    latents: torch.Tensor,
    prompts: list[str],
    draws: int,
    seed: int = 0,
    plan: str = "grid",
) -> np.ndarray:
    """Errors of every cell, float32 ``[images, draws, prompts]``.

    Timesteps are those of the toolkit's draw plan; the noise is another.
    """
    import numpy as np
    import torch

    from bench.inputs.draws import parse_plan

    total = len(model.alphas_cumprod)
    timesteps = parse_plan(plan).levels(draws, total).tolist()
    noise = torch.randn((draws, *latents.shape[1:]), generator=torch.Generator().manual_seed(seed))
    errors = np.empty((len(latents), draws, len(prompts)), np.float32)
    images = max(1, CELLS // len(prompts))
    model.eval()
    with torch.no_grad():
        text = model.encode(prompts)
        for k, t in enumerate(timesteps):
            for first in range(0, len(latents), images):
                x_0 = latents[first : first + images].float()
                step = torch.full((len(x_0),), t)
                x_t, target = model.corrupt(x_0, noise[k].expand_as(x_0), step)
                cells = x_t.repeat_interleave(len(prompts), 0)
                output = model(
                    cells, step.repeat_interleave(len(prompts)), text.repeat(len(x_0), 1, 1)
                )
                error = (
                    (output.float() - target.repeat_interleave(len(prompts), 0))
                    .square()
                    .mean((1, 2, 3))
                )
                errors[first : first + images, k] = error.view(len(x_0), -1).numpy()
    return errors


def full(errors: np.ndarray) -> np.ndarray:
    """Predicted prompt of each image from every draw."""
    predictions: np.ndarray = errors.mean(1).argmin(-1)
    return predictions


def adaptive(
    errors: np.ndarray, samples: tuple[int, ...], keep: tuple[int, ...]
) -> tuple[np.ndarray, float]:
    """Predicted prompt of each image by the `adaptive` strategy, and the evaluations per image."""
    import numpy as np

    from bench.contracts.dataset import Sample
    from bench.contracts.decision import Interview
    from bench.contracts.strategy import Evaluate, Problem
    from bench_plugins.strategies.adaptive import Adaptive

    images, draws, prompts = errors.shape
    problem = Problem(np.arange(prompts), np.arange(draws), np.ones(draws))
    strategy = Adaptive(samples, keep, draws=draws)
    predictions, evaluations = [], 0
    for table in errors:
        interview = Interview(Sample("", 0, {}), strategy, problem)
        while (request := interview.ask()) is not None:
            assert isinstance(request, Evaluate)
            interview.tell(request, table[np.ix_(request.draws, request.prompts)].T)
        assert interview.decided.outcome is not None
        predictions.append(interview.decided.outcome.ranking[0])
        evaluations += interview.decided.evaluations
    return np.array(predictions), evaluations / images
