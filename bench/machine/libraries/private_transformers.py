"""Names of transformers that it does not document, seen in 4.50 to 5.25."""

from collections.abc import Collection
from typing import Any

# Copy of the variable HF_HUB_OFFLINE, before 5.0: its module and its name.
OFFLINE_COPY = ("transformers.utils.hub", "_is_offline_mode")


def ignored_keys(model_cls: Any) -> Collection[str]:
    """Return the patterns of the tensors that a class leaves out when a file has them."""
    return getattr(model_cls, "_keys_to_ignore_on_load_unexpected", None) or ()
