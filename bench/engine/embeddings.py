"""Text embeddings, computed once and kept on disk by backbone and prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from bench.contracts.backbone import Denoiser
from bench.errors import UserError
from bench.machine.cache import cache_dir, keep

FORMAT = 2  # 1 also kept what text encoders gave whose tensors had not been checked
ENCODED = 64  # prompts encoded at a time: memory does not grow with their number
LIBRARIES = ("torch", "transformers", "tokenizers")  # they compute an embedding


def embed_prompts(backbone: Denoiser, key: str, texts: Sequence[str]) -> torch.Tensor:
    """Return the conditioning of `texts`, [P, L, D], on the backbone's device.

    Each is looked up in the cache first; only missing ones are encoded, so a backbone that loads
    its text encoder on demand may never load it. Two processes may do this at once: a file
    appears whole, and both write the same.

    Args:
        backbone: encodes what is missing; what it loads for that, it has checked.
        key: everything that decides an embedding besides its text and the libraries: the
            fingerprint of the weights (of text encoder and tokenizer at least), dtype, version.
        texts: the prompts.

    Raises:
        UserError: an embedding is not finite.
    """
    paths = {text: _path(key, text) for text in texts}
    embeddings = {text: _read(path) for text, path in paths.items()}
    missing = [text for text, embedding in embeddings.items() if embedding is None]
    for start in range(0, len(missing), ENCODED):
        some = missing[start : start + ENCODED]
        for text, embedding in zip(some, backbone.encode_prompts(some), strict=True):
            if not torch.isfinite(embedding).all():
                raise UserError(
                    f"The text encoder's embedding of the prompt {text[:200]!r} is not finite."
                )
            embeddings[text] = embedding.clone()  # a part of a batch would keep all of it
            data = save({"embedding": embedding.contiguous().cpu()}, metadata={"prompt": text})
            keep(paths[text], data)
    found = [embeddings[text] for text in texts]
    return torch.stack([e.to(backbone.device) for e in found if e is not None])


def _path(key: str, text: str) -> Path:
    content = f"{FORMAT} {_libraries()} {key}\n{text}"
    digest = hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()
    return cache_dir("embeddings", digest[:2]) / f"{digest}.safetensors"


def _read(path: Path) -> torch.Tensor | None:
    try:
        return load_file(path)["embedding"]
    except (OSError, SafetensorError, KeyError):  # not there, or damaged: encode it again
        return None


@cache
def _libraries() -> str:
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # a backbone need not use it
            found.append(f"no {name}")
    return ", ".join(found)
