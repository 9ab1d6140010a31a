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
        "cpu, cuda, cuda:1, mps (default: the best one here).", classify=True
    )
    batch_size: Annotated[int, Field(gt=0, lt=2**20)] | Literal["auto"] = setting(
        "Cells per batch; auto: measured once on this machine, and remembered.",
        default="auto",
        classify=True,
    )
    executor: Executors = setting(
        "Where images are scored: in this process, or by workers of Ray.", default="local"
    )
    workers: Annotated[int, Field(gt=0, lt=2**16)] | Literal["auto"] | None = setting(
        "How many workers of Ray; auto: one per GPU, and without any, one per machine"
        " (default: auto)."
    )
    ray_address: Text | None = setting(
        "The Ray cluster: auto (the one of this machine) or HOST:PORT (default: a Ray"
        " of its own on this machine)."
    )
    offline: bool = setting("Use no network: only what is on this machine.", default=False)
    tf32: bool = setting(
        "Let a GPU round float32 products to TF32.",
        DENOISERS,
        default=False,
        identity="precision",
        shared=True,
    )
    compile: bool = setting(
        "Compile the network: a minute or more before the first image.",
        DENOISERS,
        default=False,
        identity="half",
        shared=True,
    )
    layout: Layout = setting(
        "Memory layout of the network (auto: channels-last on a GPU).",
        DENOISERS,
        default="auto",
        identity="half",
        shared=True,
    )
    attention: Attention = setting(
        "The attention kernel (auto: what torch chooses).",
        DENOISERS,
        default="auto",
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
