"""Small pipelines with random weights, made once, in the forms in which a run takes a model."""

from functools import cache
from pathlib import Path
from typing import Any

import diffusers
from helpers import autoregressive, families, masked, released
from helpers.loras import save_lora
from helpers.pipelines import save_pipeline
from helpers.single_file import save_single_file
from transformers.integrations.peft import MIN_PEFT_VERSION
from transformers.utils import check_peft_version

STABLE = ("sd15", "sd21")  # one predicts noise, one velocity
BY_HAND = (*STABLE, *families.KINDS)  # whose networks `helpers.by_hand` calls
TOKENS = ("janus", "emu3")  # whose likelihoods `oracle.tokens` computes
MASKED = ("amused",)  # whose errors of hidden tokens `oracle.tokens` computes
OTHERS = tuple(kind for kind in released.RELEASED if kind != "KolorsPipeline")
SIDES = {"sana": 32, "Lumina2Pipeline": 64}  # pixels of the pictures; 16 of the others


def lora_parts() -> tuple[str, ...]:
    """Return the parts of Stable Diffusion that the installed libraries can add a LoRA to."""
    try:
        check_peft_version(min_version=MIN_PEFT_VERSION)
    except ValueError:  # transformers takes later versions of PEFT than diffusers
        return ("unet",)
    return ("unet", "text_encoder")


class Models:
    """The pipelines of a session, below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder, self.lora, self.pipe = (
            cache(make) for make in (self._folder, self._lora, self._pipe)
        )

    def _folder(self, kind: str) -> Path:
        """Return a pipeline's folder in diffusers' layout."""
        folder = self.root / kind.lower()
        if kind in STABLE:
            save_pipeline(folder, kind)
        elif kind in TOKENS:
            {"janus": autoregressive.save_janus, "emu3": autoregressive.save_emu3}[kind](folder)
        elif kind in MASKED:
            masked.save_amused(folder)
        elif kind in families.KINDS:
            families.save(kind, folder)
        else:
            released.made(kind).save_pretrained(folder)
        return folder

    def _lora(self, kind: str, seed: int) -> Path:
        """Return the file of a LoRA for a pipeline."""
        return save_lora(self._loaded(kind), self.root / f"{kind}-lora-{seed}", seed, *lora_parts())

    def _pipe(self, kind: str, lora: tuple[int, float] | None = None) -> Any:
        """Return a pipeline in memory, with a LoRA of a seed at a scale."""
        pipe = self._loaded(kind)
        if lora is not None:
            file, scale = self.lora(kind, lora[0]), lora[1]
            pipe.load_lora_weights(file.parent, weight_name=file.name, adapter_name="a")
            pipe.set_adapters(["a"], [scale])
        return pipe

    def _loaded(self, kind: str) -> Any:
        pipe = diffusers.DiffusionPipeline.from_pretrained(self.folder(kind))
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def single_file(self, kind: str) -> Path:
        """Return a file with the tensors of a Stable Diffusion."""
        file = self.root / f"{kind}.safetensors"
        return file if file.exists() else save_single_file(self.pipe(kind), file)
