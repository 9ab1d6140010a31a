"""Use a diffusers pipeline as a backbone, through its own `__call__` and VAE.

Everything between prompt, latents and network (packing, positions, masks, time scaling, signs) is
the pipeline's own code. A call is stopped when it reaches the scheduler (see `_calls`), so a
prediction is exactly what the scheduler would get during sampling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bench.contracts.backbone import Denoiser
from bench.contracts.levels import Levels
from bench.engine.images import preprocess
from bench.engine.trees import Tree
from bench.errors import UserError
from bench_plugins.backbones._gate import network_of, supported
from bench_plugins.backbones._labels import labels_in_memory
from bench_plugins.backbones._latents import Normalisation, grouped, levels_of
from bench_plugins.backbones._probing import check_assumptions, check_times, times_of
from bench_plugins.backbones._runner import (
    UNGUIDED,
    PipelineRunner,
    at_step,
    pixels_per_latent,
    posterior_of,
)
from bench_plugins.backbones._slots import Slots


class PipelineDenoiser(PipelineRunner, Denoiser):
    """A denoiser backbone made from any text-to-image pipeline.

    The pipeline is not changed: each call runs on a shallow copy of it, with its device and dtypes.
    A pipeline class without declared facts is tried and checked first; see `_probing`. Keywords in
    `call` take precedence over declared ones. `resolution` is the side of the images in pixels, by
    default the pipeline's; for `normalize` see `bench.engine.images`.

    Raises:
        UserError: the pipeline does not follow diffusers' conventions listed in `_calls`, or does
            not make images of this resolution.
    """

    can_linearise = True

    def __init__(
        self,
        pipe: Any,
        *,
        resolution: int | None = None,
        normalize: str = "half",
        call: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(pipe, call)
        self.normalize = normalize
        if resolution is not None and "height" in self.call_parameters:
            self.call.update(height=resolution, width=resolution)
        with torch.no_grad():
            with supported(self.who, "a call with one prompt fails"):
                if self.probed:
                    self.switch_guidance_off()
            with supported(self.who, "its encoded prompts cannot be told apart"):
                self.slots = None if self.takes_labels else Slots(self.encoded_prompts, self.who)
            with supported(self.who, "its first latents and noise levels are not found"):
                first = self.first_latents(self.facts.steps)
                self.sample_shape = first.shapes[0][1:]
                self.latent_shape = self.image_shape()
                self.levels = self.read_levels(first.schedule or {})
            with supported(self.who, "its latents are not scaled and decoded as expected"):
                probes = Normalisation.probes(prod(self.sample_shape))
                self.normalisation = Normalisation.from_probes(self.decoder_input(probes), self.who)
                side = pixels_per_latent(self.vae, self.device, frames=self._has_frames)
            self.resolution = self.normalisation.shape[-1] * side
            if resolution not in (None, self.resolution):
                raise UserError(
                    f"--resolution must be {self.resolution}, got {resolution}: {self.who} makes"
                    " images of that size only."
                )
            with supported(self.who, "several samples cannot be predicted as one is"):
                if self.probed:
                    self.facts = replace(self.facts, times=times_of(self))
                if self.facts.times == "each":
                    check_times(self)
        if self.probed:
            with supported(self.who, "its noise levels and autoencoder cannot be checked"):
                check_assumptions(self)

    @property
    def _has_frames(self) -> bool:
        """Whether the autoencoder takes videos."""
        return len(self.normalisation.shape) == 4

    def read_levels(self, schedule: Mapping[str, Any]) -> Levels:
        """Return the noise levels, given the keywords passed to `set_timesteps`."""
        return levels_of(self.pipe.scheduler, self.facts, schedule, self.who)

    # Methods of a backbone.

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the network."""
        return next(p.dtype for p in self.network.parameters() if p.is_floating_point())

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Return float32 [n, C, H, W]: the posterior's mean, normalised by the pipeline."""
        return self.posterior(images)[0]

    @torch.inference_mode()
    def posterior(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Return the posterior's mean and standard deviation, float32 [n, C, H, W] each.

        Both are normalised by the pipeline's rule. The deviation is 0 if the VAE has no posterior.
        """
        pixels = preprocess(images, self.resolution, self.normalize).to(self.device)
        pixels = pixels.unsqueeze(2) if self._has_frames else pixels
        mean, deviation = posterior_of(self.vae, pixels)
        mean, deviation = self.normalisation.latents(mean, deviation)
        return tuple(x.view(-1, *self.latent_shape) for x in (mean, deviation))  # type: ignore[return-value]  # two

    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return the conditioning: the results of `encode_prompt` as a tree, one row per text."""
        if self.slots is None:
            return {"label": torch.tensor(labels_in_memory(self.pipe, texts), device=self.device)}
        return self.slots.tree(texts)

    def encode_null(self) -> Tree:
        """Return the unconditional conditioning, one row.

        It is that of the pipeline's empty negative prompt; of the empty prompt if the pipeline has
        no negative prompt; or of the null label of a class-conditional model.
        """
        if self.slots is None:
            config: Any = network_of(self.pipe).config
            return {"label": torch.tensor([config.num_embeds_ada_norm], device=self.device)}
        guided = {
            name: self.call_parameters[name].default
            for name in UNGUIDED
            if name in self.call_parameters
        }
        encoded = self.slots.negative(
            self.encoded_prompts([""]), self.encoded_prompts([""], **guided)
        )
        return self.slots.rows([encoded], [[""]])

    def mix_rest(self, rest: Any, weights: Tensor) -> Tree:
        """Return a mixture's masks and lengths. A token counts if it counts for any prompt."""
        return {name: leaf[weights > 0].amax(dim=0, keepdim=True) for name, leaf in rest.items()}

    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Any) -> Tensor:
        """Return the model output that the pipeline passes to its scheduler, [B, C, H, W].

        If one call of the pipeline cannot take different times or prompt lengths, samples are
        predicted in groups that have them in common.
        """
        lengths: list[tuple[int, ...]] = [()] * len(x_t)
        keys: list[Any] = lengths
        if self.slots is not None:
            lengths = self.slots.lengths(conditioning)
            keys = [self.slots.batch_key(length) for length in lengths]
        if self.facts.times == "one":
            keys = list(zip(keys, t.tolist(), strict=True))
        if len(set(keys)) == 1:
            return self._predict(x_t, t, conditioning, lengths)

        def predict(rows: list[int]) -> Tensor:
            index = torch.tensor(rows, device=x_t.device)
            tree = {name: leaf[index] for name, leaf in conditioning.items()}
            return self._predict(x_t[index], t[index], tree, [lengths[row] for row in rows])

        return grouped(keys, predict)

    def save_memory(self) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        network: Any = self.network
        network.enable_gradient_checkpointing()

    def _predict(
        self, x_t: Tensor, t: Tensor, conditioning: Any, lengths: list[tuple[int, ...]]
    ) -> Tensor:
        """Return the prediction of samples that fit into one call of the pipeline."""
        order = self.order
        if self.slots is None:
            encodings, prompts = None, conditioning["label"].tolist()
        else:
            encodings, prompts = self.slots.returned(conditioning, lengths), [""] * len(x_t)
        times = t[:1] if len(t) == 1 or self.facts.times == "one" else t[None]
        prediction: Tensor = self.run(encodings, prompts, times, at_step, latents=x_t).prediction
        flat = prediction.reshape(len(x_t), -1)
        if order is not None:
            flat = torch.empty_like(flat).index_copy(1, order, flat)
        return flat[:, : prod(self.latent_shape)].view(-1, *self.latent_shape)
