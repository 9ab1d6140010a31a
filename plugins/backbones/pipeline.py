"""A pipeline of diffusers as a backbone: its own `__call__` predicts, its own VAE encodes.

Everything between prompt, latents and network (packing, positions, masks, scales of the time,
signs) is the pipeline's own code, stopped at its scheduler; see `_seam`. So a prediction is the one
that the pipeline's sampling would give its scheduler.
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
from bench_plugins.backbones._driving import (
    UNGUIDED,
    DrivenPipeline,
    at_step,
    network_of,
    pixels_of,
)
from bench_plugins.backbones._latents import Normalisation, grouped, levels_of
from bench_plugins.backbones._probing import check_assumptions, probe_call
from bench_plugins.backbones._slots import Slots


class PipelineDenoiser(DrivenPipeline, Denoiser):
    """Any text-to-image pipeline, loaded in any way.

    The pipeline is not changed: each call runs on a shallow copy of it, with its device and dtypes.

    Args:
        pipe: the pipeline.
        resolution: side of the images in pixels; None: the pipeline's default.
        normalize: how pixels are scaled; see `bench.engine.images`.
        call: keywords for the pipeline's `__call__`, which take precedence over declared ones.

    Raises:
        UserError: the pipeline cannot be driven.
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
        if resolution is not None and "height" in self._takes:
            self.call.update(height=resolution, width=resolution)
        with torch.no_grad():
            self.slots = None if self.takes_labels else Slots(self.encoded_prompts, self.who)
            first = self.first_latents(self.facts.steps)
            self.sample_shape = first.shapes[0][1:]
            self.latent_shape = self.image_shape()
            self.levels = self.read_levels(first.schedule or {})
            probes = Normalisation.probes(prod(self.sample_shape))
            self.normalisation = Normalisation.from_probes(self.decoder_input(probes), self.who)
        self.resolution = self.normalisation.shape[-1] * pixels_of(pipe)
        if resolution not in (None, self.resolution):
            raise UserError(
                f"--resolution {resolution}: {self.who} makes images of {self.resolution} pixels."
            )
        if self.probed:
            with torch.no_grad():
                self.facts = replace(self.facts, times=probe_call(self))
            check_assumptions(self)

    def read_levels(self, schedule: Mapping[str, Any]) -> Levels:
        """Return the noise levels, for the pipeline's keywords of `set_timesteps`."""
        return levels_of(self.pipe.scheduler, self.facts, schedule, self.who)

    # Methods of a backbone.

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the network."""
        return next(p.dtype for p in self.network.parameters() if p.is_floating_point())

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Return float32 [n, C, H, W]: the posterior's mean, normalised as the pipeline does."""
        return self.posterior(images)[0]

    @torch.inference_mode()
    def posterior(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Return the posterior's mean and standard deviation, normalised as the pipeline does."""
        pixels = preprocess(images, self.resolution, self.normalize)
        pixels = pixels.to(device=self.device, dtype=self.vae.dtype)
        if len(self.normalisation.shape) == 4:  # an autoencoder of frames
            pixels = pixels.unsqueeze(2)
        encoded = self.vae.encode(pixels)
        if (posterior := getattr(encoded, "latent_dist", None)) is not None:
            mean, deviation = posterior.mean, posterior.std
        else:
            mean = encoded.latent if hasattr(encoded, "latent") else encoded.latents
            deviation = torch.zeros_like(mean)
        mean, deviation = self.normalisation.latents(mean, deviation)
        return tuple(x.view(-1, *self.latent_shape) for x in (mean, deviation))  # type: ignore[return-value]  # two

    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return the results of the pipeline's `encode_prompt`, a row per text."""
        if self.slots is None:
            labels = [int(text) if text.isdecimal() else self.pipe.labels[text] for text in texts]
            return {"label": torch.tensor(labels, device=self.device)}
        return self.slots.tree(texts)

    def encode_null(self) -> Tree:
        """Return the conditioning of the empty negative prompt, or of no label.

        Without a negative prompt of the pipeline's own, it is that of the empty prompt.
        """
        if self.slots is None:
            none: Any = network_of(self.pipe).config
            return {"label": torch.tensor([none.num_embeds_ada_norm], device=self.device)}
        guided = {name: self._takes[name].default for name in UNGUIDED if name in self._takes}
        encoded = self.slots.negative(
            self.encoded_prompts([""]), self.encoded_prompts([""], **guided)
        )
        return self.slots.rows([encoded], [[""]])

    def mix_rest(self, rest: Any, weights: Tensor) -> Tree:
        """Return a mixture's masks and lengths: a token counts if it does for any prompt."""
        return {name: leaf[weights > 0].amax(dim=0, keepdim=True) for name, leaf in rest.items()}

    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Any) -> Tensor:
        """Return the model output that the pipeline gives its scheduler, [B, C, H, W].

        Samples that one call of the pipeline cannot take together are predicted in groups: of the
        same time, or the same length of the prompt.
        """
        lengths: list[tuple[int, ...]] = [()] * len(x_t)
        keys: list[Any] = lengths
        if self.slots is not None:
            lengths = self.slots.lengths(conditioning)
            keys = [self.slots.alike(length) for length in lengths]
        if self.facts.times == "one":
            keys = list(zip(keys, t.tolist(), strict=True))
        if len(set(keys)) == 1:
            return self._predict(x_t, t, conditioning, lengths)

        def predict(rows: list[int]) -> Tensor:
            chosen = torch.tensor(rows, device=x_t.device)
            tree = {name: leaf[chosen] for name, leaf in conditioning.items()}
            return self._predict(x_t[chosen], t[chosen], tree, [lengths[row] for row in rows])

        return grouped(keys, predict)

    def save_memory(self) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        network: Any = self.network
        network.enable_gradient_checkpointing()

    def _predict(
        self, x_t: Tensor, t: Tensor, conditioning: Any, lengths: list[tuple[int, ...]]
    ) -> Tensor:
        """Return the prediction of samples that one call takes together."""
        order = self.order
        if self.slots is None:
            texts, prompts = None, conditioning["label"].tolist()
        else:
            texts, prompts = self.slots.returned(conditioning, lengths), [""] * len(x_t)
        times = t[:1] if len(t) == 1 or self.facts.times == "one" else t[None]
        prediction: Tensor = self.run(texts, prompts, times, at_step, latents=x_t).prediction
        flat = prediction.reshape(len(x_t), -1)
        if order is not None:
            flat = torch.empty_like(flat).index_copy(1, order, flat)
        return flat[:, : prod(self.latent_shape)].view(-1, *self.latent_shape)
