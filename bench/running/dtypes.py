"""Which dtype a backbone runs in. It is part of the identity, so nothing is loaded to know it."""

from __future__ import annotations

from bench.contracts.specs import BackboneSpec
from bench.machine.environment import has_bfloat16, pick_device

AUTO = "auto"


def resolve_dtype(asked: str | None, backbone: BackboneSpec, device: str | None) -> str:
    """Return the dtype that the backbone runs in.

    Args:
        asked: a dtype; `auto`: bfloat16 where the spec says that the model was trained in it and
            the device has it, else float32; None: the spec's.
        backbone: its spec.
        device: None: the best there is.

    Raises:
        UserError: `auto` on a device that is not there.
    """
    if asked != AUTO:
        return asked or backbone.dtype
    half = backbone.dtype == "bfloat16" and has_bfloat16(pick_device(device))
    return "bfloat16" if half else "float32"
