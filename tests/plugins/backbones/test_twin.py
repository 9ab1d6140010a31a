"""Equal ids mean equal numbers: what people alter in a pipeline in memory is named, or refused."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import accelerate
import diffusers
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from helpers.families import save
from helpers.loras import save_lora
from helpers.matrix import matrix
from torch import nn

from bench.errors import UserError
from bench_plugins.backbones._gate import AlteredError, modules_of
from bench_plugins.backbones._identity import altered_parts
from bench_plugins.backbones._twin import ALIKE, ALIKE_IN_CONFIGS
from bench_plugins.backbones.pipeline import PipelineDenoiser
from bench_plugins.backbones.pipeline_live import LivePipeline

REFUSED = "refused"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pipelines") / "small-xl"
    save("sdxl", place)
    return place


@pytest.fixture(scope="module")
def lora(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lora(loaded(folder), tmp_path_factory.mktemp("loras"))


def loaded(folder: Path) -> Any:
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(folder: Path) -> Any:
    return loaded(folder)


def identity(pipe: Any) -> str:
    """Return the fingerprint of a pipeline, or that it has none."""
    try:
        return LivePipeline(pipe).content().fingerprint
    except AlteredError:
        return REFUSED


def numbers(pipe: Any) -> list[torch.Tensor]:
    """Return what is computed of an image and a text: latent, conditioning, prediction."""
    backbone = PipelineDenoiser(pipe)
    image = torch.linspace(-1, 1, 3 * backbone.resolution**2)
    latent = backbone.encode_images(image.view(1, 3, backbone.resolution, -1))
    texts: Any = backbone.encode_prompts(["a fir tree"])
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return [latent, *texts.values(), backbone.denoise(noise, torch.tensor([300.0]), texts)]


def differ(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return len(some) != len(others) or any(
        a.shape != b.shape or not torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-5)
        for a, b in zip(some, others, strict=True)
    )


@pytest.fixture(scope="module")
def plain(folder: Path) -> tuple[str, list[torch.Tensor]]:
    pipe = loaded(folder)
    return identity(pipe), numbers(pipe)


# What was silently wrong once, one by one.


def doubled(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **keywords: Any) -> Any:
        result = method(*arguments, **keywords)
        if isinstance(result, torch.Tensor):
            return 2 * result
        first, *others = result if isinstance(result, tuple) else result.to_tuple()
        return type(result)(2 * first) if hasattr(result, "to_tuple") else (2 * first, *others)

    return call


def subclass(owner: Any, name: str) -> None:
    """Give an object a class of the same name with one method that doubles."""
    own = type(owner)
    method = doubled(getattr(own, name))
    owner.__class__ = type(own.__name__, (own,), {name: method, "__module__": own.__module__})


class Doubling(AttnProcessor2_0):  # type: ignore[misc]  # Any to mypy
    """Attention of the user's own."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return 2 * super().__call__(*arguments, **keywords)


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


def block(pipe: Any) -> Any:
    return pipe.unet.mid_block.attentions[0].transformer_blocks[0]


def first(component: Any, end: str) -> Any:
    return next(module for name, module in component.named_modules() if name.endswith(end))


def patched_class(pipe: Any) -> None:
    """As token merging does with each block of a network."""
    subclass(block(pipe), "forward")


def with_adapters(pipe: Any, lora: Path, *names: str) -> Any:
    for name in names:
        pipe.load_lora_weights(lora.parent, weight_name=lora.name, adapter_name=name)
    return [module for module in pipe.unet.modules() if hasattr(module, "lora_A")]


def scales_by_block(pipe: Any, lora: Path, order: int = 1) -> None:
    """Two scales in one adapter; only where each of them is, differs."""
    layers = with_adapters(pipe, lora, "a")
    for layer, scale in zip(layers, [0.5, 2.0][::order] * len(layers), strict=False):
        layer.scaling["a"] = scale


def numbered(pipe: Any, lora: Path, value: float = 0.0) -> None:
    """An adapter that is off, and called as a part of a path of the one that is on."""
    layers = with_adapters(pipe, lora, "on", "0")
    pipe.set_adapters(["on"], [1.0])
    for layer in layers:
        layer.lora_A["on"].weight.data += value


def off_in_a_layer(pipe: Any, lora: Path) -> None:
    layers = with_adapters(pipe, lora, "a")
    layers[0].set_adapter([])


ALONE: dict[str, Callable[[Any], object]] = {
    "circular padding": circular,
    "a network of a subclass": lambda pipe: subclass(pipe.unet, "forward"),
    "a pipeline of a subclass": lambda pipe: subclass(pipe, "_get_add_time_ids"),
    "another class of a block": patched_class,
    "processors of one's own": lambda pipe: pipe.unet.set_attn_processor(Doubling()),
    "the eps of a norm": lambda pipe: setattr(pipe.unet.conv_norm_out, "eps", 0.1),
    "an activation": lambda pipe: setattr(pipe.unet, "conv_act", nn.Tanh()),
    "an activation of a text encoder": lambda pipe: setattr(
        first(pipe.text_encoder, "0.mlp"), "activation_fn", nn.Tanh()
    ),
    "heads": lambda pipe: setattr(block(pipe).attn1, "heads", 1),
    "a flag": lambda pipe: setattr(block(pipe).attn1, "residual_connection", True),
    "a number of attention": lambda pipe: setattr(block(pipe).attn1, "rescale_output_factor", 3.0),
    "the embedding of the time": lambda pipe: setattr(
        pipe.unet, "get_time_embed", doubled(pipe.unet.get_time_embed)
    ),
    "the autoencoder's _encode": sampled_latents,
    "an embedding's class": rescaled_text,
}
ADAPTERS: dict[str, tuple[Callable[..., object], Callable[..., object]]] = {
    "scales by block": (scales_by_block, lambda pipe, lora: scales_by_block(pipe, lora, -1)),
    "an adapter called 0": (numbered, lambda pipe, lora: numbered(pipe, lora, 1.0)),
    "on in some layers": (lambda pipe, lora: with_adapters(pipe, lora, "a"), off_in_a_layer),
}


