"""Decide whether a pipeline can be used, from its class, its components and what alters them.

The same rules hold for a folder, a repository, a single file and a pipeline in memory.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import nn

from bench.errors import UserError
from bench_plugins.backbones._facts import facts_of
from bench_plugins.backbones._pipelines.calls import functions_in
from bench_plugins.backbones._weights.checkpoint import first_line
from bench_plugins.backbones._weights.components import AUTOENCODER, NETWORKS

CLASS_LABELS = "class_labels"  # keyword of `__call__` in class-conditional pipelines
IMAGE_INPUTS = ("image", "mask_image", "video")  # parameters of `__call__`
# Components, or parameters of `__call__` → why a class that has them cannot be used.
NEEDED = ("adapter", "control_image", "controlnet", "gligen_phrases", "source_embeds")
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
UNUSABLE = {
    **{name: f"it needs {name}" for name in NEEDED},
    "motion_field_strength_x": "it moves the latents of frames between its steps",
    "parallel": "it predicts several steps at once",
    "view_batch_size": "it predicts overlapping views",
}
NO_AUTOENCODER = "it has no vae: models of pixels are not supported"


class UnsupportedError(UserError):
    """A pipeline's own code failed while it was tried."""


def unusable(who: str, problem: str) -> UserError:
    """Return an error about a pipeline, which is called `who`."""
    return UserError(f"{who} cannot be used: {problem}.")


@contextmanager
def supported(who: str, trait: str) -> Iterator[None]:
    """Turn any exception into an UnsupportedError that names the pipeline `who` and the trait."""
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a pipeline's own code raises
        if type(error) is NameError:  # of a package that diffusers imports only if it is there
            problem = f"its code needs {error.name}, which is not installed"
            raise UnsupportedError(f"{who} cannot be used: {problem}.") from error
        raise UnsupportedError(
            f"{who} cannot be used: {trait}. {type(error).__name__}: {first_line(error)}."
        ) from error


def class_problem(pipeline_cls: Any) -> str | None:
    """Return why pipelines of a class cannot be used, or None; from its signatures alone.

    Many classes that need an image declare None as its default, and fail with it. So an image is
    optional only if the class is declared, or diffusers lists it among those for text to image.
    """
    parameters = call_parameters(pipeline_cls)
    call, usual = parameters.keys(), {"prompt", CLASS_LABELS}
    needed = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        and name not in usual
    ]
    parts = inspect.signature(pipeline_cls.__init__).parameters.keys()
    images = [name for name in IMAGE_INPUTS if name in call]
    if not {"prompt", CLASS_LABELS} & call:
        return "it takes no prompt"
    if reasons := [why for name, why in UNUSABLE.items() if name in {*call, *parts}]:
        return reasons[0]
    if images and not facts_of(pipeline_cls.__name__):
        # It imports the modules of all these classes, which takes seconds.
        from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING

        if not issubclass(pipeline_cls, tuple(AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values())):
            return f"it takes {images[0]}, and diffusers does not list it for text to image"
    if not {*NETWORKS} & parts:
        return "it has no transformer and no unet"
    if AUTOENCODER not in parts:
        return NO_AUTOENCODER
    if needed:
        return f"it needs {needed[0]}"
    if CLASS_LABELS not in call and not hasattr(pipeline_cls, "encode_prompt"):
        return "it does not encode prompts with `encode_prompt`"
    return None


def call_parameters(pipeline_cls: Any) -> Mapping[str, inspect.Parameter]:
    """Return the parameters that a pipeline class's `__call__` takes by name.

    One that takes any keyword passes them on: to a function that it decorates, or to the `__call__`
    of a base class. Then it takes theirs as well.
    """
    calls = [vars(kind)["__call__"] for kind in pipeline_cls.__mro__ if "__call__" in vars(kind)]
    parameters: dict[str, inspect.Parameter] = {}
    while calls:
        call = calls.pop(0)
        own = inspect.signature(call).parameters
        bound = next(iter(own), None) if isinstance(call, FunctionType) else None  # `self`
        named = {n: p for n, p in own.items() if p.kind not in VARIADIC and n != bound}
        parameters = {**named, **parameters}
        if not any(p.kind is p.VAR_KEYWORD for p in own.values()):
            break
        if isinstance(call, FunctionType):
            calls = functions_in(call) or calls
    return parameters


def check_pipeline(pipe: Any, who: str) -> None:
    """Raise UserError unless a pipeline has one network, which predicts at a time, and a vae."""
    if problem := class_problem(type(pipe)):
        raise unusable(who, problem)
    network: Any = network_of(pipe)
    layers = network.modules() if network_name(pipe) == "unet" else ()
    if layers and not any(getattr(layer, "is_cross_attention", False) for layer in layers):
        raise unusable(who, "its UNet takes no prompts")
    for name, module in modules_of(pipe).items():
        if module is network:
            continue
        inputs = inspect.signature(module.forward).parameters
        takes_time = "t" in inputs or any(key.startswith("timestep") for key in inputs)
        if takes_time or type(module) is type(network):
            raise unusable(
                who,
                f"it has a second network, {name}. A single network has to predict at all noise"
                " levels",
            )
    if getattr(pipe, AUTOENCODER, None) is None:
        raise unusable(who, NO_AUTOENCODER)
    for name, part in pipe.components.items():
        encoder = getattr(pipe, name.replace("tokenizer", "text_encoder"), None)
        if part is None and encoder is not None:
            raise unusable(who, f"it has no {name}")


def modules_of(pipe: Any) -> dict[str, nn.Module]:
    """Return the components of a pipeline that have tensors, by name."""
    return {n: part for n, part in pipe.components.items() if isinstance(part, nn.Module)}


def network_name(pipe: Any) -> str:
    """Return the network's name, `transformer` or `unet`. Raises UserError if it has neither."""
    for name in NETWORKS:
        if isinstance(getattr(pipe, name, None), nn.Module):
            return name
    raise UserError(
        f"The pipeline {type(pipe).__name__} cannot be used: it has no transformer and no unet."
    )


def network_of(pipe: Any) -> nn.Module:
    """Return a pipeline's denoising network."""
    network: nn.Module = getattr(pipe, network_name(pipe))
    return network
