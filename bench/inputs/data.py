"""Asking a dataset for a split of it, and checking all that it gives, before scoring."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contracts.specs import DatasetSpec
from bench.discovery.guard import guard
from bench.discovery.targets import make
from bench.errors import AbsentError, PluginError, UserError, quoted, warn_user
from bench.inputs.class_names import ClassNames, listed, name_classes
from bench.inputs.items import ItemTable, item_ids, read_items
from bench.inputs.labels import read_labels
from bench.inputs.parsing import check_column, expand
from bench.inputs.rows import (
    as_stored,
    checked_rows,
    column_values,
    drop_unlabelled,
    image_column,
)
from bench.inputs.split import Split
from bench.machine.files import is_utf8, path_exists
from bench.machine.offline import hub_silence, offline

if TYPE_CHECKING:
    import datasets

COLUMNS = ("image", "label")
FOLDER = "folder"  # the registered name that a path stands for, among datasets and backbones


@dataclass(frozen=True)
class DataSource:
    """A dataset, and how it is read."""

    spec: DatasetSpec
    data_dir: str | None = None  # the local copy; of a dataset that is a path, this path
    parameters: Mapping[str, Any] = field(default_factory=dict)  # those that its spec declares
    class_names: Path | None = None  # a file with the classes in words
    skip_unlabelled: bool = False  # leave images without a label out instead of refusing them
    name: str | None = None  # name in the manifest: as the user wrote it, or `folder`

    @property
    def title(self) -> str:
        """Name in run ids: a folder's own, or what follows a scheme."""
        if self.spec.scheme:
            return slug(str(self.parameters["source"]).partition(":")[0].replace("/", "-"))
        is_folder = self.spec.name == FOLDER and self.data_dir is not None
        return slug(str(self.data_dir)) if is_folder else self.spec.name

    @property
    def label(self) -> str:
        """Name in messages."""
        spec = self.spec
        return f"The data in {self.data_dir}" if spec.name == FOLDER else f"Dataset {spec.name!r}"

    @property
    def root(self) -> Path | None:
        """Folder that the files of the data lie in; None: a plugin knows where."""
        place = Path(self.data_dir or self.spec.source or "")
        if not (self.data_dir or place.is_absolute()):
            return None
        return place.parent if place.is_file() else place


def check_data_dir(spec: DatasetSpec, data_dir: str | None) -> None:
    """Refuse a data folder that is missing, or that the dataset would not read (UserError)."""
    if data_dir is None:
        return
    named = is_utf8(data_dir) and "\0" not in data_dir
    if named and "{" in data_dir and not path_exists(data_dir):
        expand(data_dir)
    elif not named or not path_exists(data_dir):
        raise UserError(f"The data folder {quoted(data_dir)} does not exist.")
    if not spec.takes_data_dir:
        raise UserError(f"Dataset {spec.name!r} reads no folder; leave --data-dir out.")


def load_split(
    source: DataSource, split: str | None = None, rows: datasets.Dataset | None = None
) -> Split:
    """Load one split and check it: columns, labels, classes, ids, places of files (UserError).

    `split` None means the one that is evaluated; `rows` are used where they are in memory already.
    """
    spec = source.spec
    if spec.items and source.class_names:
        raise UserError(f"{source.label} has no classes; leave --class-names out.")
    rows = _ask_plugin(source, split) if rows is None else rows
    _check_rows(rows, source, split)
    rows = rows.with_format(None)  # no transform: a plugin's code would run at every row
    items, groups = None, tuple[str, ...]()
    if spec.items:
        rows, items = _read_items(rows, source)
        classes = items.names
    else:
        rows, classes = _read_images(rows, source)
        groups = tuple(name for name in spec.groups if name in rows.column_names)
    return Split(
        name=source.title,
        version=spec.version,
        split=str(rows.split or split or spec.split or "all"),
        named=classes,
        sample_ids=tuple(column_values(rows, "sample_id")),
        labels=items.answers if items else tuple(column_values(rows, "label")),
        rows=rows,
        items=items,
        group_columns=("group",) if "group" in rows.column_names else groups,
        border=spec.border,
    )


def missing_data(
    source: DataSource,
    split: str | None = None,
    why: str | None = None,  # the Hub is not asked; None: it may answer a run
) -> str | None:
    """Return why a run could not load the data, without fetching it; None: it could."""
    try:
        with offline(why or True):
            load_split(source, split)
    except AbsentError as error:
        if why is not None:
            return str(error)
        if (silence := hub_silence()) is not None:
            return missing_data(source, split, silence)
    except UserError as error:
        return str(error)
    except PluginError:  # perhaps a download of its own, which was refused
        pass
    return None


