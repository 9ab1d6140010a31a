"""Names of `datasets` that it does not document, seen in 3.0 to 5.2."""

from typing import Any

from bench.machine.libraries import datasets


def selected_rows(rows: Any) -> list[int] | None:
    """Return the positions in its table of the rows that a dataset selects; None for all of them.

    The documented `flatten_indices` copies every image.
    """
    selected = rows._indices
    return None if selected is None else selected.column(0).to_pylist()


def is_memory_mapped(rows: Any) -> bool:
    """Return whether a dataset's table is mapped from the files that it lists."""
    return type(rows.data).__name__ == "MemoryMappedTable"


def features_of(stream: Any) -> Any:
    """Return the features of a streamed dataset, which may have to be read from its first rows."""
    return stream.features or stream._resolve_features().features


def cached_builder(repository: str, **kept: str) -> Any:
    """Return the builder that reads a dataset of the Hub from the library's cache, by commit."""
    from datasets.packaged_modules.cache.cache import Cache

    return Cache(repo_id=repository, dataset_name=repository.rpartition("/")[2], **kept)


def reads_cache(builder: Any) -> bool:
    """Return whether a builder is one of `cached_builder`."""
    from datasets.packaged_modules.cache.cache import Cache

    return isinstance(builder, Cache)


def no_remote_code() -> dict[str, bool]:
    """Return the keywords that let no code of a dataset run; since 4.0 the library runs none."""
    asks = hasattr(datasets.config, "HF_DATASETS_TRUST_REMOTE_CODE")
    return {"trust_remote_code": False} if asks else {}
