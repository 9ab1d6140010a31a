"""Equal ids mean equal numbers, whatever is altered; what changes no number keeps the id."""

import copy
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import accelerate
import diffusers
import pytest
import torch
from helpers.altered import (
    LORA,
    Doubling,
    block,
    differ,
    doubled,
    identity,
    numbers,
    other_scheduler,
    subclass,
    with_adapters,
)
from helpers.matrix import matrix
from torch import nn

from bench_plugins.backbones._pipelines.gate import modules_of
from bench_plugins.backbones._weights.identity import altered_parts
from bench_plugins.backbones._weights.twin import ALIKE, ALIKE_IN_CONFIGS

Alteration = Callable[[Any, random.Random], object]


def any_module(pipe: Any, draw: random.Random, kind: Any = nn.Module) -> Any:
    parts = modules_of(pipe)
    component = parts[draw.choice(sorted(parts))]
    modules = [module for module in component.modules() if isinstance(module, kind)]
    return draw.choice(modules or [component])


def alter_attribute(pipe: Any, draw: random.Random, owner: Any = None) -> None:
    owner = owner or any_module(pipe, draw)
    plain = (bool, int, float, str, tuple, type(None))
    skipped = {*vars(nn.Module()), *ALIKE}
    names = [n for n, v in sorted(vars(owner).items()) if isinstance(v, plain) and n not in skipped]
    if not names:
        return
    name = draw.choice(names)
    value = vars(owner)[name]
    others: dict[type, Callable[[Any], Any]] = {
        bool: lambda v: not v,
        int: lambda v: v + draw.choice([-1, 1]),
        float: lambda v: v * 2 + 0.1,
        str: lambda _: draw.choice(["circular", "reflect", "gelu", "default"]),
        tuple: lambda v: v[::-1] if v[::-1] != v else tuple(2 * x for x in v),
    }
    other = others.get(type(value))
    setattr(owner, name, other(value) if other else draw.choice([1, True, 0.5]))


def replace_module(pipe: Any, draw: random.Random) -> None:
    owner = any_module(pipe, draw)
    if names := sorted(owner._modules):
        setattr(owner, draw.choice(names), draw.choice([nn.Tanh(), nn.Identity(), nn.GELU()]))


def replace_method(pipe: Any, draw: random.Random) -> None:
    owner = any_module(pipe, draw)
    name = draw.choice(["forward", *(n for n in ("encode", "_encode") if hasattr(owner, n))])
    setattr(owner, name, doubled(getattr(owner, name)))


def replace_class(pipe: Any, draw: random.Random) -> None:
    subclass(any_module(pipe, draw), "forward")


def add_hook(pipe: Any, draw: random.Random) -> None:
    owner = any_module(pipe, draw)
    if draw.random() < 0.5:
        owner.register_forward_hook(lambda module, given, made: doubled(lambda: made)())
    else:
        owner.register_forward_pre_hook(lambda module, given: tuple(2 * g for g in given) or None)


def alter_processor(pipe: Any, draw: random.Random) -> None:
    attention = any_module(pipe, draw, diffusers.models.attention_processor.Attention)
    if not hasattr(attention, "processor"):
        return
    known = diffusers.models.attention_processor
    kinds: Any = (Doubling, known.AttnProcessor, known.PAGIdentitySelfAttnProcessor2_0)
    attention.processor = draw.choice(kinds)()


def alter_tensor(pipe: Any, draw: random.Random) -> None:
    owner = any_module(pipe, draw)
    if tensors := [*owner.parameters(), *owner.buffers()]:
        draw.choice(tensors).data.view(-1)[0] += 1


def alter_adapters(pipe: Any, draw: random.Random) -> None:
    layers = [module for module in pipe.unet.modules() if hasattr(module, "lora_A")]
    layer, name = draw.choice(layers), draw.choice(["a", "0"])
    changes: list[Callable[[], object]] = [
        lambda: layer.scaling.__setitem__(name, 3.0),
        lambda: layer.set_adapter([name]),
        lambda: layer.lora_A[name].weight.data.add_(1),
        lambda: layer.lora_dropout.__setitem__(name, nn.Tanh()),
        lambda: pipe.set_adapters([name], [draw.random()]),
        lambda: pipe.fuse_lora(lora_scale=draw.random()),
    ]
    draw.choice(changes)()


def alter_pipeline(pipe: Any, draw: random.Random) -> None:
    owner = draw.choice([pipe, pipe.tokenizer, pipe.tokenizer_2, pipe.text_encoder.config])
    alter_attribute(pipe, draw, owner)


KINDS: dict[str, Alteration] = {
    "attribute": alter_attribute,
    "module": replace_module,
    "method": replace_method,
    "class": replace_class,
    "hook": add_hook,
    "processor": alter_processor,
    "tensor": alter_tensor,
    "adapters": alter_adapters,
    "pipeline": alter_pipeline,
}


CASES = [(kind, seed) for seed in range(34) for kind in KINDS]


@pytest.fixture(scope="module")
def adapted(original: Any, lora: Path) -> Any:
    """A pipeline with two adapters, both on."""
    pipe = copy.deepcopy(original)
    with_adapters(pipe, lora, "a", "0")
    pipe.set_adapters(["a", "0"], [1.0, 0.5])
    return pipe


