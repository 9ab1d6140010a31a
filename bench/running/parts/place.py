"""Where it runs: the device, how the network runs there, and the workers."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from bench.running.parts.setting import DENOISERS, Chapter, Text, setting

Layout = Literal["auto", "contiguous", "channels-last"]
Executors = Literal["local", "ray"]
Attention = Literal["auto", "math", "flash", "efficient", "cudnn"]

DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "npu")


class PlaceSettings(Chapter):
    """The machine of a run."""

    title = "Where it runs"

    device: Text | None = setting(
        None, "cpu, cuda, cuda:1, mps (default: the best one here).", classify=True
    )
    batch_size: Annotated[int, Field(gt=0, lt=2**20)] | Literal["auto"] = setting(
        "auto",
        "Cells per batch; auto: measured once on this machine, and remembered.",
        classify=True,
    )
    executor: Executors = setting(
        "local", "Where images are scored: in this process, or by workers of Ray."
    )
    workers: Annotated[int, Field(gt=0, lt=2**16)] | Literal["auto"] | None = setting(
        None,
        "How many workers of Ray; auto: one per GPU, and without any, one per machine"
        " (default: auto).",
    )
    ray_address: Text | None = setting(
        None,
        "The Ray cluster: auto (the one of this machine) or HOST:PORT (default: a Ray"
        " of its own on this machine).",
    )
    offline: bool = setting(False, "Use no network: only what is on this machine.")
    tf32: bool = setting(
        False,
        "Let a GPU round float32 products to TF32.",
        DENOISERS,
        identity="precision",
        shared=True,
    )
    compile: bool = setting(
        False,
        "Compile the network: a minute or more before the first image.",
        DENOISERS,
        identity="half",
        shared=True,
    )
    layout: Layout = setting(
        "auto",
        "Memory layout of the network (auto: channels-last on a GPU).",
        DENOISERS,
        identity="half",
        shared=True,
    )
    attention: Attention = setting(
        "auto",
        "The attention kernel (auto: what torch chooses).",
        DENOISERS,
        identity="half",
        shared=True,
    )

    @field_validator("batch_size", "workers", mode="before")
    @classmethod
    def _is_number(cls, value: Any) -> Any:
        """A command line and a variable give text, since `auto` is one."""
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @field_validator("device")
    @classmethod
    def _is_device(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(rf"({'|'.join(DEVICES)})(:\d+)?", value):
            raise ValueError(f"must be one of {', '.join(DEVICES)}, perhaps with a number")
        return value
