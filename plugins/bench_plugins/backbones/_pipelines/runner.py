"""Run single stages of a pipeline's own `__call__`: encode prompts, draw latents, predict, decode.

Each stage is a call of the pipeline that is stopped once the stage has happened; see `calls`.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bench.machine.libraries.private_diffusers import EXECUTION_DEVICE
from bench.machine.libraries.private_torch import tree_map_only
from bench_plugins.backbones._facts import Facts, facts_of
from bench_plugins.backbones._pipelines.calls import Call, CountedNetwork, Decoder, ReadyPrompts
from bench_plugins.backbones._pipelines.gate import (
    CLASS_LABELS,
    call_parameters,
    modules_of,
    network_name,
    network_of,
    unusable,
)
from bench_plugins.backbones._pipelines.labels import labels_of
from bench_plugins.backbones._pipelines.slots import SHORT, Slots
from bench_plugins.backbones._weights.components import AUTOENCODER

# Keywords of `__call__` that switch guidance off.
UNGUIDED = {"guidance_scale": 1.0, "true_cfg_scale": 1.0, "pag_scale": 0.0}
# Keywords of `__call__` with which images keep their size, and captions are neither rewritten nor
# cleaned. By default, cleaning depends on which packages are installed.
PLAIN = {
    "output_type": "latent",
    "use_resolution_binning": False,
    "clean_caption": False,
    "num_frames": 1,
    "enable_prompt_rewrite": False,  # by a language model, which draws the words
}
BESIDE = "beside `encode_prompt`"
STEPS_OF_CALL = 2  # of a call, which stops before: some pipelines divide by half of it
# Keyword of `__call__`: the number of tokens for the text encoder with the longest input.
MAX_TOKENS_KEYWORD = "max_sequence_length"


@dataclass(frozen=True)
class Runner:
    """A pipeline, with the keywords to call it with.

    Attributes:
        call: the keywords of its `__call__`, without prompts.
        device_override: the device of its inputs; None for the pipeline's own.
        dtype_override: the dtype of encoded prompts; None for that of their encoder.
        slots: describes the results of its `encode_prompt`; None if it takes class labels.
        source: where it was loaded from, for messages; empty for an object in memory.
    """

    pipe: Any
    call: Mapping[str, Any]
    device_override: torch.device | None = None
    dtype_override: torch.dtype | None = None
    slots: Slots | None = None
    source: str = ""

    @property
    def who(self) -> str:
        """The name of the pipeline in messages."""
        kind = type(self.pipe).__name__
        return f"The weights {self.source}: the {kind}" if self.source else f"The pipeline {kind}"

    @property
    def declared(self) -> Facts | None:
        """The facts declared for the pipeline's class; None if trial calls have to find them."""
        return facts_of(type(self.pipe).__name__)

    @property
    def device(self) -> torch.device:
        """The device of the pipeline's inputs."""
        return self.device_override or getattr(self.pipe, EXECUTION_DEVICE)

    @cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of the pipeline's `__call__`."""
        return parameters_of(self.pipe)

    @property
    def takes_labels(self) -> bool:
        """Whether the pipeline takes class labels, which are numbers, instead of prompts."""
        return CLASS_LABELS in self.parameters

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
        keywords = {name: prompts, "num_inference_steps": STEPS_OF_CALL, **self.call, **more}
        return Call(
            self.pipe,
            keywords,
            times,
            encodings=encodings,
            stops=stops,
            device=self.device_override,
            dtype=self.dtype_override,
            **options,
        )

    def encoded_prompts(self, texts: list[str], **keywords: Any) -> list[Any]:
        """Return the result of each call of `encode_prompt` that the pipeline makes for texts."""
        return self.run(
            None,
            list(texts),
            torch.zeros(1),
            lambda _, event: event in ("draw", "schedule"),
            **keywords,
        ).returned

    @cached_property
    def shortest(self) -> dict[str, Tensor]:
        """The conditioning of a short text or of label 0, one row."""
        if self.slots is None:
            return {"label": torch.zeros(1, dtype=torch.int64, device=self.device)}
        return self.slots.tree([SHORT], self.encoded_prompts)

    def short_prompts(self, count: int) -> tuple[list[Any] | None, list[Any]]:
        """Return the encodings of `count` short prompts, and the prompts."""
        if self.slots is None:
            return None, [0] * count
        tree = {name: leaf.expand(count, *leaf.shape[1:]) for name, leaf in self.shortest.items()}
        return self.slots.returned(tree, self.slots.lengths(tree)), [""] * count

    def first_latents(self, steps: int | None) -> Call:
        """Return a call in which the pipeline draws latents and sets its noise levels.

        With `steps` None, it has the pipeline's default number of steps. Raises UserError if it
        does not use `randn_tensor` and `scheduler.set_timesteps`, or runs a text encoder again.
        """
        steps = steps or self.parameters["num_inference_steps"].default
        call = self.run(
            *self.short_prompts(1),
            torch.zeros(1),
            lambda call, _: bool(call.shapes) and call.schedule is not None,
            num_inference_steps=steps,
            components={
                name: ReadyPrompts(part, unusable(self.who, f"its {name} reads prompts {BESIDE}"))
                for name, part in modules_of(self.pipe).items()
                if name != AUTOENCODER and part is not network_of(self.pipe)
            },
        )
        if not call.shapes or call.schedule is None:
            problem = (
                "does not draw latents with `randn_tensor`"
                if not call.shapes
                else "does not call `scheduler.set_timesteps`"
            )
            raise unusable(self.who, f"it {problem}")
        return call

    def decoder_input(self, latents: Tensor, time: Tensor) -> Tensor:
        """Return what the pipeline passes to `vae.decode` if these are its last latents.

        `time`, [1], is that of a step. Raises UserError if it does not call `vae.decode`.
        """
        decoder = Decoder(self.pipe.vae)
        components: dict[str, Any] = {"vae": decoder}
        encodings, prompts = self.short_prompts(len(latents))
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
            components |= self.counted(echoes=True)
            call(time)
        if decoder.decoded is None:
            raise unusable(self.who, "it does not call `vae.decode`")
        return decoder.decoded

    def counted(self, echoes: bool = False) -> dict[str, CountedNetwork]:
        """Return the network, by its name, in a form that records the batch sizes.

        With `echoes` it returns its input, for calls in which only the latents matter.
        """
        return {network_name(self.pipe): CountedNetwork(network_of(self.pipe), echoes)}

    def labels(self, texts: Sequence[str]) -> list[int]:
        """Return the class label of each text. Raises UserError if it has none."""
        network: Any = network_of(self.pipe)
        return labels_of(self.who, network.config.num_embeds_ada_norm, self.pipe.labels, texts)

    def token_counts(self, texts: Sequence[str]) -> tuple[list[int], int] | None:
        """Return the number of tokens of each text and the maximum allowed, or None if unknown.

        The maximum is that of the tokenizer with the lowest limit, unless another one is declared.
        The keyword `max_sequence_length` sets that of the tokenizer with the highest one. Raises
        UserError as `check_tokens` does.
        """
        if self.takes_labels:
            return [1 for _ in self.labels(texts)], 1
        limits = {
            name: component.model_max_length
            for name, component in self.pipe.components.items()
            if hasattr(component, "model_max_length")
        }
        if not limits:
            return None
        if (parameter := self.parameters.get(MAX_TOKENS_KEYWORD)) is not None:
            longest = max(limits, key=lambda name: (limits[name], name))
            limits[longest] = self.call.get(MAX_TOKENS_KEYWORD, parameter.default)
        self.check_tokens(texts)
        name = (self.declared or Facts()).tokenizer or min(limits, key=lambda name: limits[name])
        return [len(ids) for ids in self.pipe.components[name](list(texts)).input_ids], limits[name]

    def check_tokens(self, texts: Sequence[str]) -> None:
        """Raise UserError if a text has a token that a text encoder does not know."""
        for name, tokenizer in self.pipe.components.items():
            encoder = getattr(self.pipe, name.replace("tokenizer", "text_encoder"), None)
            if encoder not in (None, tokenizer) and hasattr(tokenizer, "get_vocab"):
                size = getattr(encoder.get_input_embeddings(), "num_embeddings", None)
                if problem := token_problem(tokenizer, texts, size):
                    raise unusable(self.who, f"its {name} {problem}")


