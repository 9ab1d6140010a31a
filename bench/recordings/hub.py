"""Error tables on the Hugging Face Hub: `hf:owner/name` where a recorded run is wanted."""

from __future__ import annotations

import os
from pathlib import Path

from bench.errors import AbsentError, UserError
from bench.store.folder import MANIFEST, find_run

SCHEME = "hf:"
FILES = (
    *("README.md", MANIFEST, "samples.jsonl", "summary.json", "draws.parquet"),
    *("errors/*.parquet", "first_order/*.parquet"),
)


def find_recording(name: str, results: str) -> Path:
    """Return the folder of a recorded run: by id, by path, or fetched from the Hub.

    Args:
        name: an id, a folder, or `hf:owner/name` with or without `@revision`.
        results: where runs are stored.

    Raises:
        UserError: there is none.
    """
    return fetch(name.removeprefix(SCHEME)) if name.startswith(SCHEME) else find_run(name, results)


def fetch(repository: str) -> Path:
    """Return the folder of an error table of the Hub, fetched where it is not here yet.

    Raises:
        UserError: it cannot be had, or is none.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    name, _, revision = repository.partition("@")
    try:
        folder = snapshot_download(
            name,
            repo_type="dataset",
            revision=revision or None,
            allow_patterns=list(FILES),
            endpoint=endpoint(),
        )
    except HFValidationError:
        raise UserError(
            f"{SCHEME}{repository} is no dataset of the Hub: write it as {SCHEME}owner/name."
        ) from None
    except Exception as error:  # the Hub's client raises many kinds
        raise AbsentError(
            f"{SCHEME}{repository} is not on this machine, and the Hub did not give it"
            f" ({type(error).__name__}). Is it a dataset that you can see, and is there a network?"
        ) from error
    if not Path(folder, MANIFEST).is_file():
        raise UserError(
            f"{SCHEME}{repository} is no error table: it has no {MANIFEST}. `bench results export"
            " RUN --format errors` writes one."
        )
    return Path(folder)


def endpoint() -> str | None:
    """Return the address of the Hub that the environment names; None: the public one."""
    return os.environ.get("HF_ENDPOINT") or None
