"""Driving a pipeline through the seam: encode, draw, set levels, decode and predict."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from math import prod
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor
from torch.utils._pytree import tree_map_only

from bench.contracts.levels import Levels
from bench.errors import UserError
from bench_plugins.backbones._facts import Facts, facts_of
from bench_plugins.backbones._latents import digits, order_of
from bench_plugins.backbones._parts import NETWORKS
from bench_plugins.backbones._seam import Call, CountedNetwork, Decoder
from bench_plugins.backbones._slots import SHORT, Slots

diffusers.logging.set_verbosity_error()
transformers.logging.set_verbosity_error()

UNGUIDED = {"guidance_scale": 1.0, "true_cfg_scale": 1.0, "pag_scale": 0.0}
# The size of an image is not rounded, and captions are not cleaned, whatever is installed.
PLAIN = {
    "output_type": "latent",
    "use_resolution_binning": False,
    "clean_caption": False,
    "num_frames": 1,
}
LENGTH = "max_sequence_length"  # a pipeline's keyword: tokens of its long text encoder
CLASS_LABELS = "class_labels"  # what a pipeline without prompts takes


class DrivenPipeline:
    """A pipeline and the keywords that its `__call__` is given.

    Attributes:
        pipe: the pipeline, which is not changed.
        who: the name of the pipeline in messages.
        call: all keywords that the pipeline's `__call__` is given.
        facts: what is declared of its class.
        probed: whether nothing is declared.
        slots: the results of its `encode_prompt`; None: it takes labels.
        levels: its noise levels.
        device: where it runs.
        placed: the device where it runs whatever that of its parts; None: that of its parts.
        sample_shape: the shape of a sample's first latents, before packing.
    """

    levels: Levels
    slots: Slots | None = None
    sample_shape: tuple[int, ...]
    placed: torch.device | None = None

    def __init__(self, pipe: Any, call: Mapping[str, Any] | None = None) -> None:
        self.pipe = pipe
        self.device: torch.device = self.placed or pipe._execution_device
        self.who = f"The pipeline {type(pipe).__name__}"
        kind: Any = type(pipe)
        self._takes = inspect.signature(kind.__call__).parameters
        declared = facts_of(kind.__name__)
        self.probed, self.facts = declared is None, declared or Facts()
        plain = {} if embeds_guidance(self.network) else self.facts.call_without_guidance
        self.call: dict[str, Any] = {
            **self._keywords(), **self.facts.call, **plain, **(call or {})
        }  # fmt: skip

    @property
    def network(self) -> torch.nn.Module:
        """The module that predicts."""
        return network_of(self.pipe)

    @property
    def takes_labels(self) -> bool:
        """Whether the pipeline takes the numbers of classes instead of prompts."""
        return CLASS_LABELS in self._takes

    @property
    def vae(self) -> Any:
        """The autoencoder."""
        return self.pipe.vae

    def _keywords(self) -> dict[str, Any]:
        """Return keywords that switch guidance, cleaning and frames off, if the pipeline has them.

        A guidance scale that the network takes as an input keeps the pipeline's default.
        """
        keywords = {**UNGUIDED, **PLAIN}
        if embeds_guidance(self.network):
            del keywords["guidance_scale"]
        return {
            name: value
            for name, value in keywords.items()
            if name in self._takes and self._takes[name].default not in (None, value)
        }

    def run(
        self, texts: list[Any] | None, prompts: list[Any], times: Tensor, stops: Any, **more: Any
    ) -> Call:
        """Call the pipeline for prompts; `texts` are their encodings, None to encode them."""
        parts = {name: more.pop(name) for name in ("latents", "parts") if name in more}
        name = CLASS_LABELS if self.takes_labels else "prompt"
        keywords = {name: prompts, "num_inference_steps": 1, **self.call, **more}
        return Call(
            self.pipe, keywords, times, texts=texts, stops=stops, device=self.placed, **parts
        )

    def _short_prompts(self, count: int) -> tuple[list[Any] | None, list[Any]]:
        """Return the encodings of `count` short prompts, and the prompts."""
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

    def encoded_prompts(self, texts: list[str], **keywords: Any) -> list[Any]:
        """Return what each call of the pipeline's `encode_prompt` returns."""
        ends = "draw", "schedule"
        return self.run(
            None, list(texts), torch.zeros(1), lambda _, event: event in ends, **keywords
        ).returned

    def try_step(self, count: int, parts: Mapping[str, Any]) -> None:
        """Predict latents of zeros with the pipeline, with `parts` in place of its own."""
        time = torch.as_tensor(self.levels.time[-1:])
        self.run(*self._short_prompts(count), time, at_step, parts=parts)

    def first_latents(self, steps: int | None) -> Call:
        """Return a call in which the pipeline draws latents and sets its levels.

        Args:
            steps: number of steps; None: the pipeline's default.

        Raises:
            UserError: it does neither in the usual way.
        """
        steps = steps or self._takes["num_inference_steps"].default
        call = self.run(
            *self._short_prompts(1),
            torch.zeros(1),
            lambda call, _: bool(call.shapes) and call.schedule is not None,
            num_inference_steps=steps,
        )
        if not call.shapes or call.schedule is None:
            lacking = "draws no latents" if not call.shapes else "sets no levels"
            raise UserError(f"{self.who} cannot be used: it {lacking} in the usual way.")
        return call

    def image_shape(self) -> tuple[int, int, int]:
        """Return (C, H, W) of the latents; raise `UserError` if they are not those of an image."""
        shape = list(self.sample_shape)
        if len(shape) == 4 and 1 in shape:  # of one frame
            shape.remove(1)
        if len(shape) != 3:
            raise UserError(
                f"{self.who} draws latents {list(self.sample_shape)}: not those of an image."
            )
        return shape[0], shape[1], shape[2]

    def decode(self, latents: Tensor) -> Tensor:
        """Return the image that the pipeline decodes from one latent, float32 [1, 3, H, W]."""
        decoded = self.decoder_input(latents.double())
        image: Tensor = self.vae.decode(decoded.to(self.vae.dtype), return_dict=False)[0]
        return image.reshape(1, 3, *image.shape[-2:]).float()

    def decoder_input(self, latents: Tensor) -> Tensor:
        """Return the input of the pipeline's VAE for its last latents."""
        decoder = Decoder(self.pipe.vae)
        parts: dict[str, Any] = {"vae": decoder}
        texts, prompts = self._short_prompts(len(latents))
        # Some give their latents the precision of what encodes the texts.
        doubled = tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, texts)

        def call(times: Tensor) -> None:
            self.run(
                doubled,
                prompts,
                times,
                lambda call, event: False,
                output_type="pt",
                latents=latents,
                parts=parts,
            )

        try:
            call(torch.empty(0))
        except UnboundLocalError:  # it decodes what a step returned, as an LCM's does
            parts.update(self._echo())
            call(torch.as_tensor(self.levels.time[-1:]))
        if decoder.decoded is None:
            raise UserError(f"{self.who} cannot be used: it decodes its latents without `vae`.")
        return decoder.decoded

    @cached_property
    def order(self) -> Tensor | None:
        """The origin of each packed element, int64 [elements]; None: latents are not packed."""
        with torch.inference_mode(False), torch.no_grad():
            sent = digits(prod(self.sample_shape))
            time = torch.as_tensor(self.levels.time[len(self.levels) // 2 :][:1])
            run = partial(self.run, *self._short_prompts(len(sent)), time, at_step, latents=sent)
            try:
                call = run(parts=self._echo())
            except Exception:  # such as of a network that predicts more than a latent
                call = run()
            order = order_of(call.sample, self.who)
        return None if bool((order.diff() == 1).all()) else order.to(self.device)

    def _echo(self) -> dict[str, CountedNetwork]:
        """Return a stand-in for the network, for calls in which only the latents matter."""
        return {network_name(self.pipe): CountedNetwork(network_of(self.pipe), echoes=True)}


def network_name(pipe: Any) -> str:
    """Return the name of a pipeline's network.

    Raises:
        UserError: it has none of a usual name.
    """
    for name in NETWORKS:
        if isinstance(getattr(pipe, name, None), torch.nn.Module):
            return name
    raise UserError(
        f"The pipeline {type(pipe).__name__} cannot be used: it has no transformer and no unet."
    )


def network_of(pipe: Any) -> torch.nn.Module:
    """Return the network of a pipeline."""
    network: torch.nn.Module = getattr(pipe, network_name(pipe))
    return network


def embeds_guidance(network: Any) -> bool:
    """Return whether the guidance scale is an input of the network, as in a distilled one."""
    config = network.config
    return bool(config.get("guidance_embeds")) or config.get("time_cond_proj_dim") is not None


def pixels_of(pipe: Any) -> int:
    """Return the number of pixels per element of a latent, along a side."""
    for name in ("vae_scale_factor", "vae_scale_factor_spatial"):
        if isinstance(factor := getattr(pipe, name, None), int):
            return factor
    return int(2 ** (len(pipe.vae.config.block_out_channels) - 1))


def at_step(call: Call, event: str) -> bool:
    """Return whether a call has reached its first prediction."""
    return event == "step"


def token_counts(denoiser: Any, texts: Sequence[str]) -> tuple[list[int], int] | None:
    """Return the tokens of each text and the most that a pipeline takes; None: unknown.

    A length that the pipeline's call takes is that of the tokenizer with the largest limit.
    """
    parts = denoiser.pipe.components
    limits = {n: p.model_max_length for n, p in parts.items() if hasattr(p, "model_max_length")}
    if not limits:
        return None
    if (takes := denoiser._takes.get(LENGTH)) is not None:
        longest = max(limits, key=lambda name: (limits[name], name))
        limits[longest] = denoiser.call.get(LENGTH, takes.default)
    name = denoiser.facts.tokenizer or min(limits, key=lambda name: limits[name])
    return [len(ids) for ids in parts[name](list(texts)).input_ids], limits[name]
