"""Names of the datasets of torchvision that it does not document, seen in 0.21 to 0.28."""

from pathlib import Path
from typing import Any

_FILES = ("_image_files", "_images")  # attributes with the files of the images
_PAIRS = ("_samples", "samples", "imgs")  # attributes with pairs (file, label)


def listed_files(made: Any) -> list[tuple[str | Path, Any]] | None:
    """Return the file and the label of each image; None if a dataset does not list its files.

    Its documented items are decoded images, whose files are read and whose names are lost.
    """
    files = next((getattr(made, name) for name in _FILES if hasattr(made, name)), None)
    pairs: list[Any] | None
    if isinstance(getattr(made, "data", None), list) and hasattr(made, "targets"):
        pairs = list(zip(made.data, made.targets, strict=True))
    elif files is not None and hasattr(made, "_labels"):
        pairs = list(zip(files, made._labels, strict=True))
    else:
        pairs = next((getattr(made, name) for name in _PAIRS if hasattr(made, name)), None)
    has_files = pairs and all(isinstance(file, str | Path) for file, *_ in pairs)
    return pairs if has_files else None
