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
from functools import lru_cache, partial
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput as _Output
from torch import Tensor

from bench.machine.libraries.private_diffusers import EXECUTION_DEVICE, PROGRESS_BAR_CONFIG
from bench.machine.libraries.private_torch import tree_map_only

DRAW_FUNCTION = "randn_tensor"  # the function of diffusers that draws the first latents
NO_PROGRESS_BAR = {"disable": True}
# The file of torch's decorators that switch gradients off, such as `no_grad`.
GRADIENT_DECORATORS = torch.no_grad()(lambda: None).__code__.co_filename


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
        drawing = _Drawing(clone, self._draw)
        for name in _methods_that_draw(pipeline_cls):
            own[name] = MethodType(drawing.copy(getattr(pipeline_cls, name)), clone)
        run = drawing.copy(pipeline_cls.__call__)
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
        if isinstance(method, FunctionType) and _draws(method)
    )


def functions_in(function: FunctionType) -> list[FunctionType]:
    """Return the functions that a decorator's result closes over: those that it decorates."""
    return [value for value in _closed_over(function) if isinstance(value, FunctionType)]


def _closed_over(function: FunctionType) -> list[Any]:
    """Return the values of a function's closure that are bound."""
    values = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # it is empty
            values.append(cell.cell_contents)
    return values


def _draws(function: FunctionType) -> bool:
    """Return whether a function, one that it decorates, or an inherited one draws noise."""
    names = function.__code__.co_names
    if DRAW_FUNCTION in names or any(map(_draws, functions_in(function))):
        return True
    inherits = "super" in names and "__class__" in function.__code__.co_freevars
    owner = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
    if not inherits:
        return False
    bases = owner["__class__"].cell_contents.__mro__[1:]
    above = (vars(base).get(function.__name__) for base in bases)
    inherited = next((method for method in above if method is not None), None)
    return isinstance(inherited, FunctionType) and _draws(inherited)


class _Drawing:
    """Makes copies of a pipeline's functions that call `draw` in place of `randn_tensor`.

    A copy runs the same code: decorators, and methods that it reaches by `super()`, are copied with
    it. Only torch's decorators that switch gradients off are left out, because predictions may
    need them.
    """

    def __init__(self, clone: Any, draw: Callable[..., Tensor]) -> None:
        self._clone, self._draw = clone, draw

    def copy(self, function: Any) -> Any:
        """Return the copy of a function, or of an object that decorates one."""
        if isinstance(function, partial):
            return partial(self.copy(function.func), *function.args, **function.keywords)
        if not isinstance(function, FunctionType):
            return self._copy_object(function)
        if function.__code__.co_filename == GRADIENT_DECORATORS:
            return self.copy(vars(function)["__wrapped__"])
        names = {**function.__globals__, DRAW_FUNCTION: self._draw}
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        if (owner := cells.get("__class__")) is not None:
            names["super"] = lambda *_: _Inherited(owner.cell_contents, self._clone, self.copy)
        closure = tuple(map(self._copy_cell, cells.values()))
        made = FunctionType(
            function.__code__, names, function.__name__, function.__defaults__, closure
        )
        made.__kwdefaults__ = function.__kwdefaults__
        return made

    def _copy_cell(self, cell: CellType) -> CellType:
        """Return a cell with the copy of its function; the same cell if it has none."""
        with suppress(ValueError):  # it is empty
            if isinstance(cell.cell_contents, FunctionType):
                return CellType(self.copy(cell.cell_contents))
        return cell

    def _copy_object(self, decorator: Any) -> Any:
        """Return a copy of a callable object in which its functions are copies."""
        if not hasattr(decorator, "__dict__") or isinstance(decorator, type):
            return decorator
        made = copy.copy(decorator)
        for name, value in vars(made).items():
            if isinstance(value, FunctionType):
                vars(made)[name] = self.copy(value)
        return made


class _Inherited:
    """Stands for `super()` in a copied method: inherited methods are copies, too."""

    def __init__(self, owner: type, clone: Any, copied: Callable[[Any], Any]) -> None:
        self._super, self._clone, self._copied = super(owner, clone), clone, copied

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._super, name)
        is_method = isinstance(value, MethodType) and value.__self__ is self._clone
        if is_method and isinstance(value.__func__, FunctionType):
            return MethodType(self._copied(value.__func__), self._clone)
        return value