ALWAYS = {"circular padding", "another class of a block", "the autoencoder's _encode"}


@pytest.mark.parametrize("alteration", matrix(ALONE, ALWAYS))
def test_what_is_altered_has_another_id_or_none(alteration: str, pipe: Any, plain: Any) -> None:
    ALONE[alteration](pipe)
    assert differ(numbers(pipe), plain[1])
    assert identity(pipe) != plain[0]


@pytest.mark.parametrize("state", matrix(ADAPTERS, ["an adapter called 0"]))
def test_states_of_adapters_are_told_apart(state: str, folder: Path, lora: Path) -> None:
    pipes = loaded(folder), loaded(folder)
    for alter, pipe in zip(ADAPTERS[state], pipes, strict=True):
        alter(pipe, lora)
    assert differ(*map(numbers, pipes))
    assert len({*map(identity, pipes)}) == 2


def test_an_adapter_in_one_state_is_not_an_alteration(pipe: Any, lora: Path) -> None:
    with_adapters(pipe, lora, "a", "b")
    changes = (lambda: pipe.set_adapters(["a"], [0.5]), pipe.disable_lora, pipe.enable_lora)
    for change in (*changes, pipe.fuse_lora):
        change()
        assert altered_parts(modules_of(pipe)) == {}


def test_what_a_library_names_is_named_and_what_it_does_not_is_refused(pipe: Any) -> None:
    pipe.unet.conv_act = nn.Tanh()
    content = LivePipeline(pipe).content()
    assert "unet.conv_act" in content.description["altered"]
    pipe.unet.conv_act = torch.jit.script(nn.Tanh())
    with pytest.raises(AlteredError, match=r"^unet\.conv_act"):
        LivePipeline(pipe)


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


# Any alteration.

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
def adapted(folder: Path, lora: Path) -> Any:
    """A pipeline with two adapters, both on."""
    pipe = loaded(folder)
    with_adapters(pipe, lora, "a", "0")
    pipe.set_adapters(["a", "0"], [1.0, 0.5])
    return pipe


@pytest.fixture(scope="module")
def with_two(adapted: Any) -> tuple[str, list[torch.Tensor]]:
    return identity(adapted), numbers(adapted)


@pytest.mark.parametrize(("kind", "seed"), matrix(CASES, CASES[:3]))
def test_other_numbers_have_another_id_or_none(
    kind: str, seed: int, pipe: Any, adapted: Any, plain: Any, with_two: Any
) -> None:
    own, before = (copy.deepcopy(adapted), with_two) if kind == "adapters" else (pipe, plain)
    KINDS[kind](own, random.Random(f"{kind} {seed}"))
    try:
        changed = differ(numbers(own), before[1])
    except Exception:  # whatever a damaged pipeline raises
        return
    if changed:
        with suppress(UserError):  # refused for another reason
            assert identity(own) != before[0]


# What is the same.


def used(pipe: Any) -> None:
    pipe("a fir tree", num_inference_steps=1, output_type="latent")


def lora_loaded_and_unloaded(pipe: Any) -> None:
    save_lora(pipe, Path(pipe.scratch))
    pipe.load_lora_weights(pipe.scratch, weight_name="pytorch_lora_weights.safetensors")
    numbers(pipe)
    pipe.unload_lora_weights()


def freed(pipe: Any) -> None:
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.3, b2=1.4)
    pipe.disable_freeu()


SAME: dict[str, Callable[[Any], object]] = {
    "used": used,
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


@pytest.mark.parametrize("change", matrix(SAME, ["used", "offloaded", "a LoRA that came and went"]))
def test_what_changes_no_number_keeps_the_id(
    change: str, pipe: Any, plain: Any, tmp_path: Path
) -> None:
    object.__setattr__(pipe, "scratch", tmp_path)
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


NAMES = sorted((ALIKE | ALIKE_IN_CONFIGS) - TOGETHER)


@pytest.mark.parametrize("name", matrix(NAMES, ["gradient_checkpointing", "slice_size"]))
def test_what_is_not_named_changes_no_number(name: str, pipe: Any, plain: Any) -> None:
    for owner in places(pipe, name):
        vars(owner)[name] = vars(owner).get(name, 7)
        if isinstance(vars(owner)[name], bool | int):
            vars(owner)[name] = True
    assert altered_parts(modules_of(pipe)) == {}
    assert not differ(numbers(pipe), plain[1])
