"""Load classification datasets from torchvision: `torchvision:Flowers102`."""

from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import torchvision

from bench.contracts.dataset import Listing, Row, file_image
from bench.errors import AbsentError, UserError, did_you_mean
from bench.machine.cache import cache_dir
from bench.machine.files import read_toml, resolve_inside
from bench.machine.libraries.private_torchvision import listed_files
from bench.machine.offline import is_offline
from bench_plugins.datasets._listing import chosen_split

Splits = Mapping[str, Mapping[str, Any]]  # split → constructor arguments that select it

# A list of splits in the file stands for the argument `split`.
_TABLES: Any = read_toml(files(__package__) / "vision.toml")
TORCHVISION_SPLITS: Mapping[str, Splits] = {
    name: {split: {"split": split} for split in splits} if isinstance(splits, list) else splits
    for name, splits in sorted(_TABLES.items())
}
_COPIES = ("FER2013", "StanfordCars")  # torchvision only reads copies of these
_DIGITS = ("SEMEION", "SVHN", "USPS")  # datasets whose labels are the digits


class TorchVision:
    """A dataset of torchvision, by the name of its class."""

    def __init__(self, source: str = "") -> None:
        if source not in TORCHVISION_SPLITS:
            raise UserError(
                f"torchvision:{source} is not one of its classification datasets that need no"
                f" account.{did_you_mean(source, TORCHVISION_SPLITS)} They are:"
                f" {', '.join(TORCHVISION_SPLITS)}."
            )
        self.name = source

    def load(self, split: str | None, data_dir: str | None) -> Listing:
        """Return a split (UserError if it cannot be downloaded or the copy is incomplete)."""
        splits = TORCHVISION_SPLITS[self.name]
        chosen = chosen_split(split, splits, f"torchvision:{self.name}")
        root = Path(data_dir) if data_dir else cache_dir("torchvision", self.name)
        arguments: dict[str, Any] = dict(splits[chosen])
        if self.name not in _COPIES:
            arguments["download"] = data_dir is None and not is_offline()
        try:
            made = getattr(torchvision.datasets, self.name)(str(root), **arguments)
        except Exception as error:  # torchvision raises many kinds
            kind, where = UserError, f"in {root}"
            if data_dir is None and is_offline():
                kind, where = AbsentError, f"{where}, and no network is used to download it"
            elif data_dir is None:
                where = "and could not be downloaded"
            raise kind(
                f"torchvision:{self.name} is not complete {where}:"
                f" {' '.join(str(error).split())[:300]}"
            ) from error
        rows = list(_list_rows(made, chosen, root))
        if not rows:
            raise UserError(f"torchvision:{self.name}: there are no images of {chosen} in {root}.")
        names = self._classes(made, max(int(str(row.label)) for row in rows))
        return Listing(rows, chosen, class_names=lambda: names, numbered=True)

    def _classes(self, made: Any, largest: int) -> list[str] | None:
        """Return the class names from torchvision, or None if it has none for these labels."""
        if self.name in _DIGITS:
            return [str(digit) for digit in range(10)]
        stated = getattr(made, "classes", None) or getattr(made, "categories", None)
        if not stated:
            return None
        names = [" or ".join(name) if isinstance(name, tuple) else str(name) for name in stated]
        enough = len(names) > largest and len(set(names)) == len(names)
        return names if enough else None


def _list_rows(made: Any, split: str, root: Path) -> Iterator[Row]:
    """Yield the row of each sample.

    An image in a file is referred to by its path; its id is its name below the root. An image in
    memory is encoded as uncompressed PPM, which does not depend on library versions; its id is its
    position.
    """
    pairs: Iterable[Any] = listed_files(made) or (made[row] for row in range(len(made)))
    for row, (image, label) in enumerate(pairs):
        # An image that has a file name is the content of that file, unchanged.
        name = image if isinstance(image, str | Path) else getattr(image, "filename", "")
        if name:
            path = Path(name).absolute()
            stored = file_image(resolve_inside(root, str(path)))
            yield Row(path.relative_to(root.absolute()).as_posix(), stored, str(int(label)))
            continue
        file = BytesIO()
        image.convert("L" if image.mode in ("L", "1") else "RGB").save(file, "PPM")
        stored = {"bytes": file.getvalue(), "path": None}
        yield Row(f"{split}-{row:06d}", stored, str(int(label)))
