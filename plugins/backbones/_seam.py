"""The seam to diffusers: a pipeline's own `__call__`, stopped where it hands something over.

What is leaned on is this much of a pipeline; `tests/plugins/backbones/test_released.py` pins it:

* `encode_prompt` is a method, and its results are all that `__call__` keeps of the prompts;
* the first latents come from the module's `randn_tensor`, called once;
* levels are set by `scheduler.set_timesteps`, and read from `scheduler.timesteps`;
* each prediction goes to `scheduler.step(model_output, timestep, sample)`;
* the last latents go to `vae.decode`.

Nothing of the pipeline, its classes or their modules is changed: a call runs on a shallow copy of
the pipeline, with copies of the functions that draw noise. So an exception leaves nothing to be
undone, and two threads share only the networks.
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
    """Ends a pipeline's call where all that is wanted has been captured."""


class Call:
    """One call of a pipeline, up to the event that ends it.

    Args:
        pipe: the pipeline.
        keywords: what its `__call__` is given.
        times: the only timesteps, [steps] or [1, B]; the second is one time per sample.
        latents: the first latents of the samples, before packing; None: zeros.
        texts: what each call of `encode_prompt` returns, in order; None: what it returns.
        stops: called after each event with its name, `texts`, `draw`, `schedule` or `step`; the
            call ends where it returns true.
        parts: components that stand in for the pipeline's.
        device: where it runs, whatever its components say; None: where they say.

    Attributes:
        returned: what each call of the pipeline's own `encode_prompt` returned.
        schedule: the keywords of `set_timesteps` that are not None; None before it was called.
        shapes: the shapes of the latents that were drawn, one for each time.
        prediction: what `scheduler.step` was given as the model's output.
        sample: what it was given as the sample: the latents, packed.
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

    def happened(self, event: str) -> None:
        """End the call if this was the last event that is wanted."""
        if self.stops(self, event):
            raise Stop

    def _encoding(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        def encode_prompt(*arguments: Any, **keywords: Any) -> Any:
            if self.texts is not None:
                return self.texts.pop(0)
            self.returned.append(encode(*arguments, **keywords))
            self.happened("texts")
            return self.returned[-1]

        return encode_prompt

    def _draw(self, shape: Any, *arguments: Any, **keywords: Any) -> Tensor:
        self.shapes.append(tuple(shape))
        self.happened("draw")
        if self.latents is None:
            return torch.zeros(shape, device=keywords.get("device"), dtype=keywords.get("dtype"))
        device = keywords.get("device") or self.latents.device
        # Doubles are sent where no network follows.
        dtype = None if self.latents.dtype == torch.float64 else keywords.get("dtype")
        return self.latents.reshape(shape).to(device=device, dtype=dtype)


class _StandIn:
    """Stands in for a part of a pipeline; what it does not have is the part's."""

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
        """Take note of what the pipeline asks for; the levels are the call's."""
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
        self._seen.happened("schedule")

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Do nothing: there is one step."""

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """Return the sample: it is scaled as the network takes it."""
        return sample

    def step(self, model_output: Any, timestep: Any, sample: Any, **others: Any) -> Any:
        """Keep the prediction and end the call."""
        self._seen.prediction, self._seen.sample = model_output, sample
        self._seen.happened("step")
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
    """Return the methods of a pipeline class that draw noise, `__call__` aside."""
    methods = {name: inspect.getattr_static(kind, name) for name in dir(kind) if name != "__call__"}
    return tuple(
        name
        for name, method in methods.items()
        if isinstance(method, FunctionType) and DRAW in inspect.unwrap(method).__code__.co_names
    )


def _with_draw(function: Any, draw: Callable[..., Tensor]) -> FunctionType:
    """Return a copy of a function for which its module's `randn_tensor` is another one."""
    made = FunctionType(
        function.__code__,
        {**function.__globals__, DRAW: draw},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made
