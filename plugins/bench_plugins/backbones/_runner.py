"""Run single stages of a pipeline's own `__call__`: encode prompts, draw latents, predict, decode.

Each stage is a call of the pipeline that is stopped once the stage has happened; see `_calls`.
"""

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
from bench_plugins.backbones._calls import Call, CountedNetwork, Decoder
from bench_plugins.backbones._components import NETWORKS
from bench_plugins.backbones._facts import Facts, facts_of
from bench_plugins.backbones._latents import digits, order_of
from bench_plugins.backbones._slots import SHORT, Slots

for _library in (diffusers, transformers):  # their messages would interrupt the run's own output
    _library.logging.set_verbosity_error()
    _library.logging.disable_progress_bar()

# Keywords of `__call__` that switch guidance off.
UNGUIDED = {"guidance_scale": 1.0, "true_cfg_scale": 1.0, "pag_scale": 0.0}
# Keywords of `__call__` with which images keep their size and captions are not cleaned. By default,
# cleaning depends on which packages are installed.
PLAIN = {
    "output_type": "latent",
    "use_resolution_binning": False,
    "clean_caption": False,
    "num_frames": 1,
}
# Keyword of `__call__`: the number of tokens for the text encoder with the longest input.
MAX_TOKENS_KEYWORD = "max_sequence_length"
CLASS_LABELS = "class_labels"  # keyword of `__call__` in class-conditional pipelines


