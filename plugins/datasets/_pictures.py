"""Images in a folder per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets

from bench.errors import UserError
from bench_plugins.datasets._listing import LeftOut, find_images, subfolders, tell_missing


def load_images(folder: Path, split: str, parts: Sequence[Path] = ()) -> datasets.Dataset:
    """Return the images below `folder`, labelled by the folder each lies in.

    Args:
        folder: the split's.
        split: its name.
        parts: the folders of all splits; a class of any of them is a class of each.

    Raises:
        UserError: no images, or images outside a class folder.
    """
    left_out = LeftOut()
    files = find_images(folder, left_out)
    if not files:
        beside = f" ({left_out.text()})" if left_out.text() else ""
        raise UserError(
            f"The folder {folder} holds no images{beside}. Put each class's images into a folder"
            f" of its own, such as {folder / 'cat' / '1.png'}."
        )
    loose = [path for path in files if path.parent == folder]
    if loose:
        raise UserError(
            f"{loose[0]} lies in no class folder. Put each class's images into a folder of its"
            f" own, such as {folder / 'cat' / loose[0].name}, or say the labels in a table, by"
            " --labels FILE.csv or a metadata.csv beside them (file_name,label). For pictures"
            " without a label there is `bench classify`."
        )
    names = {path.relative_to(folder).parts[0] for path in files}
    elsewhere = {
        path.relative_to(part).parts[0]
        for part in parts
        if part != folder
        for path in find_images(part, LeftOut())
        if path.parent != part
    }
    left_out.classes = [
        path.name
        for path in subfolders(folder)
        if path.name not in names | elsewhere and not path.is_symlink()
    ]
    if parts:
        left_out.beside = [p.name for p in subfolders(folder.parent) if p not in parts]
    left_out.tell(folder)
    tell_missing(sorted(elsewhere - names), folder)
    classes = sorted(names | elsewhere)
    label = {name: index for index, name in enumerate(classes)}
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
                "label": datasets.ClassLabel(names=classes),
                "sample_id": datasets.Value("string"),
            }
        ),
        split=split,
    )
