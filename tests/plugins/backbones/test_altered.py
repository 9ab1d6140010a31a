"""What people alter in a pipeline in memory has another id, or the pipeline is refused by name."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import peft
import pytest
import torch
from helpers.altered import (
    REFUSED,
    Doubling,
    block,
    differ,
    doubled,
    identity,
    numbers,
    subclass,
    with_adapters,
)
from helpers.matrix import matrix
from helpers.refusals import refused
from torch import nn

from bench_plugins.backbones._pipelines.gate import modules_of
from bench_plugins.backbones._weights.identity import altered_parts
from bench_plugins.backbones._weights.twin import AlteredError
from bench_plugins.backbones.pipeline_live import LivePipeline


def adds_one(module: torch.nn.Module) -> None:
    next(module.parameters()).data.view(-1)[0] += 1


def hidden_buffer(pipe: Any) -> None:
    pipe.unet.register_buffer("shift", torch.ones(1), persistent=False)


CHANGES: dict[str, Callable[[Any], object]] = {
    "the network": lambda pipe: adds_one(pipe.unet),
    "the second text encoder": lambda pipe: adds_one(pipe.text_encoder_2),
    "a buffer that is not stored": hidden_buffer,
    "the target": lambda pipe: pipe.scheduler.register_to_config(prediction_type="v_prediction"),
    "the autoencoder's scale": lambda pipe: pipe.vae.register_to_config(scaling_factor=0.2),
    "a tokenizer": lambda pipe: pipe.tokenizer.add_tokens(["platypus"]),
    "the embedding of no prompt": lambda pipe: pipe.register_to_config(
        force_zeros_for_empty_prompt=False
    ),
    "the dtype of a part": lambda pipe: pipe.text_encoder.to(torch.bfloat16),
    "a number for a component": lambda pipe: setattr(pipe, "image_encoder", 1),
}


def test_a_copy_has_the_same_id_and_another_call_another(pipe: Any, plain: Any) -> None:
    assert identity(pipe) == plain[0] != identity(pipe, call={"guidance_rescale": 0.1})


def test_the_content_is_the_identity(pipe: Any) -> None:
    """Of each change, in a pipeline that has had those before it."""
    backbone = LivePipeline(pipe)
    seen = {backbone.content().fingerprint}
    for name, change in CHANGES.items():
        change(pipe)
        found = backbone.content().fingerprint
        assert found not in seen, name
        seen.add(found)


def circular(pipe: Any) -> None:
    for module in pipe.unet.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "circular"


def sampled_latents(pipe: Any) -> None:
    """As people do who mean to sample a posterior's mean with another scale."""
    own = pipe.vae._encode
    pipe.vae._encode = lambda pixels: 2 * own(pixels)


def rescaled_text(pipe: Any) -> None:
    subclass(pipe.text_encoder.get_input_embeddings(), "forward")


def first(component: Any, end: str) -> Any:
    return next(module for name, module in component.named_modules() if name.endswith(end))


def patched_class(pipe: Any) -> None:
    """As token merging does with each block of a network."""
    subclass(block(pipe), "forward")


def scales_by_block(pipe: Any, lora: Path, order: int = 1) -> None:
    """Two scales in one adapter; only where each of them is, differs."""
    layers = with_adapters(pipe, lora, "a")
    for layer, scale in zip(layers, [0.5, 2.0][::order] * len(layers), strict=False):
        layer.scaling["a"] = scale


def numbered(pipe: Any, lora: Path, value: float = 0.0, name: str = "0") -> None:
    """An adapter that is off, and called as a part of a path of the one that is on."""
    layers = with_adapters(pipe, lora, "on", name)
    pipe.set_adapters(["on"], [1.0])
    for layer in layers:
        layer.lora_A["on"].weight.data += value


def alphas_by_block(pipe: Any, lora: Path, block: str = "mid_block") -> None:
    """An adapter that is stronger in one block, as its file says."""
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, target_modules=["to_q"], alpha_pattern={f".*{block}.*": 16})
    pipe.unet.add_adapter(config, "a")


def off_in_a_layer(pipe: Any, lora: Path) -> None:
    layers = with_adapters(pipe, lora, "a")
    layers[0].set_adapter([])


# As people do. Those of any part, drawn at random, are in `test_twin`.
ALONE: dict[str, Callable[[Any], object]] = {
    "circular padding": circular,
    "a pipeline of a subclass": lambda pipe: subclass(pipe, "_get_add_time_ids"),
    "a network of a subclass": lambda pipe: subclass(pipe.unet, "forward"),
    "a processor": lambda pipe: setattr(block(pipe).attn1, "processor", Doubling()),
    "a norm's eps": lambda pipe: setattr(block(pipe).norm1, "eps", 0.5),
    "an activation": lambda pipe: setattr(pipe.unet, "conv_act", nn.Tanh()),
    "heads": lambda pipe: setattr(block(pipe).attn1, "heads", 2 * block(pipe).attn1.heads),
    "a flag": lambda pipe: setattr(block(pipe).attn1, "residual_connection", True),
    "another class of a block": patched_class,
    "the embedding of the time": lambda pipe: setattr(
        pipe.unet, "get_time_embed", doubled(pipe.unet.get_time_embed)
    ),
    "the autoencoder's _encode": sampled_latents,
    "an embedding's class": rescaled_text,
}


