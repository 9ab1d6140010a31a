"""Settings of where a run takes place: device, workers, and how the network runs."""

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
    """Settings of the machine that scores the images."""

    title = "Where it runs"

    device: Text | None = setting("machine", "network")
    """The device, such as cpu, cuda, cuda:1 or mps (default: the best of this machine)."""
    batch_size: Annotated[int, Field(gt=0, lt=2**20)] | Literal["auto"] = setting(
        "machine", default="auto"
    )
    """Cells (image, draw, prompt) per batch; auto: measured once, then cached."""
    executor: Executors = setting("machine", default="local", of_split=True)
    """Where images are scored: local (in this process), or ray (by Ray workers)."""
    workers: Annotated[int, Field(gt=0, lt=2**16)] | Literal["auto"] | None = setting(
        "machine", needs="executor", of_split=True
    )
    """Number of Ray workers; auto: one per GPU, or one per machine if there are no GPUs (default:
    auto)."""
    ray_address: Text | None = setting("machine", needs="executor", of_split=True)
    """The Ray cluster: auto (the one running on this machine) or HOST:PORT (default: a new one on
    this machine)."""
    offline: bool = setting("machine", default=False)
    """Do not use the network, only files on this machine."""
    tf32: bool = setting(
        "network", "prompts", default=False, scorers=DENOISERS, identity="precision"
    )
    """Allow a GPU to compute float32 products in TF32."""
    compile: bool = setting("network", default=False, scorers=DENOISERS, identity="half")
    """Compile the network with torch.compile; takes a minute or more before the first image."""
    layout: Layout = setting("network", default="auto", scorers=DENOISERS, identity="half")
    """Memory layout of the network (auto: channels-last on a GPU)."""
    attention: Attention = setting("network", default="auto", scorers=DENOISERS, identity="half")
    """The attention kernel (auto: chosen by torch)."""

    @field_validator("batch_size", "workers", mode="before")
    @classmethod
    def _is_number(cls, value: Any) -> Any:
        """Convert digits from a command line or variable to int; leave `auto` as it is."""
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @field_validator("device")
    @classmethod
    def _is_device(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(rf"({'|'.join(DEVICES)})(:\d+)?", value):
            raise ValueError(
                f"must be one of {', '.join(DEVICES)}, optionally with an index such as cuda:1"
            )
        return value
