"""Where a run takes place: device, precision, executor, and what makes a network faster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, cast

from pydantic import Field, field_validator, model_validator
from typing_extensions import override

from bench.contracts.backbone import Backbone
from bench.contracts.executor import ExecutorSpec
from bench.contracts.parameters import Parameters
from bench.contracts.specs import BackboneSpec
from bench.discovery.backbones import fact
from bench.discovery.loading import load_plugins
from bench.discovery.targets import make
from bench.errors import UserError
from bench.inputs.weights import Weights
from bench.machine.environment import pick_device
from bench.machine.precision import PRECISIONS, Half, Precision, dtype_of, has_precision, tf32_needs
from bench.machine.speeds import assumed_speed
from bench.running.parts.declaration import DENOISERS, Chapter, Text, passed_to, setting
from bench.store.formats.fields import without_none

DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "npu")
AUTO = "auto"
TF32 = "tf32"  # of `--dtype`: float32 with `--tf32`
Dtype = Literal["auto", "float32", "tf32", "bfloat16", "float16"]
Encoding = Literal["float32", "tf32"]
_of_speed = partial(setting, "network", scorers=DENOISERS, identity="half", shared=True)
_of_executor = partial(setting, "machine", needs="executor", of_split=True, passed_to="executor")


class MachineSettings(Chapter):
    """Where it runs."""

    device: Text | None = setting("machine", "network")
    """The device, such as cpu, cuda, cuda:1 or mps (default: the best of this machine)."""
    batch_size: Annotated[int, Field(gt=0, lt=2**20)] | Literal["auto"] = setting(
        "machine", default="auto"
    )
    """Cells (image, draw, prompt) per batch; auto: measured once, then cached."""
    executor: Text = setting(
        "machine",
        default="local",
        of_split=True,
        excludes={
            "slurm": "the script makes shards of one process each; docs/machines.md says how Ray"
            " is started under Slurm"
        },
    )
    """Where images are scored: a registered executor, such as local (in this process) or ray."""
    workers: Annotated[int, Field(gt=0, lt=2**16)] | Literal["auto"] | None = _of_executor()
    """Number of workers; auto: one per GPU, or one per machine if there are no GPUs (default:
    auto)."""
    ray_address: Text | None = _of_executor()
    """The Ray cluster: auto (the one running on this machine) or HOST:PORT (default: a new one on
    this machine)."""
    offline: bool = setting("machine", default=False)
    """Do not use the network, only files on this machine."""
    dtype: Dtype | None = setting("network", "prompts", identity="resolved", commands="study")
    """The precision of the network; errors are always float32. auto, the default: on a GPU the half
    precision that the model was made for or else tf32, and elsewhere float32."""
    encoding: Encoding | None = setting("network", scorers=DENOISERS, identity="resolved")
    """The precision in which images are encoded if the network has half precision (default: tf32 on
    a GPU that has it, and elsewhere float32)."""
    tf32: bool = setting(
        "network", "prompts", default=False, scorers=DENOISERS, identity="precision", shared=True
    )
    """Allow a GPU to compute float32 products in TF32; alone it is --dtype tf32."""
    compile: bool = _of_speed(default=False)
    """Compile the network with torch.compile; takes a minute or more before the first image."""
    layout: Literal["auto", "contiguous", "channels-last"] = _of_speed(default="auto")
    """Memory layout of the network (auto: channels-last on a GPU)."""
    attention: Literal["auto", "math", "flash", "efficient", "cudnn"] = _of_speed(default="auto")
    """The attention kernel (auto: chosen by torch)."""
    offload: Literal["model"] | None = setting(
        "machine",
        "network",
        scorers=DENOISERS,
        excludes={
            "compile": "the memory of its tensors changes",
            "memory": "call pipe.enable_model_cpu_offload() before",
        },
    )
    """Keep the parts of a model on the CPU while they are not used, for a GPU with little memory:
    model (network, autoencoder and text encoders take turns)."""

    @model_validator(mode="before")
    @classmethod
    def _with_plain_dtype(cls, values: Any) -> Any:
        dtype = values.get("dtype")
        if dtype == TF32:
            return {**values, "dtype": "float32", "tf32": True}
        return {**values, "dtype": None} if dtype == AUTO else values

    @field_validator("device")
    @classmethod
    def _is_device(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(rf"({'|'.join(DEVICES)})(:\d+)?", value):
            raise ValueError(
                f"must be one of {', '.join(DEVICES)}, optionally with an index such as cuda:1"
            )
        return value


def check_executor(config: MachineSettings, in_memory: bool = False) -> None:
    """Raise UserError if a run's executor is unknown or does not fit.

    `in_memory` is whether the caller has handed over its dataset or backbone.
    """
    spec, parameters = executor_of(config)
    if in_memory and not spec.in_process:
        raise UserError(
            f"--executor {spec.name}: workers load the dataset and the backbone by name, so objects"
            " in memory cannot be used. Save a pipeline with pipe.save_pretrained(FOLDER) and name"
            " the folder."
        )
    make(spec, **parameters)


def executor_of(config: MachineSettings) -> tuple[ExecutorSpec, Parameters]:
    """Return a run's executor and its parameters; UserError if it lacks one that is set."""
    spec = load_plugins().executors.get(config.executor)
    return spec, {"device": config.device, **passed_to(spec, config)}


