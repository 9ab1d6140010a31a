"""Run a diffusers pipeline's own `__call__` up to a chosen event, such as its first prediction.

It relies on these facts about a pipeline, which `tests/plugins/backbones/test_released.py` checks:

* `encode_prompt` is a method, and `__call__` uses the prompts only through its results;
* the first latents come from one call of `randn_tensor`, imported in the pipeline's module;
* noise levels are set by `scheduler.set_timesteps`, and read from `scheduler.timesteps`;
* each prediction is passed to `scheduler.step(model_output, timestep, sample)`;
* the last latents are passed to `vae.decode`.

The pipeline and diffusers itself are not changed. A call runs on a shallow copy of the pipeline,
with copies of the functions that draw noise. So an exception leaves nothing to undo, and two
threads share only the networks.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from types import FunctionType, MethodType
from typing import Any

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput as _Output
from torch import Tensor

from bench.machine.libraries.private_diffusers import EXECUTION_DEVICE, PROGRESS_BAR_CONFIG
from bench.machine.libraries.private_torch import tree_map_only

DRAW_FUNCTION = "randn_tensor"  # the function of diffusers that draws the first latents
NO_PROGRESS_BAR = {"disable": True}


class Stop(Exception):  # noqa: N818 - not an error
    """Ends a pipeline's call at the chosen event."""