ADAPTERS: dict[str, tuple[Callable[..., object], Callable[..., object]]] = {
    "scales by block": (scales_by_block, lambda pipe, lora: scales_by_block(pipe, lora, -1)),
    **{
        f"an adapter called {name}": (
            partial(numbered, name=name),
            partial(numbered, value=1.0, name=name),
        )
        for name in ("0", "1")
    },
    "alphas by block": (alphas_by_block, partial(alphas_by_block, block="down_blocks")),
    "on in some layers": (lambda pipe, lora: with_adapters(pipe, lora, "a"), off_in_a_layer),
}


ALWAYS = {"circular padding", "another class of a block", "the autoencoder's _encode"}


@pytest.mark.parametrize("alteration", matrix(ALONE, ALWAYS))
def test_what_is_altered_has_another_id_or_none(alteration: str, pipe: Any, plain: Any) -> None:
    """All of these change numbers."""
    ALONE[alteration](pipe)
    assert identity(pipe) != plain[0]
    assert differ(numbers(pipe), plain[1])


@pytest.mark.parametrize("state", matrix(ADAPTERS, ["an adapter called 0"]))
def test_states_of_adapters_are_told_apart(state: str, original: Any, lora: Path) -> None:
    pipes = copy.deepcopy(original), copy.deepcopy(original)
    for alter, own in zip(ADAPTERS[state], pipes, strict=True):
        alter(own, lora)
    assert len({*map(identity, pipes)}) == 2


def test_an_adapter_in_one_state_is_not_an_alteration(pipe: Any, lora: Path) -> None:
    with_adapters(pipe, lora, "a", "b")
    changes = (lambda: pipe.set_adapters(["a"], [0.5]), pipe.disable_lora, pipe.enable_lora)
    for change in (*changes, pipe.fuse_lora):
        change()
        assert altered_parts(modules_of(pipe)) == {}


def drops_at_random(pipe: Any) -> None:
    dropout = pipe.unet.mid_block.resnets[0].dropout
    dropout.p = 0.1
    dropout.train()


def attention_drops_at_random(pipe: Any) -> None:
    attention = first(pipe.text_encoder, "0.self_attn")
    attention.dropout = 0.1
    attention.train()


def cached(pipe: Any) -> None:
    config = diffusers.hooks.pyramid_attention_broadcast.PyramidAttentionBroadcastHook(
        timestep_skip_range=(1, 2), block_skip_range=2, current_timestep_callback=lambda: 1
    )
    registry = diffusers.hooks.HookRegistry.check_if_exists_or_initialize(pipe.unet)
    registry.register_hook(config, "cache")


NAMED: dict[str, tuple[Callable[[Any], object], str]] = {
    "a forward hook": (
        lambda pipe: pipe.unet.mid_block.register_forward_hook(lambda module, given, made: made),
        "unet.mid_block",
    ),
    "another encode": (
        lambda pipe: setattr(pipe.vae, "encode", doubled(pipe.vae.encode)),
        "vae.encode",
    ),
    "dropout": (drops_at_random, "unet.mid_block.resnets.0.dropout"),
    "attention's dropout": (attention_drops_at_random, "dropout in training mode"),
    "a method": (lambda pipe: setattr(pipe, "encode_prompt", print), "pipe.encode_prompt"),
    "a cache": (cached, "PyramidAttentionBroadcastHook"),
    "code that is compiled": (
        lambda pipe: setattr(pipe.unet, "conv_act", torch.jit.script(nn.Tanh())),
        "unet.conv_act",
    ),
}


@pytest.mark.parametrize("alteration", NAMED)
def test_what_no_library_could_make_is_refused_by_name(alteration: str, pipe: Any) -> None:
    alter, subject = NAMED[alteration]
    alter(pipe)
    with refused(subject, kind=AlteredError):
        LivePipeline(pipe)


def test_what_is_altered_is_described_also_once_it_was_loaded(
    pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, hooks = LivePipeline(pipe), torch.nn.modules.module._global_forward_hooks
    pipe.unet.conv_act = nn.Tanh()
    assert "unet.conv_act" in backbone.content().description["altered"]
    monkeypatch.setitem(hooks, -1, lambda module, given, made: made)
    with refused("hook", kind=AlteredError):
        backbone.content()


def test_weights_that_are_cast_layer_by_layer_are_no_alteration(pipe: Any) -> None:
    pipe.unet.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    assert altered_parts(modules_of(pipe)) == {}


def test_attention_that_is_replaced_for_all_is_refused(
    pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", lambda q, k, v, **_: v)
    assert identity(pipe) == REFUSED


@pytest.mark.parametrize("owner", [nn.GroupNorm, type(nn.functional), torch])
def test_a_method_or_function_of_a_library_that_is_replaced_is_refused(
    owner: Any, pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, name = (owner, "forward") if owner is nn.GroupNorm else (nn.functional, "group_norm")
    monkeypatch.setattr(place, name, doubled(getattr(place, name)))
    assert identity(pipe) == REFUSED


def test_a_class_that_a_library_makes_in_a_function_refuses_no_plain_pipeline(pipe: Any) -> None:
    """As transformers 5.25 does with kernels, for the functions that layers call."""
    made: Any = type("Func", (nn.Module,), {"__qualname__": "_make.<locals>.Func"})
    made.__module__ = nn.Linear.__module__
    pipe.unet.conv_act.kernel = made()
    LivePipeline(pipe)
    own = nn.Module.__call__
    made.forward = lambda *given: own(*given)
    with refused("forward", kind=AlteredError):
        LivePipeline(pipe)
