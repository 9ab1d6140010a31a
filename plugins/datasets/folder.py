"""Any folder: images in a folder a class, or parquet files with the columns image and label."""

from __future__ import annotations

import re
from pathlib import Path

import datasets

from bench.errors import UserError

IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
SPLITS = ("test", "validation", "val", "valid", "train")  # in order of preference


class Folder:
    """Labels are the names of the folders that the images lie in, in alphabetical order."""

    def load(self, split: str | None, data_dir: str | None) -> datasets.Dataset:
        """Return a split: the one named, else test, validation, train, or all there is."""
        folder = Path(str(data_dir))
        if any(folder.rglob("*.parquet")):
            return load_parquet(folder, split)
        splits = [name for name in SPLITS if (folder / name).is_dir()]
        if split is not None and split != "all" and not (folder / split).is_dir():
            raise UserError(
                f"The folder {folder} has no split {split!r}; it has: {', '.join(splits) or 'all'}."
            )
        chosen = split or (splits[0] if splits else "all")
        return load_images(folder if chosen == "all" else folder / chosen, chosen)


def load_images(folder: Path, split: str) -> datasets.Dataset:
    """Return the images below `folder`, labelled by the folder each lies in.

    Images are named, not opened, so that a corrupt one is found when its turn comes, and counts
    as wrong without costing the others.

    Raises:
        UserError: no images, or images outside a class folder.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGES and p.is_file())
    if not files:
        raise UserError(
            f"The folder {folder} holds no images. Put each class's images into a folder of its"
            f" own, such as {folder / 'cat' / '1.png'}."
        )
    loose = [path for path in files if path.parent == folder]
    if loose:
        raise UserError(
            f"{loose[0]} lies in no class folder. Put each class's images into a folder of its"
            f" own, such as {folder / 'cat' / loose[0].name}; for pictures without a label there is"
            " `bench classify`."
        )
    names = sorted({path.relative_to(folder).parts[0] for path in files})
    label = {name: index for index, name in enumerate(names)}
    ids = [path.relative_to(folder).as_posix() for path in files]
    return datasets.Dataset.from_dict(
        {
            "image": [str(path) for path in files],
            "label": [label[sample_id.split("/")[0]] for sample_id in ids],
            "sample_id": ids,
        },
        features=datasets.Features(
            {
                "image": datasets.Image(),
                "label": datasets.ClassLabel(names=[_readable(name) for name in names]),
                "sample_id": datasets.Value("string"),
            }
        ),
        split=split,
    )


def load_parquet(folder: Path, split: str | None) -> datasets.Dataset:
    """Return a split of parquet files in the Hub's layout, such as data/train-….parquet.

    Raises:
        UserError: unreadable files, or an unknown split.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        named = re.match("|".join(SPLITS), path.stem) or re.match(
            "|".join(SPLITS), path.parent.name
        )
        found.setdefault(named.group() if named else "all", []).append(str(path))
    chosen = split or next(name for name in (*SPLITS, "all") if name in found)
    if chosen not in found:
        raise UserError(f"{folder} has no split {split!r}; it has: {', '.join(found)}.")
    try:
        return datasets.load_dataset("parquet", data_files={chosen: found[chosen]}, split=chosen)
    except (datasets.exceptions.DatasetGenerationError, ValueError, OSError) as error:
        reason = error.__cause__ or error
        raise UserError(f"The parquet files in {folder} cannot be read: {reason}") from error


def _readable(name: str) -> str:
    return name.replace("_", " ").strip()
