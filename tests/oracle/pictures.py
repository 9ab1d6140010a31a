"""A few pictures of several shapes and modes, in every form in which a run takes images."""

import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "fir tree")
ORIENTATION, UPSIDE_DOWN = 0x0112, 3  # a tag of EXIF, and its value for a turned picture


@dataclass(frozen=True)
class Pictures:
    """One split in one form."""

    source: Any  # a path, or a `datasets.Dataset`
    files: dict[str, Path]  # sample id → the picture that was drawn
    labels: dict[str, int]  # sample id → class index


def pictures(root: Path, form: str, which: int, count: int) -> Pictures:
    """Return `count` pictures in a form. They depend on `which` and `count` alone."""
    drawn = root / f"{which}-{count}"
    if not drawn.exists():
        _draw(drawn, which, count)
    files = {str(file.relative_to(drawn)): file for file in sorted(drawn.rglob("*.png"))}
    source = FORMS[form](drawn, files, root / form / drawn.name)
    ids = {name: name.removesuffix(".png") if form == "tar" else name for name in files}
    return Pictures(
        source,
        {ids[name]: file for name, file in files.items()},
        {ids[name]: _label(name) for name in files},
    )


def _draw(folder: Path, which: int, count: int) -> None:
    rng = np.random.default_rng([which, count])
    for number in range(count):
        noise = Image.fromarray(rng.integers(0, 256, (5, 5, 4), np.uint8))
        size = 16 + int(rng.integers(12)), 16 + int(rng.integers(12))
        mode = ("RGB", "RGB", "L", "RGBA")[number % 4]
        exif = Image.Exif()
        exif[ORIENTATION] = UPSIDE_DOWN if number == 1 else 1
        file = folder / CLASSES[number % 3].replace(" ", "_") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise.resize(size, Image.Resampling.BICUBIC).convert(mode).save(file, exif=exif)


def _label(name: str) -> int:
    return CLASSES.index(Path(name).parent.name.replace("_", " "))


Files = dict[str, Path]


def _folder(drawn: Path, files: Files, target: Path) -> Path:
    return drawn


def _memory(drawn: Path, files: Files, target: Path) -> datasets.Dataset:
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(CLASSES)),
            "sample_id": datasets.Value("string"),
        }
    )
    images = [{"bytes": file.read_bytes(), "path": None} for file in files.values()]
    columns = {"image": images, "label": [*map(_label, files)], "sample_id": [*files]}
    return datasets.Dataset.from_dict(columns, features=features)


def _parquet(drawn: Path, files: Files, target: Path) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    _memory(drawn, files, target).to_parquet(target / "test.parquet")
    return target / "test.parquet"


def _saved(drawn: Path, files: Files, target: Path) -> Path:
    if not target.exists():
        _memory(drawn, files, target).save_to_disk(target)
    return target


def _table(drawn: Path, files: Files, target: Path) -> Path:
    shutil.copytree(drawn, target, dirs_exist_ok=True)
    lines = [f"{name},{CLASSES[_label(name)]}" for name in files]
    (target / "labels.csv").write_text("\n".join(["file_name,label", *lines, ""]))
    return target / "labels.csv"


def _tar(drawn: Path, files: Files, target: Path) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target / "test.tar", "w") as tar:
        for name, file in files.items():
            label = CLASSES[_label(name)].encode()
            for member, content in ((name, file.read_bytes()), (f"{name[:-4]}.txt", label)):
                header = tarfile.TarInfo(member)
                header.size = len(content)
                tar.addfile(header, BytesIO(content))
    return target / "test.tar"


FORMS: dict[str, Callable[[Path, Files, Path], Any]] = {
    "folder": _folder,
    "parquet": _parquet,
    "table": _table,
    "tar": _tar,
    "saved": _saved,
    "memory": _memory,
}
PATH_FORMS = tuple(form for form in FORMS if form != "memory")
