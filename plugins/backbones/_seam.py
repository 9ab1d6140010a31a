"""The seam to diffusers: a pipeline's own `__call__`, stopped at a chosen event.

It relies on these facts about a pipeline, which `tests/plugins/backbones/test_released.py` checks:

* `encode_prompt` is a method, and `__call__` uses the prompts through its results alone;
* the first latents come from the module's `randn_tensor`, called once;
* levels are set by `scheduler.set_timesteps`, and read from `scheduler.timesteps`;
* each prediction goes to `scheduler.step(model_output, timestep, sample)`;
* the last latents go to `vae.decode`.

The pipeline, its classes and their modules are not changed: a call runs on a shallow copy of the
pipeline, with copies of the functions that draw noise. So an exception leaves nothing to undo, and
two threads share only the networks.
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

DRAW = "randn_tensor"  # the function of diffusers that draws the first latents
QUIET = {"disable": True}  # of the progress bar


class Stop(Exception):  # noqa: N818 - no error
    """Ends a pipeline's call at the chosen event."""


class Call:
    """One call of a pipeline, up to the event that ends it.

    Args:
        pipe: the pipeline.
        keywords: the keywords of its `__call__`.
        times: the only timesteps, [steps] or [1, B]; the second is one time per sample.
        latents: the first latents of the samples, before packing; None: zeros.
        texts: results for the calls of `encode_prompt`, in order; None: its own results.
        stops: called after each event with its name, `texts`, `draw`, `schedule` or `step`; the
            call ends where it returns true.
        parts: components in place of the pipeline's.
        device: where it runs, whatever the device of its components; None: that device.

    Attributes:
        returned: the result of each call of the pipeline's own `encode_prompt`.
        schedule: the keywords of `set_timesteps` that are not None; None before it was called.
        shapes: the shape of each tensor of noise that was drawn.
        prediction: the `model_output` of `scheduler.step`.
        sample: the `sample` of `scheduler.step`: the latents, packed.
    """

    def __init__(
        self,
        pipe: Any,
        keywords: Mapping[str, Any],
        times: Tensor,
        *,
        latents: Tensor | None = None,
        texts: Sequence[Any] | None = None,
        stops: Callable[[Call, str], bool],
        parts: Mapping[str, Any] | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.times, self.latents = times, latents
        self.texts = None if texts is None else list(texts)
        self.stops = stops
        self.returned: list[Any] = []
        self.schedule: dict[str, Any] | None = None
        self.shapes: list[tuple[int, ...]] = []
        self.prediction: Any = None
        self.sample: Any = None
        kind: Any = type(pipe)
        view = object.__new__(kind if device is None else _placed(kind, device))
        view.__dict__.update(pipe.__dict__, scheduler=_Scheduler(pipe.scheduler, self))
        view.__dict__.update(parts or {}, _progress_bar_config=QUIET)
        if hasattr(pipe, "encode_prompt"):
            view.__dict__["encode_prompt"] = self._encoding(pipe.encode_prompt)
        for name in _drawing(kind):
            method = inspect.unwrap(getattr(kind, name))
            view.__dict__[name] = MethodType(_with_draw(method, self._draw), view)
        run = _with_draw(inspect.unwrap(kind.__call__), self._draw)
        with suppress(Stop):
            run(view, **keywords)

    def stop_at(self, event: str) -> None:
        """End the call if this event is the chosen one."""
        if self.stops(self, event):
            raise Stop

    def _encoding(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        def encode_prompt(*arguments: Any, **keywords: Any) -> Any:
            if self.texts is not None:
                return self.texts.pop(0)
            self.returned.append(encode(*arguments, **keywords))
            self.stop_at("texts")
            return self.returned[-1]

        return encode_prompt

    def _draw(self, shape: Any, *arguments: Any, **keywords: Any) -> Tensor:
        self.shapes.append(tuple(shape))
        self.stop_at("draw")
        if self.latents is None:
            return torch.zeros(shape, device=keywords.get("device"), dtype=keywords.get("dtype"))
        device = keywords.get("device") or self.latents.device
        # Latents in double precision are those of calls without a network.
        dtype = None if self.latents.dtype == torch.float64 else keywords.get("dtype")
        return self.latents.reshape(shape).to(device=device, dtype=dtype)


class _StandIn:
    """Stands in for a part of a pipeline; other attributes are those of the part."""

    def __init__(self, part: Any) -> None:
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_part"], name)


class _Scheduler(_StandIn):
    """Stands in for a pipeline's scheduler, on a copy of it."""

    order = 1
    init_noise_sigma = 1.0

    def __init__(self, real: Any, call: Call) -> None:
        super().__init__(copy.copy(real))
        self._seen = call

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        timesteps: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        **others: Any,
    ) -> None:
        """Record the keywords; the timesteps are the call's."""
        keywords = {
            "num_inference_steps": num_inference_steps,
            "timesteps": timesteps,
            "sigmas": sigmas,
            "mu": mu,
            **others,
        }
        self._seen.schedule = {n: value for n, value in keywords.items() if value is not None}
        self.timesteps = self._seen.times.to(device)
        self.num_inference_steps = len(self.timesteps)
        self._seen.stop_at("schedule")

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Do nothing: there is one step."""

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """Return the sample, which is already scaled for the network."""
        return sample

    def step(self, model_output: Any, timestep: Any, sample: Any, **others: Any) -> Any:
        """Keep the prediction and end the call."""
        self._seen.prediction, self._seen.sample = model_output, sample
        self._seen.stop_at("step")
        return sample, sample  # an LCM's step has two results


class Decoder(_StandIn):
    """Stands in for a pipeline's VAE and keeps what is decoded."""

    dtype = torch.float64
    device = torch.device("cpu")
    decoded: Tensor | None = None

    def decode(self, latents: Tensor, *arguments: Any, **keywords: Any) -> Any:
        """Keep the latents and end the call."""
        self.decoded = latents
        raise Stop


class CountedNetwork(_StandIn):
    """Stands in for a network, counts the samples of its calls, and calls it or returns its input.

    The input may be in a precision that the network does not take.
    """

    def __init__(self, network: Any, echoes: bool = False) -> None:
        super().__init__(network)
        self.echoes = echoes
        self.samples: list[int] = []

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Return what the network returns, or the first argument."""
        first = arguments[0] if arguments else next(iter(keywords.values()))
        self.samples.append(len(first))
        return _Output(first) if self.echoes else self._part(*arguments, **keywords)


@lru_cache
def _placed(kind: Any, device: torch.device) -> Any:
    """Return a pipeline class whose pipelines run on a device."""
    place = property(lambda pipe: device)
    return type(kind.__name__, (kind,), {"device": place, "_execution_device": place})


@lru_cache
def _drawing(kind: Any) -> tuple[str, ...]:
    """Return the names of a pipeline class's methods that draw noise, except `__call__`."""
    methods = {name: inspect.getattr_static(kind, name) for name in dir(kind) if name != "__call__"}
    return tuple(
        name
        for name, method in methods.items()
        if isinstance(method, FunctionType) and DRAW in inspect.unwrap(method).__code__.co_names
    )


def _with_draw(function: Any, draw: Callable[..., Tensor]) -> FunctionType:
    """Return a copy of a function in which `draw` takes the place of `randn_tensor`."""
    made = FunctionType(
        function.__code__,
        {**function.__globals__, DRAW: draw},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made
