"""The method from a picture to a decision, in plain PIL, numpy, torch and diffusers, in float32.

It imports nothing of the toolkit. `helpers.by_hand` calls the networks of diffusers' pipelines.
Whatever is computed again in a test, by the engine's room or a backbone's, is computed here.
"""

import math
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from helpers.by_hand import predict
from oracle.question import Array, Decision, Question
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import Tensor

COLOURS = {"half": (0.5, 0.5), "cifar10": ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261))}
CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)  # of ImageNet-C, by severity
LATENT = 2**64 - 1  # number of the draw whose noise samples the latent


def upright(file: Path, q: Question) -> Image.Image:
    """Decode upright and on white, and corrupt."""
    image, bicubic = ImageOps.exif_transpose(Image.open(file)), Image.Resampling.BICUBIC
    if "A" in image.getbands():
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if q.corrupt.startswith("contrast:"):
        width, height = (max(224, round(side * 224 / min(image.size))) for side in image.size)
        x = np.asarray(image.resize((width, height), bicubic)) / 255
        x = x.mean((0, 1)) + CONTRAST[int(q.corrupt[-1]) - 1] * (x - x.mean((0, 1)))
        image = Image.fromarray((x.clip(0, 1) * 255).round().astype(np.uint8))
    return image


def picture(file: Path, q: Question) -> Image.Image:
    """Decode, corrupt, and crop or squash to the model's side."""
    image, bicubic = upright(file, q), Image.Resampling.BICUBIC
    if q.fit == "squash":
        return image.resize((q.resolution, q.resolution), bicubic)
    width, height = (q.resolution * side // min(image.size) for side in image.size)
    left, top = round((width - q.resolution) / 2), round((height - q.resolution) / 2)
    return image.resize((width, height), bicubic).crop(
        (left, top, left + q.resolution, top + q.resolution)
    )


def normal(seed: int, draw: int, shape: Sequence[int], sample_id: str = "") -> Tensor:
    """Return standard normal numbers that depend on seed, draw and sample id alone."""
    digest = sha256(sample_id.encode()).digest()[:16] if sample_id else bytes(16)
    counter = np.concatenate([np.zeros(2, np.uint64), np.frombuffer(digest, np.uint64)])
    philox = np.random.Philox(key=np.array([seed, draw], np.uint64), counter=counter)
    return torch.from_numpy(np.random.Generator(philox).standard_normal(shape, np.float32))


def encode(pipe: Any, file: Path, sample_id: str, q: Question) -> Tensor:
    """Return the latent, [C, H, W]: mean or sample of the posterior, shifted and scaled."""
    mean, std = (np.asarray(value, np.float32) for value in COLOURS[q.normalize])
    pixels = torch.from_numpy((np.asarray(picture(file, q), np.float32) / 255 - mean) / std)
    encoded, config = pipe.vae.encode(pixels.permute(2, 0, 1)[None]), pipe.vae.config
    posterior = getattr(encoded, "latent_dist", None)
    z = encoded.latent if posterior is None else posterior.mean
    if q.latent == "sample" and posterior is not None:
        z = z + posterior.std * normal(q.seed, LATENT, tuple(z.shape[1:]), sample_id)
    latent: Tensor = (z - (getattr(config, "shift_factor", None) or 0)) * config.scaling_factor
    return latent[0]


def levels(pipe: Any, squares: int) -> tuple[Tensor, ...]:
    """Return alpha, sigma (x_t = alpha x_0 + sigma eps), p, q (the target), time and progress."""
    scheduler, n = pipe.scheduler, pipe.scheduler.config.num_train_timesteps
    if hasattr(scheduler, "alphas_cumprod"):
        square, time = scheduler.alphas_cumprod.double(), torch.arange(n)
        alpha, sigma = square.sqrt(), (1 - square).sqrt()
        v = scheduler.config.prediction_type == "v_prediction"
        return alpha, sigma, -sigma * v, alpha if v else alpha**0, time, time / n
    sigma, shift = torch.arange(1, n + 1).double() / n, scheduler.config.shift
    if scheduler.config.use_dynamic_shifting:  # by the number of 2 x 2 squares of the latent
        shift = math.exp(calculate_shift(squares))
    sigma = shift * sigma / (1 + (shift - 1) * sigma)
    return 1 - sigma, sigma, -(sigma**0), sigma**0, n * sigma.float(), sigma


def draws(q: Question, n_levels: int) -> list[int]:
    """Return the level of each draw: the middles of equal strata, which pairs share."""
    some = [int(n) for n in q.levels.replace("-", ",").split(",") if n != "grid"]
    rows = list(range(*some)) if "-" in q.levels else some or list(range(n_levels))
    share = 1 if q.plan == "grid" else 2
    strata = -(-q.draws // share)
    return [rows[(2 * (k // share) + 1) * len(rows) // (2 * strata)] for k in range(q.draws)]


def noise(q: Question, shape: Sequence[int], sample_id: str) -> Tensor:
    """Return the noise of the draws, [N, C, H, W], which all images share or each has its own."""
    if q.noise is not None:
        return load_file(q.noise)["noise"]
    own, pairs = sample_id if q.noise_per == "image" else "", q.plan == "antithetic"
    eps = [normal(q.seed, k - k % 2 * pairs, shape, own) for k in range(q.draws)]
    return torch.stack([-e if pairs and k % 2 else e for k, e in enumerate(eps)])


@torch.no_grad()
def errors(pipe: Any, images: Mapping[str, Path], q: Question) -> tuple[Array, Array]:
    """Return the errors of all images, float64 [I, P, N], and the weights of the draws, [N]."""
    z = torch.stack([encode(pipe, file, name, q) for name, file in images.items()])[:, None]
    eps = torch.stack([noise(q, z.shape[2:], name) for name in images])
    rows = draws(q, pipe.scheduler.config.num_train_timesteps)
    table = levels(pipe, z.shape[-1] * z.shape[-2] // 4)
    *columns, time, progress = (column[rows].view(-1, 1, 1, 1) for column in table)
    alpha, sigma, *_ = columns
    x_t, times = (alpha * z + sigma * eps).float().flatten(0, 1), time.flatten().repeat(len(z))
    null = 0 if q.guidance is None else predict(pipe, x_t, times, None, **q.inputs)
    cells = []
    for text, _ in q.prompts:
        answer = predict(pipe, x_t, times, text, **q.inputs)
        answer = null + (1 if q.guidance is None else q.guidance) * (answer - null)
        cells.append(cell_errors(answer.view(eps.shape), z, eps, columns, q.space, q.loss))
    kind, _, number = q.weighting.partition(":")
    snr, exp = alpha**2, (float(number or 0) * progress).exp() * sigma**2
    least = snr.minimum(float(number or 0) * sigma**2)
    x_0 = {"snr": snr, "min-snr": least, "exp": exp}  # weights of x_0's error, times sigma squared
    change = _change(columns, q.space) ** 2
    weights = x_0.get(kind, change) / change
    return torch.stack(cells, dim=1).numpy(), weights.flatten().numpy()


def cell_errors(
    answer: Tensor, z: Tensor, eps: Tensor, columns: Sequence[Tensor], space: str, loss: str
) -> Tensor:
    """Return the error of each answer, [..., C, H, W], to a latent with noise: float64 [...].

    `columns` are alpha, sigma, p and q of the cells' levels, [..., 1, 1, 1].
    """
    *_, p, o = columns
    d = (answer - p * z - o * eps) * _change(columns, space) / _change(columns, "prediction")
    d = d.flatten(-3)
    kept = {"l1": d.abs(), "huber": F.huber_loss(d, 0 * d, reduction="none")}.get(loss, d**2)
    return kept.sum(dim=-1).sqrt() if loss == "norm" else kept.mean(dim=-1)


def _change(columns: Sequence[Tensor], space: str) -> Tensor:
    """Return how answer, eps, x_0 and v change at one x_t, in proportion to each other."""
    alpha, sigma, p, o = columns
    straight = (alpha + sigma - 1).abs() < 1e-6  # between x_0 and eps, v is their difference
    length = torch.where(straight, alpha**0, (alpha**2 + sigma**2).sqrt())
    return {
        "prediction": p * sigma - o * alpha, "epsilon": -alpha, "sample": sigma, "v": -length
    }[space]  # fmt: skip


def decide(cells: Array, classes: Array, weights: Array, pair: Array) -> Decision:
    """Rank one image's classes by the mean errors, [P, N], of their best prompts."""
    scores = cells @ weights / weights.sum()
    best: dict[int, int] = {}  # class -> its best prompt, the best class first
    for row in np.argsort(scores, kind="stable"):
        best.setdefault(int(classes[row]), int(row))
    first, second, *_ = best.values()
    lead, (_, member) = cells[second] - cells[first], np.unique(pair, return_inverse=True)
    size = np.bincount(member)  # draws with opposite noise are one value
    step = np.diff(np.bincount(member, lead * weights) / size)
    stderr = math.sqrt((size**2).sum() * (step**2).sum() / (2 * max(1, len(step)))) / weights.sum()
    margin = scores[second] - scores[first]
    return Decision({c: scores[row] for c, row in best.items()}, margin, stderr)


def interval(right: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy (Wilson, 1927)."""
    z, share = 1.959963984540054, right / n
    reach = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    low, high = ((share + z * z / (2 * n) + side * reach) / (1 + z * z / n) for side in (-1, 1))
    return low, high
