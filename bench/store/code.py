"""The code that made a run, as its manifest records it: distribution → hash of its sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.store.documents import Manifest


def changed_code(manifests: Sequence[Manifest]) -> list[str]:
    """Return the distributions whose sources are not the same in all manifests that know them."""
    return sorted(
        name for name, hashes in _hashes([m.environment for m in manifests]).items() if hashes[1:]
    )


def mixed_code_warning(manifests: Sequence[Manifest], what: str) -> str | None:
    """Return a warning that the images of one run were scored by different code, if they were."""
    if not (changed := changed_code(manifests)):
        return None
    return (
        f"The code of {' and '.join(changed)} {what}: images of one run are scored by different"
        " code, and their scores may not be comparable. --fresh starts over."
    )


def with_code_of(manifest: Manifest, others: Sequence[Manifest]) -> Manifest:
    """Return a manifest that records the code of all manifests: hashes joined by ` + `."""
    hashes = _hashes([m.environment for m in (*others, manifest)])
    if not hashes:
        return manifest
    code = {name: " + ".join(of_name) for name, of_name in sorted(hashes.items())}
    return manifest.model_copy(update={"environment": {**manifest.environment, "code": code}})


def _hashes(environments: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the different hashes of each distribution, in order."""
    hashes: dict[str, list[str]] = {}
    for environment in environments:
        code = environment.get("code")
        for name, joined in code.items() if isinstance(code, Mapping) else ():
            earlier = hashes.setdefault(str(name), [])
            earlier += [sha for sha in str(joined).split(" + ") if sha not in earlier]
    return hashes
