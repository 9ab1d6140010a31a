"""The hyperparameters of the two included backbones."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Contrast:
    """A phase of discriminative fine-tuning: of the attention, or of true against wrong prompts.

    Part of each batch continues the denoising training, at all noise levels.
    """

    steps: int
    denoised: int  # images per step that are denoised with their caption or an empty one
    scored: int  # images per step that are scored with their true prompt and wrong ones
    fitted: int  # images per step for the attention loss only (UNet's first half)
    wrong: int  # wrong prompts per image
    low: int  # upper limit (exclusive) of the timesteps of scored and fitted images
    learning_rate: float
    scale: float  # logits are -scale times the error
    weight: float  # weight of the cross-entropy of the prompts; the denoising loss has weight 1
    belief_weight: float  # weight of the regression under each prompt
    fit_weight: float  # weight of the cross-entropy of the attention
    apart_weight: float  # weight of the loss that pushes text embeddings apart

    @property
    def batch(self) -> int:
        """Number of images per step."""
        return self.denoised + self.scored + self.fitted


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The hyperparameters of one backbone.

    The latent is ``(latent_channels, latent_size, latent_size)``. The image resolution follows from
    the depth of the autoencoder: ``latent_size * 2 ** (len(vae_channels) - 1)``.
    """

    name: str
    dataset: str

    # Autoencoder
    latent_size: int
    latent_channels: int
    vae_channels: tuple[int, ...]
    vae_steps: int
    vae_batch: int
    vae_learning_rate: float = 2e-3
    kl_weight: float = 1e-4
    edge_weight: float  # weight of differences between neighbouring pixels; the pixels have 1
    colour_weight: float = 1.0  # weight of errors of colour; errors of lightness have 1

    # Text encoder
    text_width: int
    text_layers: int = 2
    text_length: int = 32

    # UNet
    unet_channels: tuple[int, ...]
    norm_groups: int = 8
    head_width: int
    dropout: float = 0.0
    # Whether each level, from the outside in, has cross-attention. The middle always has.
    down_attention: tuple[bool, ...]
    up_attention: tuple[bool, ...]
    late_text: bool = False  # add the pooled text to the time embedding in the second half only
    standardised: bool = False  # standardise the UNet's kernels during training

    prediction_type: str  # of the scheduler, such as `epsilon`

    # Training of the denoiser
    steps: int
    batch: int = 128
    learning_rate: float
    weight_decay: float
    ema_decay: float
    null_rate: float = 0.1  # share of captions that are replaced by the empty one
    views: int  # views of each training image that are encoded once; all but one are augmented
    contrasts: tuple[Contrast, ...] = ()  # phases of discriminative fine-tuning, in order

    # Evaluation
    judge_steps: int
    validate_every: int
    validation_draws: int
    validation_images: int
    loss_draws: int = 25  # noise levels of the denoising loss that the model card reports
    plan: str = "grid"  # draw plan, the same as in the backbone's spec
    samples: tuple[int, ...]
    keep: tuple[int, ...]

    @property
    def resolution(self) -> int:
        """Side of the image in pixels."""
        return self.latent_size << (len(self.vae_channels) - 1)


DIGIT_RECIPE = Recipe(
    name="digits",
    dataset="digits",
    latent_size=8,
    latent_channels=4,
    vae_channels=(16, 32, 48),
    vae_steps=700,
    vae_batch=64,
    edge_weight=0.5,
    text_width=64,
    unet_channels=(40, 80),
    head_width=20,
    down_attention=(False, True),
    up_attention=(False, True),
    prediction_type="epsilon",
    steps=1000,
    learning_rate=1.5e-3,
    weight_decay=0.01,
    ema_decay=0.99,
    views=16,
    judge_steps=400,
    validate_every=250,
    validation_draws=5,
    validation_images=143,
    samples=(5, 50),
    keep=(3, 1),
)

LANDUSE_CONTRAST = Contrast(
    steps=2000,
    denoised=64,
    scored=40,
    fitted=160,
    wrong=3,
    low=250,
    learning_rate=2e-3,
    scale=100.0,
    weight=0.05,
    belief_weight=1.0,
    fit_weight=0.5,
    apart_weight=0.1,
)

LANDUSE_RECIPE = Recipe(
    name="landuse",
    dataset="ucmerced",
    latent_size=16,
    latent_channels=8,
    vae_channels=(16, 48, 96),
    vae_steps=3000,
    vae_batch=8,
    edge_weight=1.0,
    colour_weight=3.0,
    text_width=96,
    unet_channels=(32, 64, 192),
    head_width=32,
    dropout=0.1,
    down_attention=(False, False, False),
    up_attention=(False, False, True),
    late_text=True,
    standardised=True,
    prediction_type="v_prediction",
    steps=1500,
    learning_rate=2e-3,
    weight_decay=0.03,
    ema_decay=0.998,
    views=48,
    contrasts=(
        replace(LANDUSE_CONTRAST, steps=1200, scored=0, fitted=320),
        LANDUSE_CONTRAST,
        replace(LANDUSE_CONTRAST, steps=1000, learning_rate=1e-3),
    ),
    judge_steps=1000,
    validate_every=500,
    validation_draws=4,
    validation_images=84,
    plan="grid:0-200",
    samples=(4, 16),
    keep=(6, 1),
)

RECIPES = {recipe.name: recipe for recipe in (DIGIT_RECIPE, LANDUSE_RECIPE)}
