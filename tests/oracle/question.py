"""What a run asks, in the words of `bench run`, and what it answers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Question:
    """The settings that decide a run's numbers; a default is that of `bench run`."""

    prompts: tuple[tuple[str, int], ...]  # text and class index of each
    resolution: int  # pixels of the square pictures that the model is shown; 0: its own
    draws: int
    template_rule: str = "best"
    loss: str = "l2"
    space: str = "prediction"
    weighting: str = "uniform"
    guidance: float | None = None
    levels: str = "grid"
    plan: str = "grid"
    seed: int = 0
    noise: Path | None = None  # a file with a tensor `noise`, float32 [N, C, H, W]
    noise_per: str = "run"
    latent: str = "mean"
    fit: str = "crop"
    normalize: str = "half"
    corrupt: str = "none"
    text: str = "all"  # of SD 3: clip for zeros in place of T5's embeddings
    tokens: int | None = None  # of T5 in FLUX and PixArt
    strength: float | None = None  # a guidance scale that a distilled network is given
    original_size: int | None = None  # of SDXL: a side in pixels that its network is given
    relative: bool = False  # of tokens: whether the likelihood under the null is subtracted
    masks: str = "elbo"  # of a masked model: the distribution of the number of hidden tokens
    views: str | None = None  # flip: of two draws, the first sees the mirrored picture

    @property
    def inputs(self) -> dict[str, Any]:
        """What a network is given beside the noised latent, its time and a text."""
        names = ("text", "tokens", "strength", "original_size")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Decision:
    """What is decided of one image."""

    scores: dict[int, float]  # class index → mean error, the best class first
    margin: float  # by which the best class leads the second
    stderr: float  # standard error of the margin