@pytest.mark.parametrize(("kind", "seed"), matrix(CASES, CASES[:2]))
def test_the_same_id_has_the_same_numbers(
    kind: str, seed: int, pipe: Any, request: pytest.FixtureRequest
) -> None:
    own = copy.deepcopy(request.getfixturevalue("adapted")) if kind == "adapters" else pipe
    before = copy.deepcopy(own)
    KINDS[kind](own, random.Random(f"{kind} {seed}"))
    try:
        found = identity(own)
    except Exception:  # refused for another reason, or whatever a damaged pipeline raises
        return
    if found == identity(before):
        assert not differ(numbers(own), numbers(before))


def used(pipe: Any) -> None:
    pipe("a fir tree", num_inference_steps=1, output_type="latent")


def lora_loaded_and_unloaded(pipe: Any) -> None:
    pipe.load_lora_weights(pipe.scratch, weight_name=LORA)
    numbers(pipe)
    pipe.unload_lora_weights()


def freed(pipe: Any) -> None:
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.3, b2=1.4)
    pipe.disable_freeu()


def lora_that_is_off(pipe: Any) -> None:
    pipe.load_lora_weights(pipe.scratch, weight_name=LORA)
    pipe.disable_lora()


SAME: dict[str, Callable[[Any], object]] = {
    "used": used,
    **{
        name: partial(other_scheduler, name=name)
        for name in ("DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler")
    },
    "a LoRA that is off": lora_that_is_off,
    "hooks that came and went": lambda pipe: [
        accelerate.hooks.add_hook_to_module(pipe.unet, accelerate.hooks.ModelHook()),
        accelerate.hooks.remove_hook_from_module(pipe.unet),
    ],
    "channels last": lambda pipe: pipe.unet.to(memory_format=torch.channels_last),
    "sliced attention": lambda pipe: pipe.enable_attention_slicing(),
    "sliced pictures": lambda pipe: pipe.vae.enable_slicing(),
    "checkpointing": lambda pipe: [
        pipe.unet.enable_gradient_checkpointing(),
        pipe.text_encoder.gradient_checkpointing_enable(),
    ],
    "offloaded": lambda pipe: [
        accelerate.cpu_offload(part, execution_device="cpu") for part in modules_of(pipe).values()
    ],
    "offloaded by its pipeline": lambda pipe: pipe.enable_model_cpu_offload(device="cpu"),
    "offloaded in groups": lambda pipe: diffusers.hooks.apply_group_offloading(
        pipe.unet, onload_device=torch.device("cpu"), offload_type="leaf_level"
    ),
    "compiled in place": lambda pipe: pipe.unet.compile(backend="eager"),
    "compiled": lambda pipe: setattr(pipe, "unet", torch.compile(pipe.unet, backend="eager")),
    "a block compiled": lambda pipe: setattr(
        pipe.unet, "mid_block", torch.compile(pipe.unet.mid_block, backend="eager")
    ),
    "a LoRA that came and went": lora_loaded_and_unloaded,
    "FreeU that is off again": freed,
    "a bar": lambda pipe: pipe.set_progress_bar_config(disable=False, desc="x"),
}


@pytest.mark.parametrize("change", matrix(SAME, ["offloaded"]))
def test_what_changes_no_number_keeps_the_id(
    change: str, pipe: Any, plain: Any, lora: Path
) -> None:
    object.__setattr__(pipe, "scratch", lora.parent)
    SAME[change](pipe)
    del pipe.scratch
    assert not differ(numbers(pipe), plain[1])
    assert identity(pipe) == plain[0]


def places(pipe: Any, name: str) -> Iterator[Any]:
    """Yield objects of a pipeline on which an attribute may stand."""
    if name in ALIKE_IN_CONFIGS:
        yield pipe.text_encoder.config
    elif name == "slice_size":
        yield block(pipe).attn1.processor
    else:
        yield from (pipe.unet, pipe.vae, pipe.text_encoder, block(pipe), block(pipe).attn1)


# They hold objects of the libraries, or cannot be wrong without an error: see `SAME`.
TOGETHER = {
    *("_hf_hook", "_old_forward", "_diffusers_hook", "peft_config"),
    "_output_capturing_hooks_installed",
}


def test_an_attribute_or_decorator_of_an_installed_package_refuses_no_plain_pipeline(
    pipe: Any, plain: Any
) -> None:
    """As transformers 5.25 does with kernels: it decorates activations and marks each module."""
    for module in pipe.text_encoder.modules():
        vars(module)["_kernels_mode"] = None
    assert altered_parts(modules_of(pipe)) == {}
    assert identity(pipe) == plain[0]


NAMES = sorted((ALIKE | ALIKE_IN_CONFIGS) - TOGETHER)


@pytest.mark.parametrize("name", matrix(NAMES, ["gradient_checkpointing", "slice_size"]))
def test_what_is_not_named_changes_no_number(name: str, pipe: Any, plain: Any) -> None:
    for owner in places(pipe, name):
        vars(owner)[name] = vars(owner).get(name, 7)
        if isinstance(vars(owner)[name], bool | int):
            vars(owner)[name] = True
    assert altered_parts(modules_of(pipe)) == {}
    assert not differ(numbers(pipe), plain[1])
