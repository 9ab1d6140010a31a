"""Side files as versions before the seal wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_unsealed(path: Path, document: dict[str, Any]) -> None:
    """Write a document of a side file as in format 1, without a seal."""
    content = {name: value for name, value in document.items() if name != "seal"}
    path.write_text(json.dumps({**content, "format": 1}))
