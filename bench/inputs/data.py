"""Loading a split from a dataset plugin and validating it before scoring."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contracts.specs import DatasetSpec
from bench.discovery.guard import guard
from bench.discovery.targets import make
from bench.errors import AbsentError, PluginError, UserError, quoted, warn_user
from bench.inputs.class_names import ClassNames, count_classes, name_classes
from bench.inputs.items import ItemTable, make_item_ids, read_items
from bench.inputs.labels import read_labels
from bench.inputs.parsing import check_column, expand_pattern
from bench.inputs.rows import (
    check_rows,
    disable_decoding,
    drop_unlabelled,
    find_image_column,
    format_group,
    read_column,
)
from bench.inputs.split import Split
from bench.machine.files import is_utf8, path_exists
from bench.machine.offline import hub_silence, offline

if TYPE_CHECKING:
    import datasets

COLUMNS = ("image", "label")
FOLDER = "folder"  # registered name of the dataset and of the backbone that a path selects


@dataclass(frozen=True)
class DataSource:
    """A dataset and the options for reading it."""

    spec: DatasetSpec
    data_dir: str | None = None  # local copy, or the path that was given as the dataset
    parameters: Mapping[str, Any] = field(default_factory=dict)  # parameters of its spec
    class_names: Path | None = None  # file with the class names in words
    skip_unlabelled: bool = False  # drop images without a label instead of raising an error
    name: str | None = None  # name in the manifest: as the user wrote it, or `folder`

    @property
    def title(self) -> str:
        """Name in run ids: that of the folder, the dataset, or the source up to a colon."""
        if self.spec.scheme:
            return slugify(str(self.parameters["source"]).partition(":")[0].replace("/", "-"))
        is_folder = self.spec.name == FOLDER and self.data_dir is not None
        return slugify(str(self.data_dir)) if is_folder else self.spec.name

    @property
    def label(self) -> str:
        """Name in messages."""
        spec = self.spec
        return f"The data in {self.data_dir}" if spec.name == FOLDER else f"Dataset {spec.name!r}"

    @property
    def root(self) -> Path | None:
        """Folder that contains the files of the data; None if only the plugin knows it."""
        place = Path(self.data_dir or self.spec.source or "")
        if not (self.data_dir or place.is_absolute()):
            return None
        return place.parent if place.is_file() else place


def check_data_dir(spec: DatasetSpec, data_dir: str | None) -> None:
    """Raise UserError if a data folder does not exist or the dataset does not read folders."""
    if data_dir is None:
        return
    named = is_utf8(data_dir) and "\0" not in data_dir
    if named and "{" in data_dir and not path_exists(data_dir):
        expand_pattern(data_dir)
    elif not named or not path_exists(data_dir):
        raise UserError(f"The data folder {quoted(data_dir)} does not exist.")
    if not spec.takes_data_dir:
        raise UserError(f"Dataset {spec.name!r} reads no folder; leave --data-dir out.")


def load_split(
    source: DataSource, split: str | None = None, rows: datasets.Dataset | None = None
) -> Split:
    """Load one split and validate columns, labels, classes, ids and file paths.

    If `rows` are already in memory, the plugin is not called. Raises UserError if the data cannot
    be found, read or scored, and PluginError if the plugin failed or did not return rows.
    """
    spec = source.spec
    if spec.items and source.class_names:
        raise UserError(f"{source.label} has no classes; leave --class-names out.")
    rows = _call_plugin(source, split) if rows is None else rows
    _check_rows(rows, source, split)
    rows = rows.with_format(None)  # drops transforms, which would run a plugin's code per row
    items = None
    if spec.items:
        rows, items = _read_items(rows, source)
        classes = items.names
    else:
        rows, classes = _read_images(rows, source)
    return Split(
        name=source.title,
        version=spec.version,
        split=str(rows.split or split or spec.split or "all"),
        class_names=classes,
        sample_ids=tuple(read_column(rows, "sample_id")),
        labels=items.answers if items else tuple(read_column(rows, "label")),
        rows=rows,
        items=items,
        border=spec.border,
    )


def explain_missing_data(
    source: DataSource,
    split: str | None = None,
    why: str | None = None,
) -> str | None:
    """Return why a run could not load the data, or None if it could or this is not known.

    Nothing is downloaded. `why` says why the Hub cannot be asked, if that is known.
    """
    try:
        with offline(why or True):
            load_split(source, split)
    except AbsentError as error:
        if why is not None:
            return str(error)
        if (silence := hub_silence()) is not None:
            return explain_missing_data(source, split, silence)
    except UserError as error:
        return str(error)
    except PluginError:  # perhaps because its own download was blocked
        pass
    return None


def load_classes(source: DataSource) -> ClassNames:
    """Return a dataset's classes, reading the data only if the spec does not declare them.

    Raises UserError if the dataset has no classes, or they cannot be read.
    """
    spec = source.spec
    if spec.items:
        raise UserError(f"{source.label} has no classes: every item has texts of its own.")
    if spec.classes is None:
        return load_split(source).class_names
    return name_classes(spec.classes, source.label, True, source.class_names)


def _read_images(rows: Any, source: DataSource) -> tuple[datasets.Dataset, ClassNames]:
    import datasets

    spec, where, file = source.spec, source.label, source.class_names
    _check_columns(rows, source)
    declared, feature = spec.classes, rows.features["label"]
    numbered = isinstance(feature, datasets.Value) and "int" in feature.dtype
    column = read_column(rows, "label")
    if declared is None and file is not None and numbered:
        count = count_classes(file, set(map(str, column)))
        declared = tuple(map(str, range(count))) if count else None
    spellings, indices = read_labels(column, feature, declared, where)
    rows, labels = drop_unlabelled(rows, indices, where, source.skip_unlabelled)
    classes = name_classes(spellings, where, spec.classes is not None, file)
    columns: dict[str, tuple[Sequence[Any], Any]] = {
        "label": (labels, datasets.ClassLabel(names=list(classes.names)))
    }
    names = [name for name in spec.groups if name in rows.column_names]
    if names and "group" not in rows.column_names:
        values = zip(*(read_column(rows, name) for name in names), strict=True)
        groups = [format_group(names, row) for row in values]
        columns["group"] = (groups, datasets.Value("string"))
    return check_rows(rows, "image", where, source.root, columns), classes


def _read_items(rows: Any, source: DataSource) -> tuple[datasets.Dataset, ItemTable]:
    import datasets

    where = source.label
    column = find_image_column(rows.column_names, where)
    rows = disable_decoding(rows, column, where)
    ids = make_item_ids(rows, where)
    items = read_items(rows, ids, where)
    columns = {"sample_id": (ids, datasets.Value("string"))}
    return check_rows(rows, column, where, source.root, columns), items


def _call_plugin(source: DataSource, split: str | None) -> Any:
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
    datasets.disable_progress_bars()  # they would interrupt the run's own output
    datasets.logging.set_verbosity_error()
    # It logs every retry; the final error message is ours.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    # Absolute, so that the paths in the rows do not depend on the working directory.
    folder = str(Path(data_dir).absolute()) if data_dir else None
    parameters = spec.resolve_parameters(source.parameters)
    if spec.unverified and data_dir is None:
        warn_user(
            f"Dataset {spec.name!r} was declared from its documentation and never loaded."
            f" `bench check-data {spec.name}` reads it once and reports problems."
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


def slugify(path: str) -> str:
    """Return the name of a folder or file in the form used in run ids."""
    real = Path(path).resolve()
    name = (real.stem if real.is_file() else real.name).lower()
    return "".join(c if c.isalnum() else "-" for c in name).strip("-") or FOLDER
