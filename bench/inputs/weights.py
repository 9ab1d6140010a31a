"""Where a backbone's weights lie, and a fingerprint of what they are.

Weights are a folder on this machine, a folder inside an installed package (`package:folder`) or
a repository on the Hugging Face Hub.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench.errors import AbsentError, UserError
from bench.machine.cache import cache_dir, keep

_SUFFIXES = {".safetensors", ".json", ".txt", ".model"}


@dataclass(frozen=True)
class Weights:
    """Resolved weights.

    Attributes:
        location: an absolute folder, or a Hub id.
        revision: the Hub commit; None for a folder.
        fingerprint: hash of the folder's files, or Hub id and commit.
    """

    location: str
    revision: str | None
    fingerprint: str


def locate(weights: str) -> str:
    """Return an absolute folder for a path or `package:folder`, a Hub id unchanged."""
    package, colon, folder = weights.partition(":")
    if colon and package.isidentifier():
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f"The package {package!r}, which holds the weights, is not installed.")
        return str(Path(next(iter(spec.submodule_search_locations)), folder).resolve())
    path = Path(weights).expanduser()
    if path.is_dir() or weights.startswith((".", "/", "~")):
        return str(path.resolve())
    return weights


def resolve(weights: str, revision: str | None = None) -> Weights:
    """Find the weights without reading them.

    Raises:
        AbsentError: the Hub cannot be asked and there is no copy.
        UserError: the folder does not exist, or holds no weights.
    """
    location = locate(weights)
    if not Path(location).is_absolute():
        commit = _hub_commit(location, revision)
        return Weights(location, commit, f"{location}@{commit}")
    folder = Path(location)
    if not folder.is_dir():
        raise UserError(f"The weights folder {folder} does not exist.")
    files = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES)
    if not files:
        raise UserError(f"The weights folder {folder} holds no safetensors and no configuration.")
    lines = [f"{path.relative_to(folder)} {_file_hash(path)}" for path in files]
    return Weights(location, None, hashlib.sha256("\n".join(lines).encode()).hexdigest())


def _file_hash(path: Path) -> str:
    """Hash a file, once: gigabytes of weights are read again only when the file has changed."""
    stat = path.stat()
    key = hashlib.sha256(f"{path} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()
    large = stat.st_size > 50_000_000
    memo = cache_dir("hashes") / f"{key}.json"
    if large and memo.is_file():
        return str(json.loads(memo.read_text()))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if large:
        keep(memo, json.dumps(digest))
    return digest


def _hub_commit(repository: str, revision: str | None) -> str:
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    try:
        info = huggingface_hub.HfApi().model_info(repository, revision=revision, timeout=10)
        return str(info.sha)
    except HFValidationError:
        raise UserError(
            f"The weights {repository!r} are neither a folder on this machine nor a Hub id."
        ) from None
    except Exception as error:
        cached = huggingface_hub.try_to_load_from_cache(
            repository, "model_index.json", revision=revision
        )
        if isinstance(cached, str):
            return Path(cached).parent.name
        raise AbsentError(
            f"The weights {repository!r}{f' at {revision}' if revision else ''} are not on this"
            f" machine, and the Hub did not give them ({type(error).__name__}).\n"
            "Put a copy in diffusers' layout (unet/ vae/ text_encoder/ tokenizer/ scheduler/) into"
            f" a folder and say --weights FOLDER, or fetch it where there is a network with:\n"
            f"  hf download {repository} --local-dir FOLDER"
        ) from error