def load_classes(source: DataSource) -> ClassNames:
    """Return a dataset's classes (UserError), from its data only where the spec has none."""
    spec = source.spec
    if spec.items:
        raise UserError(f"{source.label} has no classes: every item has texts of its own.")
    if spec.classes is None:
        return load_split(source).named
    return name_classes(spec.classes, source.label, True, source.class_names)


def _read_images(rows: Any, source: DataSource) -> tuple[datasets.Dataset, ClassNames]:
    import datasets

    spec, where, file = source.spec, source.label, source.class_names
    _check_columns(rows, source)
    declared, feature = spec.classes, rows.features["label"]
    numbered = isinstance(feature, datasets.Value) and "int" in feature.dtype
    if declared is None and file is not None and numbered:
        declared = tuple(map(str, range(listed(file) or 0))) or None
    spellings, indices = read_labels(column_values(rows, "label"), feature, declared, where)
    rows, labels = drop_unlabelled(rows, indices, where, source.skip_unlabelled)
    classes = name_classes(spellings, where, spec.classes is not None, file)
    return checked_rows(rows, "image", where, source.root, labels=(labels, classes)), classes


def _read_items(rows: Any, source: DataSource) -> tuple[datasets.Dataset, ItemTable]:
    where = source.label
    column = image_column(rows.column_names, where)
    rows = as_stored(rows, column, where)
    ids = item_ids(rows, where)
    items = read_items(rows, ids, where)
    return checked_rows(rows, column, where, source.root, ids), items


def _ask_plugin(source: DataSource, split: str | None) -> Any:
    import datasets

    spec, data_dir = source.spec, source.data_dir
    split = split or spec.split
    if spec.splits and split is None:
        raise UserError(
            f"Dataset {spec.name!r} has several splits; name one with --split:"
            f" {', '.join(spec.splits)}."
        )
    if spec.splits and split not in spec.splits:
        raise UserError(
            f"Dataset {spec.name!r} has no split {quoted(split)}; it has: {', '.join(spec.splits)}."
        )
    check_data_dir(spec, data_dir)
    datasets.disable_progress_bars()  # they would stand between the run's own lines
    datasets.logging.set_verbosity_error()
    # Its retries; we say what is wrong.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    # Absolute, so that the files it names are found from anywhere.
    folder = str(Path(data_dir).absolute()) if data_dir else None
    parameters = spec.resolve_parameters(source.parameters)
    if spec.unverified and data_dir is None:
        warn_user(
            f"Dataset {spec.name!r} is declared from documents, and its authors could not load it."
            f" `bench check-data {spec.name}` reads it once and says what is wrong."
        )
    dataset = make(spec, spec, **parameters) if spec.source else make(spec, **parameters)
    with guard(spec.label, "load()"):
        return dataset.load(split=split, data_dir=folder)


def _check_rows(rows: Any, source: DataSource, split: str | None) -> None:
    import datasets

    columns = "'image' and 'label'"
    if source.spec.items:
        columns = "'image' or 'images', 'texts', and 'label' or 'pairing'"
    if not isinstance(rows, datasets.Dataset):
        raise PluginError(
            source.spec.label,
            f"load() returned a {type(rows).__name__}; expected a datasets.Dataset with the columns"
            f" {columns}",
        )
    if len(rows) == 0:
        split = split or source.spec.split
        of = "" if split is None else f" in split {split!r}"
        raise UserError(f"{source.label} holds no images{of}.")


def _check_columns(rows: Any, source: DataSource) -> None:
    import datasets

    for column in COLUMNS:
        check_column(column, rows.column_names, source.label)
    if not isinstance(rows.features["image"], datasets.Image):
        holds = f"its column 'image' holds {rows.features['image']}, not images"
        if source.spec.name == FOLDER:
            raise UserError(f"{source.label}: {holds}.")
        raise PluginError(source.spec.label, f"{holds}; it must be cast with datasets.Image()")


def slug(path: str) -> str:
    """Return the name of a folder or file as it stands in a run id."""
    real = Path(path).resolve()
    name = (real.stem if real.is_file() else real.name).lower()
    return "".join(c if c.isalnum() else "-" for c in name).strip("-") or FOLDER