class PipelineRunner:
    """A pipeline, with the keywords to call it with.

    Attributes:
        who: the name of the pipeline in messages.
        call: the keywords of its `__call__`, without prompts.
        probed: whether no facts are declared, so that trial calls have to find them.
        slots: describes the results of its `encode_prompt`; None if it takes class labels.
        sample_shape: the shape of the first latents of one sample, before packing.
    """

    levels: Levels
    slots: Slots | None = None
    sample_shape: tuple[int, ...]
    device_override: torch.device | None = None

    def __init__(self, pipe: Any, call: Mapping[str, Any] | None = None) -> None:
        self.pipe = pipe
        self.who = f"The pipeline {type(pipe).__name__}"
        _check_networks(pipe, self.who)
        self.device: torch.device = self.device_override or pipe._execution_device
        pipeline_cls: Any = type(pipe)
        self.call_parameters = inspect.signature(pipeline_cls.__call__).parameters
        declared = facts_of(pipeline_cls.__name__)
        self.probed, self.facts = declared is None, declared or Facts()
        no_guidance = {} if embeds_guidance(self.network) else self.facts.call_without_guidance
        self.call: dict[str, Any] = {
            **self._keywords(), **self.facts.call, **no_guidance, **(call or {})
        }  # fmt: skip

    @property
    def network(self) -> torch.nn.Module:
        """The denoising network: the pipeline's transformer or UNet."""
        return network_of(self.pipe)

    @property
    def takes_labels(self) -> bool:
        """Whether the pipeline takes class labels, which are numbers, instead of prompts."""
        return CLASS_LABELS in self.call_parameters

    @property
    def vae(self) -> Any:
        """The autoencoder."""
        return self.pipe.vae

    def _keywords(self) -> dict[str, Any]:
        """Return the keywords of `UNGUIDED` and `PLAIN` that the pipeline has.

        A guidance-distilled network takes the scale as an input: it keeps the pipeline's default.
        """
        keywords = {**UNGUIDED, **PLAIN}
        if embeds_guidance(self.network):
            del keywords["guidance_scale"]
        return {
            name: value
            for name, value in keywords.items()
            if name in self.call_parameters
            and self.call_parameters[name].default not in (None, value)
        }

    def run(
        self,
        encodings: list[Any] | None,
        prompts: list[Any],
        times: Tensor,
        stops: Any,
        **more: Any,
    ) -> Call:
        """Call the pipeline with `prompts`, which are texts or class labels.

        `encodings` is what `encode_prompt` returns for them; None to run it. `more` are `latents`
        and `components` of `Call`, and keywords of the pipeline's `__call__`.
        """
        options = {name: more.pop(name) for name in ("latents", "components") if name in more}
        name = CLASS_LABELS if self.takes_labels else "prompt"
        keywords = {name: prompts, "num_inference_steps": 1, **self.call, **more}
        return Call(
            self.pipe,
            keywords,
            times,
            encodings=encodings,
            stops=stops,
            device=self.device_override,
            **options,
        )

    def _short_prompts(self, count: int) -> tuple[list[Any] | None, list[Any]]:
        """Return the encodings of `count` short prompts, and the prompts."""
        if self.slots is None:
            return None, [0] * count
        tree = {name: leaf.expand(count, *leaf.shape[1:]) for name, leaf in self.shortest.items()}
        return self.slots.returned(tree, self.slots.lengths(tree)), [""] * count

    @cached_property
    def shortest(self) -> dict[str, Tensor]:
        """The conditioning of a short text or of label 0, one row."""
        if self.slots is None:
            return {"label": torch.zeros(1, dtype=torch.int64, device=self.device)}
        return self.slots.tree([SHORT])

    def encoded_prompts(self, texts: list[str], **keywords: Any) -> list[Any]:
        """Return the result of each call of `encode_prompt` that the pipeline makes for texts."""
        return self.run(
            None,
            list(texts),
            torch.zeros(1),
            lambda _, event: event in ("draw", "schedule"),
            **keywords,
        ).returned

    def try_step(self, count: int, components: Mapping[str, Any]) -> None:
        """Call the pipeline for one step on zero latents, with `components` in place of its own."""
        time = torch.as_tensor(self.levels.time[-1:])
        self.run(*self._short_prompts(count), time, at_step, components=components)

    def first_latents(self, steps: int | None) -> Call:
        """Return a call in which the pipeline draws latents and sets its noise levels.

        With `steps` None, it has the pipeline's default number of steps. Raises UserError if it
        does not use `randn_tensor` and `scheduler.set_timesteps`.
        """
        steps = steps or self.call_parameters["num_inference_steps"].default
        call = self.run(
            *self._short_prompts(1),
            torch.zeros(1),
            lambda call, _: bool(call.shapes) and call.schedule is not None,
            num_inference_steps=steps,
        )
        if not call.shapes or call.schedule is None:
            problem = (
                "does not draw latents with `randn_tensor`"
                if not call.shapes
                else "does not call `scheduler.set_timesteps`"
            )
            raise UserError(f"{self.who} cannot be used: it {problem}.")
        return call

    def image_shape(self) -> tuple[int, int, int]:
        """Return the latents' shape (C, H, W). Raises UserError unless they are of one image."""
        shape = list(self.sample_shape)
        if len(shape) == 4 and 1 in shape:  # a video of one frame
            shape.remove(1)
        if len(shape) != 3:
            raise UserError(
                f"{self.who} cannot be used: expected latents of one image, (C, H, W), got shape"
                f" {list(self.sample_shape)}."
            )
        return shape[0], shape[1], shape[2]

    def decode(self, latents: Tensor) -> Tensor:
        """Return the image of one latent, [1, C, H, W], float32 [1, 3, H, W]."""
        denormalised = self.decoder_input(latents.double())
        image: Tensor = self.vae.decode(denormalised.to(self.vae.dtype), return_dict=False)[0]
        return image.reshape(1, 3, *image.shape[-2:]).float()

    def decoder_input(self, latents: Tensor) -> Tensor:
        """Return what the pipeline passes to `vae.decode` if these are its last latents.

        Raises UserError if it does not call `vae.decode`.
        """
        decoder = Decoder(self.pipe.vae)
        components: dict[str, Any] = {"vae": decoder}
        encodings, prompts = self._short_prompts(len(latents))
        # Some pipelines cast their latents to the dtype of the encoded prompts.
        in_double = tree_map_only(
            Tensor, lambda t: t.double() if t.is_floating_point() else t, encodings
        )

        def call(times: Tensor) -> None:
            self.run(
                in_double,
                prompts,
                times,
                lambda call, event: False,
                output_type="pt",
                latents=latents,
                components=components,
            )

        try:
            call(torch.empty(0))
        except UnboundLocalError:  # it decodes the result of a step, as an LCM's pipeline does
            components.update(self._echo())
            call(torch.as_tensor(self.levels.time[-1:]))
        if decoder.decoded is None:
            raise UserError(f"{self.who} cannot be used: it does not call `vae.decode`.")
        return decoder.decoded

    @cached_property
    def order(self) -> Tensor | None:
        """Index of the latent's element at each place of a packed sample, int64 [elements].

        None if the pipeline does not reorder the elements.
        """
        with torch.inference_mode(False), torch.no_grad():
            latents = digits(prod(self.sample_shape))
            time = torch.as_tensor(self.levels.time[len(self.levels) // 2 :][:1])
            run = partial(
                self.run, *self._short_prompts(len(latents)), time, at_step, latents=latents
            )
            try:
                call = run(components=self._echo())
            except Exception:  # for example, the network predicts more channels than it takes
                call = run()
            order = order_of(call.sample, self.who)
        return None if bool((order.diff() == 1).all()) else order.to(self.device)

    def _echo(self) -> dict[str, CountedNetwork]:
        """Return a network that returns its input, for calls in which only the latents matter."""
        return {network_name(self.pipe): CountedNetwork(network_of(self.pipe), echoes=True)}


def network_name(pipe: Any) -> str:
    """Return the network's name, `transformer` or `unet`. Raises UserError if it has neither."""
    for name in NETWORKS:
        if isinstance(getattr(pipe, name, None), torch.nn.Module):
            return name
    raise UserError(
        f"The pipeline {type(pipe).__name__} cannot be used: it has no transformer and no unet."
    )


def network_of(pipe: Any) -> torch.nn.Module:
    """Return a pipeline's denoising network."""
    network: torch.nn.Module = getattr(pipe, network_name(pipe))
    return network


def _check_networks(pipe: Any, who: str) -> None:
    """Raise UserError if a pipeline has another network that predicts at a time."""
    network = network_of(pipe)
    for name, module in pipe.components.items():
        if not isinstance(module, torch.nn.Module) or module is network:
            continue
        inputs = inspect.signature(module.forward).parameters
        takes_time = "t" in inputs or any(key.startswith("timestep") for key in inputs)
        if takes_time or type(module) is type(network):
            raise UserError(
                f"{who} cannot be used: it has a second network, {name}. A single network has to"
                " predict at all noise levels."
            )


def embeds_guidance(network: Any) -> bool:
    """Return whether the network is guidance-distilled, so the scale is one of its inputs."""
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
    """Return the number of tokens of each text and the maximum allowed, or None if unknown.

    The maximum is that of the tokenizer with the lowest limit, unless another one is declared.
    `max_sequence_length` sets the limit of the tokenizer with the highest one.
    """
    components = denoiser.pipe.components
    limits = {
        name: component.model_max_length
        for name, component in components.items()
        if hasattr(component, "model_max_length")
    }
    if not limits:
        return None
    if (parameter := denoiser.call_parameters.get(MAX_TOKENS_KEYWORD)) is not None:
        longest = max(limits, key=lambda name: (limits[name], name))
        limits[longest] = denoiser.call.get(MAX_TOKENS_KEYWORD, parameter.default)
    name = denoiser.facts.tokenizer or min(limits, key=lambda name: limits[name])
    return [len(ids) for ids in components[name](list(texts)).input_ids], limits[name]
