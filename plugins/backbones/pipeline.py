"""A pipeline of diffusers as a backbone: its own `__call__` predicts, its own VAE encodes.

Whatever the pipeline does between prompt, latents and network (packing, positions, masks, scales
of the time, signs) is its own code, stopped at its scheduler; see `_seam`. So a prediction here is
what the pipeline's sampling would hand to its scheduler.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import prod
from typing import Any

import diffusers
import torch
import transformers
from PIL import Image
from torch import Tensor

from bench.contracts.backbone import Denoiser
from bench.engine.images import preprocess
from bench.engine.trees import Tree
from bench.errors import UserError
from bench_plugins.backbones._facts import Facts, facts_of
from bench_plugins.backbones._latents import Normalisation, digits, grouped, levels_of, order_of
from bench_plugins.backbones._probing import check, settle
from bench_plugins.backbones._seam import Call, Decoder
from bench_plugins.backbones._slots import SHORT, Slots

UNGUIDED = {"guidance_scale": 1.0, "true_cfg_scale": 1.0, "pag_scale": 0.0}
# Images as large as they are asked for; captions as they are, whatever packages are installed.
PLAIN = {
    "output_type": "latent",
    "use_resolution_binning": False,
    "clean_caption": False,
    "num_frames": 1,
}
diffusers.logging.set_verbosity_error()
transformers.logging.set_verbosity_error()

CLASS_LABELS = "class_labels"  # what a pipeline without prompts takes


class PipelineDenoiser(Denoiser):
    """Any text-to-image pipeline, loaded in any way.

    The pipeline is not changed: each call runs on a shallow copy of it. Its device and dtypes are
    those that it has.

    Args:
        pipe: the pipeline.
        resolution: side of the images in pixels; None: the pipeline's default.
        normalize: how pixels are scaled; see `bench.engine.images`.
        call: keywords for the pipeline's `__call__`, over those that are declared of its class.
        facts: what is declared of its class; None: what is in `pipelines/`.

    Attributes:
        call: all keywords that the pipeline's `__call__` is given.
        probed: whether nothing is declared of its class.

    Raises:
        UserError: the pipeline cannot be driven; the message names what is missing.
    """

    can_linearise = True

    def __init__(
        self,
        pipe: Any,
        *,
        resolution: int | None = None,
        normalize: str = "half",
        call: Mapping[str, Any] | None = None,
        facts: Facts | None = None,
    ) -> None:
        self.pipe, self.normalize = pipe, normalize
        self.who = f"The pipeline {type(pipe).__name__}"
        declared = facts or facts_of(type(pipe).__name__)
        self.probed, self.facts = declared is None, declared or Facts()
        self._takes = inspect.signature(type(pipe).__call__).parameters
        self.device: torch.device = pipe._execution_device
        self.call = {**self._keywords(), **self.facts.call, **(call or {})}
        if resolution is not None and "height" in self._takes:
            self.call.update(height=resolution, width=resolution)
        with torch.no_grad():
            self.slots = None if CLASS_LABELS in self._takes else Slots(self._encode, self.who)
            first = self.first_latents(self.facts.steps)
            self._shape = first.shapes[0][1:]
            self.latent_shape = self._latent_shape()
            self.levels = levels_of(pipe.scheduler, self.facts, first.schedule or {}, self.who)
            probes = Normalisation.probes(prod(self._shape))
            self.normalisation = Normalisation.learned(self._decoded(probes), self.who)
        self.resolution = self.normalisation.shape[-1] * _pixels(pipe)
        if resolution not in (None, self.resolution):
            raise UserError(
                f"--resolution {resolution}: {self.who} makes images of {self.resolution} pixels."
            )
        if self.probed:
            with torch.no_grad():
                self.facts = replace(self.facts, times=settle(self))
            check(self)

    # What the toolkit asks.

    @property
    def network(self) -> torch.nn.Module:
        """The module that `denoise` calls."""
        return network_of(self.pipe)

    @property
    def vae(self) -> Any:
        """The autoencoder."""
        return self.pipe.vae

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the network."""
        return next(p.dtype for p in self.network.parameters() if p.is_floating_point())

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Return float32 [n, C, H, W]: the posterior's mean, as the pipeline's latents are."""
        return self.posterior(images)[0]

    @torch.inference_mode()
    def posterior(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Return the latents' mean and standard deviation, as the pipeline's latents are."""
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
        """Return what the pipeline's `encode_prompt` returns, a row per text."""
        if self.slots is None:
            labels = [int(text) if text.isdecimal() else self.pipe.labels[text] for text in texts]
            return {"label": torch.tensor(labels, device=self.device)}
        return self.slots.tree(texts)

    def encode_null(self) -> Tree:
        """Return the conditioning of the pipeline's negative prompt, the empty one, or of no label.

        A pipeline that encodes none by itself is given the empty text.
        """
        if self.slots is None:
            none: Any = self.network.config
            return {"label": torch.tensor([none.num_embeds_ada_norm], device=self.device)}
        guided = {name: self._takes[name].default for name in UNGUIDED if name in self._takes}
        encoded = self.slots.negative(self._encode([""]), self._encode([""], **guided))
        return self.slots.rows([encoded], [""])

    def mix_rest(self, rest: Any, weights: Tensor) -> Tree:
        """Return a mixture's masks and lengths: a place counts where it does for a prompt."""
        return {name: leaf[weights > 0].amax(dim=0, keepdim=True) for name, leaf in rest.items()}

    def denoise(self, x_t: Tensor, t: Tensor, conditioning: Any) -> Tensor:
        """Return what the pipeline gives its scheduler, [B, C, H, W], in its dtype.

        Samples that one call of the pipeline does not take are predicted in groups: of one time, or
        of one length of the prompt.
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

    # What the pipeline is asked.

    def _keywords(self) -> dict[str, Any]:
        """Return what leaves guidance, cleaning and frames out, where the pipeline knows of them.

        A guidance that the network is told stays as the pipeline has it.
        """
        keywords = {**UNGUIDED, **PLAIN}
        if _embeds_guidance(self.network):
            del keywords["guidance_scale"]
        return {
            name: value
            for name, value in keywords.items()
            if name in self._takes and self._takes[name].default not in (None, value)
        }

    def _call(
        self, texts: list[Any] | None, prompts: list[Any], times: Tensor, stops: Any, **more: Any
    ) -> Call:
        """Call the pipeline for these prompts, of which `texts` are the encoded ones."""
        parts = {name: more.pop(name) for name in ("latents", "parts") if name in more}
        name = CLASS_LABELS if CLASS_LABELS in self._takes else "prompt"
        keywords = {name: prompts, "num_inference_steps": 1, **self.call, **more}
        return Call(self.pipe, keywords, times, texts=texts, stops=stops, **parts)

    def _short(self, count: int) -> tuple[list[Any] | None, list[Any]]:
        """Return so many short prompts, encoded, and what stands for them."""
        if self.slots is None:
            return None, [0] * count
        tree = {name: leaf.expand(count, *leaf.shape[1:]) for name, leaf in self.shortest.items()}
        return self.slots.returned(tree, self.slots.lengths(tree)), [""] * count

    @cached_property
    def shortest(self) -> dict[str, Tensor]:
        """The conditioning of a short text, or of a label, one row."""
        if self.slots is None:
            return {"label": torch.zeros(1, dtype=torch.int64, device=self.device)}
        return self.slots.tree([SHORT])

    def _encode(self, texts: list[str], **keywords: Any) -> list[Any]:
        """Return what each call of the pipeline's `encode_prompt` returns."""
        ends = "draw", "schedule"
        return self._call(
            None, list(texts), torch.zeros(1), lambda _, event: event in ends, **keywords
        ).returned

    def try_step(self, count: int, parts: Mapping[str, Any]) -> None:
        """Have the pipeline predict latents of zeros, with `parts` in place of its own."""
        time = torch.as_tensor(self.levels.time[-1:])
        self._call(*self._short(count), time, _at_step, parts=parts)

    def first_latents(self, steps: int | None) -> Call:
        """Have the pipeline draw latents and set its levels, for so many steps or its own number.

        Raises:
            UserError: it does not.
        """
        steps = steps or self._takes["num_inference_steps"].default
        call = self._call(
            *self._short(1),
            torch.zeros(1),
            lambda call, _: bool(call.shapes) and call.schedule is not None,
            num_inference_steps=steps,
        )
        if not call.shapes or call.schedule is None:
            lacking = "draws no latents" if not call.shapes else "sets no levels"
            raise UserError(f"{self.who} cannot be driven: it {lacking} in the usual way.")
        return call

    def _latent_shape(self) -> tuple[int, int, int]:
        shape = list(self._shape)
        if len(shape) == 4 and 1 in shape:  # of one frame
            shape.remove(1)
        if len(shape) != 3:
            raise UserError(f"{self.who} draws latents {list(self._shape)}: not those of an image.")
        return shape[0], shape[1], shape[2]

    def decode(self, latents: Tensor) -> Tensor:
        """Return the image that the pipeline decodes of one latent, float32 [1, 3, H, W]."""
        decoded = self._decoded(latents.double())
        image: Tensor = self.vae.decode(decoded.to(self.vae.dtype), return_dict=False)[0]
        return image.reshape(1, 3, *image.shape[-2:]).float()

    def _decoded(self, latents: Tensor) -> Tensor:
        """Return what the pipeline's VAE would be given for its last latents."""
        decoder = Decoder(self.pipe.vae)
        self._call(
            *self._short(len(latents)),
            torch.empty(0),
            lambda call, event: False,
            output_type="pt",
            latents=latents,
            parts={"vae": decoder},
        )
        if decoder.decoded is None:
            raise UserError(f"{self.who} cannot be driven: it decodes its latents without `vae`.")
        return decoder.decoded

    @cached_property
    def order(self) -> Tensor | None:
        """Where each packed element comes from, int64 [elements]; None: latents are not packed."""
        with torch.inference_mode(False), torch.no_grad():
            sent = digits(prod(self._shape))
            time = torch.as_tensor(self.levels.time[len(self.levels) // 2 :][:1])
            call = self._call(*self._short(len(sent)), time, _at_step, latents=sent)
            order = order_of(call.sample, self.who)
        return None if bool((order.diff() == 1).all()) else order.to(self.device)

    def _predict(
        self, x_t: Tensor, t: Tensor, conditioning: Any, lengths: list[tuple[int, ...]]
    ) -> Tensor:
        """Return the pipeline's prediction of samples that it takes together."""
        order = self.order
        if self.slots is None:
            texts, prompts = None, conditioning["label"].tolist()
        else:
            texts, prompts = self.slots.returned(conditioning, lengths), [""] * len(x_t)
        times = t[:1] if len(t) == 1 or self.facts.times == "one" else t[None]
        prediction: Tensor = self._call(texts, prompts, times, _at_step, latents=x_t).prediction
        flat = prediction.reshape(len(x_t), -1)
        if order is not None:
            flat = torch.empty_like(flat).index_copy(1, order, flat)
        return flat[:, : prod(self.latent_shape)].view(-1, *self.latent_shape)


def network_of(pipe: Any) -> torch.nn.Module:
    """Return the network of a pipeline.

    Raises:
        UserError: it has none of a usual name.
    """
    for name in ("transformer", "unet"):
        if isinstance(network := getattr(pipe, name, None), torch.nn.Module):
            return network
    raise UserError(
        f"The pipeline {type(pipe).__name__} cannot be driven: it has no transformer and no unet."
    )


def _embeds_guidance(network: Any) -> bool:
    """Return whether the network is told the guidance scale, as one distilled with it."""
    config = network.config
    return bool(config.get("guidance_embeds")) or config.get("time_cond_proj_dim") is not None


def _pixels(pipe: Any) -> int:
    """Return how many pixels a side of a latent's pixel stands for."""
    for name in ("vae_scale_factor", "vae_scale_factor_spatial"):
        if isinstance(factor := getattr(pipe, name, None), int):
            return factor
    return int(2 ** (len(pipe.vae.config.block_out_channels) - 1))


def _at_step(call: Call, event: str) -> bool:
    return event == "step"
