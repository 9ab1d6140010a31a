"""Every hyper-parameter of the two shipped backbones, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Contrast:
    """A phase of discriminative fine-tuning: true prompts against wrong ones, by their errors."""

    steps: int
    batch: int
    learning_rate: float
    prompts: int
    """Prompts an image is scored under in one step: the true one and sampled wrong ones."""
    scale: float
    """Logits are minus the error times this."""
    weight: float
    """Of the cross-entropy, beside the denoising loss."""
    timesteps: tuple[int, int]
    """Half-open range of t on which prompts are contrasted; the denoising loss keeps all of it."""


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

    contrasts: tuple[Contrast, ...]
    """Phases of discriminative fine-tuning, in order."""

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
    contrasts=(),
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
    latent_size=16,
    latent_channels=4,
    vae_channels=(16, 48, 96),
    vae_steps=500,
    vae_batch=32,
    vae_learning_rate=2e-3,
    kl_weight=1e-4,
    edge_weight=1.0,
    text_width=96,
    text_layers=2,
    text_length=32,
    unet_channels=(32, 64, 128),
    norm_groups=8,
    head_width=32,
    dropout=0.1,
    attention=(False, False, False),
    pooled_text=True,
    scheduler={
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction",
    },
    steps=2500,
    batch=96,
    learning_rate=1e-3,
    weight_decay=0.03,
    ema_decay=0.998,
    null_rate=0.1,
    views=24,
    # First every noise level that tells prompts apart at all, then the low ones, which tell most,
    # with so low a scale that their differences weigh most in a score over all levels.
    contrasts=(
        Contrast(2000, 64, 1e-3, prompts=3, scale=40.0, weight=0.2, timesteps=(0, 700)),
        Contrast(2000, 64, 7e-4, prompts=3, scale=10.0, weight=0.2, timesteps=(0, 250)),
    ),
    judge_steps=1000,
    validate_every=500,
    validation_draws=4,
    validation_images=84,
    samples=(4, 16),
    keep=(6, 1),
)

RECIPES = {recipe.name: recipe for recipe in (DIGITS, LANDUSE)}
