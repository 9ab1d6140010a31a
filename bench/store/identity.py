"""Identity: the hash of everything that changes a run's numbers, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from bench.store.documents import Identity

IDENTITY_VERSION = 1


def digest(identity: Identity | Mapping[str, Any]) -> str:
    """Return the identity's hash, 64 hex digits; the same for the same content in any order."""
    content = identity.plain() if isinstance(identity, Identity) else identity
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def run_id(dataset: str, backbone: str, strategy: str, identity: Identity) -> str:
    """Return dataset-backbone-strategy-<8 hex digits>; there is no time in it."""
    return f"{dataset}-{backbone}-{strategy}-{digest(identity)[:8]}"
