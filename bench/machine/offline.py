"""Working without a network: what libraries read to know that they must not ask for anything."""

from __future__ import annotations

import os
import sys

VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
# The libraries read the variables once, when they are imported.
_CONSTANTS = {
    "huggingface_hub.constants": ("HF_HUB_OFFLINE",),
    "datasets.config": ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
}


def go_offline() -> None:
    """Have this process, and those that it starts, ask the Hub for nothing from now on."""
    for name in VARIABLES:
        os.environ[name] = "1"
    for module, names in _CONSTANTS.items():
        if module in sys.modules:
            for name in names:
                setattr(sys.modules[module], name, True)