def parameters_of(pipe: Any) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a pipeline's `__call__`; see `call_parameters`."""
    return call_parameters(type(pipe))


def default_call(pipe: Any, keeps_defaults: bool = False) -> dict[str, Any]:
    """Return the keywords with which a pipeline is called without guidance.

    A guidance-distilled network takes the scale as an input: it keeps the pipeline's default. With
    `keeps_defaults`, any network keeps those that are declared for others, such as lengths.
    """
    parameters, facts = parameters_of(pipe), facts_of(type(pipe).__name__) or Facts()
    keywords, is_distilled = {**UNGUIDED, **PLAIN}, embeds_guidance(network_of(pipe))
    if is_distilled:
        del keywords["guidance_scale"]
    changed = {
        name: value
        for name, value in keywords.items()
        if name in parameters and parameters[name].default not in (None, value)
    }
    own = {} if keeps_defaults or is_distilled else facts.call_without_guidance
    return {**changed, **facts.call, **own}


def embeds_guidance(network: Any) -> bool:
    """Return whether the network is guidance-distilled, so the scale is one of its inputs."""
    config = network.config
    return bool(config.get("guidance_embeds")) or config.get("time_cond_proj_dim") is not None


def at_step(call: Call, event: str) -> bool:
    """Return whether a call has reached its first prediction."""
    return event == "step"


def token_problem(tokenizer: Any, texts: Sequence[str], size: int | None) -> str | None:
    """Return what is wrong with the tokens of texts, given the number of embeddings; or None.

    A token may have no embedding. And a tokenizer of bytes knows every text, unless a part of its
    vocabulary is lost.
    """
    unknown = getattr(tokenizer, "unk_token_id", None)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    has_all = backend is not None and "ByteLevel" in str(backend.pre_tokenizer)
    empty, *rows = tokenizer(["", *texts]).input_ids
    for text, ids in zip(texts, rows, strict=True):
        largest = max([*ids, tokenizer.pad_token_id or 0])
        if size is not None and largest >= size:
            return f"makes the token {largest} of {text!r:.80}, but the text encoder has {size}"
        if has_all and ids.count(unknown) > empty.count(unknown):
            return f"does not know a part of {text!r:.80}: its vocabulary is not whole"
    return None