class Call:
    """One call of a pipeline, up to the event that ends it. Creating it runs the call.

    Args:
        times: timesteps in place of the scheduler's: [steps], or [1, B] for one step with a time
            per sample.
        latents: the first latents of the samples, before packing; None for zeros.
        encodings: the results of the calls of `encode_prompt`, in order; None to run it.
        stops: called with this call and an event; the call ends if it returns True. Events are
            `texts`, `encode_prompt` has returned; `draw`, latents are about to be drawn;
            `schedule`, the timesteps are set; and `step`, the scheduler gets a prediction.
        components: components to use in place of the pipeline's.
        device, dtype: those of its inputs and of the encoded prompts; None for the pipeline's own.

    Attributes:
        returned: the result of each call of the pipeline's own `encode_prompt`.
        schedule: the keywords of `set_timesteps` that are not None; None if it was not called.
        shapes: the shape of each noise tensor that was drawn.
        prediction, sample: those that `scheduler.step` gets; the sample is the latents, packed.
    """

    def __init__(
        self,
        pipe: Any,
        keywords: Mapping[str, Any],
        times: Tensor,
        *,
        latents: Tensor | None = None,
        encodings: Sequence[Any] | None = None,
        stops: Callable[[Call, str], bool],
        components: Mapping[str, Any] | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.times, self.latents, self.dtype = times, latents, dtype
        self.encodings = None if encodings is None else list(encodings)
        self.stops = stops
        self.returned: list[Any] = []
        self.schedule: dict[str, Any] | None = None
        self.shapes: list[tuple[int, ...]] = []
        self.prediction: Any = None
        self.sample: Any = None
        pipeline_cls: Any = type(pipe)
        clone = copy.copy(pipe)
        if device is not None:
            clone.__class__ = _on_device(pipeline_cls, device)
        own = vars(clone)  # the pipeline's setter would register them as its components
        own |= {"scheduler": _Scheduler(pipe.scheduler, self), **(components or {})}
        own[PROGRESS_BAR_CONFIG] = NO_PROGRESS_BAR
        if hasattr(pipe, "encode_prompt"):
            own["encode_prompt"] = self._encode_with(pipe.encode_prompt)
        for name in _methods_that_draw(pipeline_cls):
            method = inspect.unwrap(getattr(pipeline_cls, name))
            own[name] = MethodType(_with_draw(method, self._draw), clone)
        run = _with_draw(inspect.unwrap(pipeline_cls.__call__), self._draw)
        with suppress(Stop):
            run(clone, **keywords)
        own.clear()  # its methods refer to it, so tensors would wait for the garbage collector

    def stop_at(self, event: str) -> None:
        """End the call if `stops` chooses this event."""
        if self.stops(self, event):
            raise Stop

    def _encode_with(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        def encode_prompt(*arguments: Any, **keywords: Any) -> Any:
            if self.encodings is not None:
                return self.encodings.pop(0)
            self.returned.append(tree_map_only(Tensor, self._cast, encode(*arguments, **keywords)))
            self.stop_at("texts")
            return self.returned[-1]

        return encode_prompt

    def _cast(self, encoded: Tensor) -> Tensor:
        return encoded.to(self.dtype) if encoded.is_floating_point() else encoded

    def _draw(self, shape: Any, *arguments: Any, **keywords: Any) -> Tensor:
        self.shapes.append(tuple(shape))
        self.stop_at("draw")
        if self.latents is None:
            return torch.zeros(shape, device=keywords.get("device"), dtype=keywords.get("dtype"))
        device = keywords.get("device") or self.latents.device
        # Latents in double precision keep it: the network is not called with them.
        dtype = None if self.latents.dtype == torch.float64 else keywords.get("dtype")
        return self.latents.reshape(shape).to(device=device, dtype=dtype)


class _StandIn:
    """Replaces a component in a call. Attributes not defined here are those of the component."""

    def __init__(self, component: Any) -> None:
        self._component = component

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_component"], name)


class _Scheduler(_StandIn):
    """Replaces a pipeline's scheduler: records what the call passes to it, and computes nothing."""

    order = 1
    init_noise_sigma = 1.0

    def __init__(self, real: Any, call: Call) -> None:
        super().__init__(copy.copy(real))
        self._call = call

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        timesteps: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        **others: Any,
    ) -> None:
        """Record the keywords, and set the timesteps of the call."""
        keywords = {
            "num_inference_steps": num_inference_steps,
            "timesteps": timesteps,
            "sigmas": sigmas,
            "mu": mu,
            **others,
        }
        self._call.schedule = {n: value for n, value in keywords.items() if value is not None}
        self.timesteps = self._call.times.to(device)
        self.num_inference_steps = len(self.timesteps)
        self._call.stop_at("schedule")

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Do nothing, because there is only one step."""

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """Return the sample unchanged: it is already scaled for the network."""
        return sample

    def step(self, model_output: Any, timestep: Any, sample: Any, **others: Any) -> Any:
        """Record the prediction and the sample."""
        self._call.prediction, self._call.sample = model_output, sample
        self._call.stop_at("step")
        return sample, sample  # an LCM's step has two results


class Decoder(_StandIn):
    """Replaces a pipeline's VAE: the first `decode` ends the call.

    `decoded` is what was to be decoded, None before that.
    """

    dtype = torch.float64
    device = torch.device("cpu")
    decoded: Tensor | None = None

    def decode(self, latents: Tensor, *arguments: Any, **keywords: Any) -> Any:
        """Record the latents and end the call."""
        self.decoded = latents
        raise Stop


class ReadyPrompts(_StandIn):
    """Replaces a component that a call must not run, because its prompts are encoded already.

    The call is given empty prompts with the encodings. If it ran the component outside
    `encode_prompt`, it would see such an empty prompt without notice; instead, it fails.
    """

    def __init__(self, component: Any, error: Exception) -> None:
        super().__init__(component)
        self._error = error

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Raise the error."""
        raise self._error

    forward = encode = generate = __call__


class CountedNetwork(_StandIn):
    """Replaces a network and records the batch size of each call.

    With `echoes`, it returns its input instead of calling the network, so the input may be in a
    precision that the network does not accept.
    """

    def __init__(self, network: Any, echoes: bool = False) -> None:
        super().__init__(network)
        self.echoes = echoes
        self.samples: list[int] = []

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Return what the network returns, or the first argument."""
        first = arguments[0] if arguments else next(iter(keywords.values()))
        self.samples.append(len(first))
        return _Output(first) if self.echoes else self._component(*arguments, **keywords)


@lru_cache
def _on_device(pipeline_cls: Any, device: torch.device) -> Any:
    constant = property(lambda pipe: device)
    own = {"device": constant, EXECUTION_DEVICE: constant}
    return type(pipeline_cls.__name__, (pipeline_cls,), own)


@lru_cache
def _methods_that_draw(pipeline_cls: Any) -> tuple[str, ...]:
    """Return the names of a pipeline class's methods that draw noise, except `__call__`."""
    methods = {
        name: inspect.getattr_static(pipeline_cls, name)
        for name in dir(pipeline_cls)
        if name != "__call__"
    }
    return tuple(
        name
        for name, method in methods.items()
        if isinstance(method, FunctionType)
        and DRAW_FUNCTION in inspect.unwrap(method).__code__.co_names
    )


def _with_draw(function: Any, draw: Callable[..., Tensor]) -> FunctionType:
    """Return a copy of a function that calls `draw` in place of `randn_tensor`."""
    function_copy = FunctionType(
        function.__code__,
        {**function.__globals__, DRAW_FUNCTION: draw},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    function_copy.__kwdefaults__ = function.__kwdefaults__
    return function_copy
