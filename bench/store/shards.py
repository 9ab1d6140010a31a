"""Shards: the parts of a run, each scored by itself into a folder below the run's.

results/<run_id>/shards/3-of-16/      a folder as any run's, with the samples of the shard
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.store.documents import Manifest

SHARDS = "shards"


def shard_folder(run: Path, index: int, count: int) -> Path:
    """Return the folder of a shard of the run in a folder."""
    return run / SHARDS / f"{index}-of-{count}"


def holds_shards(run: Path | str) -> bool:
    """Tell whether a folder is that of a run with shards."""
    return next(shards_of(Path(run)), None) is not None


def shards_of(run: Path) -> Iterator[Path]:
    """Yield the folders of a run's shards, in the order of their numbers."""
    try:
        names = [path.name for path in (run / SHARDS).iterdir()]
    except (OSError, ValueError):  # a name may hold a NUL
        return
    found = [match for name in names if (match := re.fullmatch(r"([0-9]+)-of-([0-9]+)", name))]
    for match in sorted(found, key=lambda match: (int(match[2]), int(match[1]))):
        yield run / SHARDS / match[0]


def joined(earlier: Manifest, now: Manifest) -> Manifest:
    """Return `now` with the samples that either of two manifests of one folder asks for."""
    if earlier.part is None or now.part is None:
        samples = list(dict.fromkeys([*earlier.samples, *now.samples]))
        return now.model_copy(update={"samples": samples})
    places: dict[str, int] = {}
    for manifest in (earlier, now):
        assert manifest.part is not None
        places.update(zip(manifest.samples, manifest.part.places, strict=True))
    asked = max(earlier.part.asked, now.part.asked)
    part = now.part.model_copy(update={"asked": asked, "places": list(places.values())})
    return now.model_copy(update={"samples": list(places), "part": part})


def whole(manifest: Manifest, **changes: Any) -> Manifest:
    """Return a manifest as that of a run which is no part of another one."""
    content = {**manifest.plain(), **changes}
    for name in ("part", "asked"):
        if name not in changes:
            content.pop(name, None)
    content["config"] = {**content["config"], "shard": None}
    return Manifest.model_validate(content)
