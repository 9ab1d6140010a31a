"""The precision of a run: what its network computes in, and what images are encoded in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from typing_extensions import override

from bench.contracts.specs import BackboneSpec
from bench.errors import UserError
from bench.machine.environment import pick_device
from bench.machine.precision import (
    PRECISIONS,
    Half,
    Precision,
    dtype_of,
    has_precision,
    needs_tf32,
)
from bench.machine.speeds import assumed_speed
from bench.running.settings import SETTINGS, RunConfig
from bench.running.settings.fields import Encoding
from bench.store.fields import without_none

TF32_SCORERS = SETTINGS["tf32"].scorers  # kinds of backbones with a default of their own on a GPU


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

    def identity(self) -> dict[str, Any]:
        """Return the entries of a run's identity; float32 is named by its dtype alone."""
        encoding = self.encoding if self.encoding == "tf32" else None
        return {"dtype": self.dtype, **without_none(tf32=self.tf32 or None, encoding=encoding)}

    def options(self) -> str:
        """Return the options of a command that name the precision."""
        encoding = f" --encoding {self.encoding}" if self.encoding else ""
        return f"--dtype {self.network}{encoding}"

    def check(self, config: RunConfig) -> None:
        """Raise UserError if `--encoding` changes nothing in a run, or its device lacks it."""
        if config.encoding is not None and self.encoding is None:
            raise UserError(
                f"--encoding has no effect: the network runs in {self}, as the autoencoder does. It"
                " is for --dtype float16 and bfloat16."
            )
        if config.encoding == "tf32" and not has_precision(config.device, "tf32"):
            device = config.device or pick_device(None)
            raise UserError(f"--encoding tf32 {needs_tf32(device)}")


def find_precision(
    config: RunConfig, backbone: BackboneSpec, half: Half | None = None
) -> RunPrecision:
    """Return the precision of a run: the user's, or else the backbone's own on a GPU.

    A denoiser whose spec names none has `half`, the half precision of its class or file, or TF32. A
    default falls back to float32 where a device lacks it.
    """
    is_denoiser = backbone.scorer in TF32_SCORERS
    if config.tf32 and config.dtype in (None, "float32"):
        on_gpu: Precision = "tf32"
    elif names_precision(config):
        on_gpu = cast(Precision, config.dtype)
    else:
        on_gpu = backbone.dtype or (half or "tf32" if is_denoiser else "float32")
    is_here = names_precision(config) or has_precision(config.device, on_gpu)
    network = on_gpu if is_here else "float32"
    encoding: Encoding | None = None
    if is_denoiser and dtype_of(network) != "float32":
        has_tf32 = has_precision(config.device, "tf32")
        encoding = config.encoding or ("tf32" if has_tf32 else "float32")
    return RunPrecision(network, network == "tf32" or config.tf32, encoding, on_gpu)


def names_precision(config: RunConfig) -> bool:
    """Return whether the user has named a precision."""
    return config.tf32 or config.dtype is not None


def depends_on_class(config: RunConfig, backbone: BackboneSpec) -> bool:
    """Return whether the class or the files of a denoiser say what it runs in by default."""
    return not (backbone.dtype or names_precision(config)) and backbone.scorer in TF32_SCORERS


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
