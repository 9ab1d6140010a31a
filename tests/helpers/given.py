"""Datasets made for a test: given rows behind a spec, folders of pictures, parquet files, tars."""

import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bench.contracts.specs import DatasetSpec
from bench.discovery.loading import load_plugins
from bench.inputs.data import DataSource, load_split
from bench.inputs.split import Split


class Given:
    """A dataset plugin that returns what the test put here."""

    rows: ClassVar[Any] = None

    def load(self, split: str | None, data_dir: str | None) -> Any:
        return self.rows


def spec_of(rows: Any, classes: tuple[str, ...] | None = None) -> DatasetSpec:
    """Return the spec of a dataset whose `load` returns `rows`; the last one made holds."""
    Given.rows = rows
    return DatasetSpec(name="given", target="helpers.given:Given", classes=classes)


def load_folder(
    path: Path | str, split: str | None = None, skip_unlabelled: bool = False, **parameters: Any
) -> Split:
    """Load a split of a user's own folder or file."""
    spec = load_plugins().datasets.get("folder")
    source = DataSource(spec, str(path), parameters, skip_unlabelled=skip_unlabelled)
    return load_split(source, split)


def stored(image: Image.Image, kind: str = "PNG", **options: Any) -> Any:
    """Return a picture as `datasets` stores it."""
    file = BytesIO()
    image.save(file, kind, **options)
    return {"bytes": file.getvalue(), "path": None}


def picture(shade: int = 0) -> dict[str, Any]:
    """Return a small picture as `datasets` stores it."""
    made: dict[str, Any] = stored(Image.new("L", (4, 4), shade))
    return made


def rows_of(labels: list[Any], feature: Any, **columns: tuple[list[Any], Any]) -> datasets.Dataset:
    """Return a dataset with these labels, a picture each, and other columns (values, feature)."""
    kinds = {name: kind for name, (_, kind) in columns.items()}
    features = datasets.Features({"image": datasets.Image(), "label": feature, **kinds})
    table = pa.table(
        {
            "image": pa.array(
                [picture(i % 256) for i in range(len(labels))], datasets.Image.pa_type
            ),
            "label": labels,
            **{name: values for name, (values, _) in columns.items()},
        }
    )
    return datasets.Dataset(
        table.cast(features.arrow_schema), info=datasets.DatasetInfo(features=features)
    )


def write_parquet(path: Path, columns: dict[str, Any], classes: list[str] | None = None) -> Path:
    """Write a parquet file; with class names, as `datasets` would write it."""
    table = pa.table(columns)
    if classes is not None:
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=classes)}
        )
        table = table.replace_schema_metadata(features.arrow_schema.metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def make_folder(root: Path, *names: str) -> Path:
    """Make a small picture under each name, such as `cat/1.png`, and return the folder."""
    for shade, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * shade % 256, 90, 10)).save(file, "PNG")
    return root


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """Write a tar of members in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    return path
