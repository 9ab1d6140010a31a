"""Every hyper-parameter of the two shipped backbones, as data."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """What it takes to make one backbone again.

    The latent is ``(latent_channels, latent_size, latent_size)``; the image's resolution follows
    from the depth of the autoencoder, ``latent_size * 2 ** (len(vae_channels) - 1)``.
    """

    name: str
    dataset: str
    title: str

    # Autoencoder
    latent_size: int
    latent_channels: int
    vae_channels: tuple[int, ...]
    vae_steps: int
    vae_batch: int
    vae_learning_rate: float
    kl_weight: float
    edge_weight: float

    # Text encoder
    text_width: int
    text_layers: int
    text_length: int

    # UNet
    unet_channels: tuple[int, ...]
    norm_groups: int
    head_width: int
    dropout: float
    attention: tuple[bool, ...]
    """Whether each level, from the outside in, has cross-attention; the middle always has."""
    pooled_text: bool
    """Also add the pooled text to the time embedding, so that every block hears the prompt."""

    # Noise: the scheduler's own arguments
    scheduler: dict[str, object]

    # Training of the denoiser
    steps: int
    batch: int
    learning_rate: float
    weight_decay: float
    ema_decay: float
    null_rate: float
    views: int
    """Copies of each training image, all but one augmented, that are encoded once."""

    # Discriminative fine-tuning (0 steps: none)
    contrast_steps: int
    contrast_batch: int
    contrast_learning_rate: float
    contrast_prompts: int
    """Prompts an image is scored under in one step: the true one and sampled wrong ones."""
    contrast_scale: float
    contrast_weight: float

    # Evaluation
    judge_steps: int
    validate_every: int
    validation_draws: int
    validation_images: int
    samples: tuple[int, ...]
    keep: tuple[int, ...]

    @property
    def resolution(self) -> int:
        """Side of the image in pixels."""
        return self.latent_size << (len(self.vae_channels) - 1)


def squeezed_cosine_betas(squeeze: float, centre: float, steps: int = 1000) -> list[float]:
    """Betas of a cosine schedule, its log signal-to-noise ratio scaled and then moved to `centre`.

    A diffusion classifier spends its draws evenly over t. The plain cosine schedule (1, 0) spends
    many of them where the latent is nearly clean or nearly gone, and there the prompts can hardly
    be told apart. Squeezed, the even grid lies on the levels in between.
    """

    def alphas_cumprod(u: float) -> float:
        log_snr = centre - 2 * squeeze * math.log(math.tan(math.pi / 2 * u))
        return 1 / (1 + math.exp(-log_snr))

    levels = [1.0] + [alphas_cumprod((step + 0.5) / steps) for step in range(steps)]
    return [min(1 - now / before, 0.999) for before, now in itertools.pairwise(levels)]


DIGITS = Recipe(
    name="digits",
    dataset="digits",
    title="tiny-digits",
    latent_size=8,
    latent_channels=4,
    vae_channels=(16, 32, 48),
    vae_steps=700,
    vae_batch=64,
    vae_learning_rate=2e-3,
    kl_weight=1e-4,
    edge_weight=0.5,
    text_width=64,
    text_layers=2,
    text_length=32,
    unet_channels=(40, 80),
    norm_groups=8,
    head_width=20,
    dropout=0.0,
    attention=(False, True),
    pooled_text=True,
    scheduler={
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "epsilon",
    },
    steps=1000,
    batch=128,
    learning_rate=1.5e-3,
    weight_decay=0.01,
    ema_decay=0.99,
    null_rate=0.1,
    views=16,
    contrast_steps=0,
    contrast_batch=0,
    contrast_learning_rate=0.0,
    contrast_prompts=0,
    contrast_scale=0.0,
    contrast_weight=0.0,
    judge_steps=400,
    validate_every=250,
    validation_draws=5,
    validation_images=143,
    samples=(5, 50),
    keep=(3, 1),
)

LANDUSE = Recipe(
    name="landuse",
    dataset="ucmerced",
    title="tiny-landuse",
    latent_size=8,
    latent_channels=8,
    vae_channels=(16, 32, 64, 96),
    vae_steps=700,
    vae_batch=32,
    vae_learning_rate=2e-3,
    kl_weight=1e-4,
    edge_weight=1.0,
    text_width=96,
    text_layers=2,
    text_length=32,
    unet_channels=(64, 128),
    norm_groups=16,
    head_width=32,
    dropout=0.1,
    attention=(False, True),
    pooled_text=True,
    scheduler={"trained_betas": squeezed_cosine_betas(0.6, 0.5), "prediction_type": "v_prediction"},
    steps=700,
    batch=96,
    learning_rate=1e-3,
    weight_decay=0.03,
    ema_decay=0.995,
    null_rate=0.1,
    views=16,
    contrast_steps=650,
    contrast_batch=56,
    contrast_learning_rate=1e-3,
    contrast_prompts=4,
    contrast_scale=40.0,
    contrast_weight=0.1,
    judge_steps=1000,
    validate_every=350,
    validation_draws=4,
    validation_images=84,
    samples=(4, 16),
    keep=(6, 1),
)

RECIPES = {recipe.name: recipe for recipe in (DIGITS, LANDUSE)}