@dataclass(frozen=True)
class RunPrecision:
    """The precision of a run, by default float32. As text it is the network's."""

    network: Precision = "float32"
    tf32: bool = False
    """Whether a GPU rounds float32 products to TF32, also beside a network in half precision."""
    encoding: Encoding | None = None
    """Precision in which images are encoded for a network in half precision; None without one. An
    autoencoder has no half precision, because some overflow in it. In float32 it would take a fifth
    of a race."""
    on_gpu: Precision = "float32"  # of the network on a GPU that is quick in all of them

    @override
    def __str__(self) -> str:
        return self.network

    @property
    def dtype(self) -> str:
        """Dtype of the network."""
        return dtype_of(self.network)

    def settings(self) -> dict[str, Any]:
        """Return the settings that name the precision to other processes and machines."""
        return {"dtype": self.dtype, "tf32": self.tf32, "encoding": self.encoding}

    def identity(self, spec: BackboneSpec, weights: Weights | None) -> dict[str, Any]:
        """Return the entries of a run's identity; float32 is named by its dtype alone."""
        encoding = self.encoding if self.encoding == "tf32" else None
        in_half = self.dtype != "float32" and weights is not None
        kept = in_half and fact(spec, Backbone.keeps_float32, weights)
        own = without_none(tf32=self.tf32 or None, encoding=encoding, float32_parts=kept or None)
        return {"dtype": self.dtype, **own}

    def options(self) -> str:
        """Return the options of a command that name the precision."""
        encoding = f" --encoding {self.encoding}" if self.encoding else ""
        return f"--dtype {self.network}{encoding}"

    def check(self, config: MachineSettings) -> None:
        """Raise UserError if `--encoding` changes nothing in a run, or its device lacks it."""
        if config.encoding is not None and self.encoding is None:
            raise UserError(
                f"--encoding has no effect: the network runs in {self}, as the autoencoder does. It"
                " is for --dtype float16 and bfloat16."
            )
        if config.encoding == "tf32" and not has_precision(config.device, "tf32"):
            device = config.device or pick_device(None)
            raise UserError(f"--encoding tf32 {tf32_needs(device)}")


def find_precision(
    config: MachineSettings, backbone: BackboneSpec, half: Half | None = None
) -> RunPrecision:
    """Return the precision of a run: the user's, or else the backbone's own on a GPU.

    A denoiser whose spec names none has `half`, the half precision of its class or file, or TF32. A
    default falls back to float32 where a device lacks it.
    """
    if config.tf32 and config.dtype in (None, "float32"):
        on_gpu: Precision = "tf32"
    elif names_precision(config):
        on_gpu = cast(Precision, config.dtype)
    else:
        on_gpu = backbone.dtype or (half or "tf32" if backbone.denoises else "float32")
    is_here = names_precision(config) or has_precision(config.device, on_gpu)
    network = on_gpu if is_here else "float32"
    encoding: Encoding | None = None
    if backbone.denoises and dtype_of(network) != "float32":
        has_tf32 = has_precision(config.device, "tf32")
        encoding = config.encoding or ("tf32" if has_tf32 else "float32")
    return RunPrecision(network, network == "tf32" or config.tf32, encoding, on_gpu)


def names_precision(config: MachineSettings) -> bool:
    """Return whether the user has named a precision."""
    return config.tf32 or config.dtype is not None


def all_precisions() -> Iterator[RunPrecision]:
    """Yield each precision that a run may have been stored with."""
    encodings: tuple[Encoding, ...] = ("tf32", "float32")
    for network in PRECISIONS:
        for encoding in (None,) if dtype_of(network) == "float32" else encodings:
            yield RunPrecision(network, network == "tf32", encoding)


def quicker_precisions(device: str | None, precision: RunPrecision) -> str | None:
    """Return how much quicker a pipeline in memory in float32 would be in another precision."""
    if precision.network != "float32" or not has_precision(device, "tf32"):
        return None
    names: tuple[Precision, ...] = ("float32", "tf32", "float16")
    full, tf32, half = (assumed_speed("cuda", name) or 1 for name in names)
    return (
        "The pipeline computes in float32. On a GPU, half precision (pipe.to(torch.float16), or"
        " bfloat16 if it was trained in that) is assumed to be"
        f" {half / full:.2g} times as fast, and tf32=True {tf32 / full:.2g} times."
    )
