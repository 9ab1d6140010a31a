"""Datasets that are declared by their source and loaded by the reader for that kind of source.

Class names at the source are mapped to the declared classes by name and never by position, so a
copy with another order of classes gets the same labels. Numeric labels without names are indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contracts.parameters import Parameters
from bench.contracts.specs import DatasetSpec
from bench.discovery.declaration_checks import DOWNLOAD
from bench.discovery.guard import guard
from bench.discovery.loading import load_plugins
from bench.discovery.registry import Registry
from bench.discovery.targets import make
from bench.errors import UserError, did_you_mean, quoted, some_of
from bench.inputs.class_names import keep_alphanumeric
from bench.inputs.data import FOLDER
from bench.inputs.downloads import load_items, read_list, read_table
from bench.inputs.replaced import crop_to_column
from bench.inputs.rows import make_dataset, read_column
from bench.inputs.survey import find_source_files
from bench.machine.files import path_exists, resolve_inside

if TYPE_CHECKING:
    import datasets

OTHER = -2  # index of an undeclared class; -1 means no label


class Declared:
    """Reader of a declared dataset. Columns named by the user replace declared ones."""

    def __init__(self, spec: DatasetSpec, **parameters: Any) -> None:
        self.spec = spec
        declared = {f"{kind}_column": name for kind, name in spec.columns.items()}
        named = {name: value for name, value in parameters.items() if value is not None}
        self.parameters = {**declared, **named}

    def load(self, split: str | None, data_dir: str | None) -> Any:
        """Return a split of the source, or of a local copy, with the declared classes.

        Raises UserError if the data is missing, or does not match the declaration.
        """
        spec = self.spec
        if data_dir is None and spec.source == DOWNLOAD:
            raise UserError(
                f"Dataset {spec.name!r} is read from its original download: download it from"
                f" {spec.homepage or 'its homepage'} and name its folder with --data-dir."
            )
        if spec.items:
            return set_split_name(load_items(spec, data_dir, self._table(split, data_dir)), split)
        rows = self._read(split, data_dir)
        rows = map_labels(rows, spec, data_dir or str(spec.source))
        if spec.box:
            rows = crop_to_column(rows, spec.box, f"Dataset {spec.name!r}")
        return set_split_name(rows, split)

    def _table(self, split: str | None, data_dir: str | None) -> Any:
        """Return rows of items from the source, or None if a local copy is read from JSON files."""
        spec = self.spec
        if data_dir is not None and {"file", "files"} & set(spec.item):
            return None
        reader, source = find_source(str(spec.source))
        source_split = None if split is None else spec.split_names.get(split, split)
        return _call_reader(reader, {"source": source}, source_split, data_dir, "load_table")

    def _read(self, split: str | None, data_dir: str | None) -> Any:
        spec, layout = self.spec, self.spec.layout
        source_split = None if split is None else spec.split_names.get(split, split)
        if data_dir is None:
            reader, source = find_source(str(spec.source))
            parameters = self._parameters_for(reader)
            if reader.scheme:
                return _call_reader(reader, {**parameters, "source": source}, source_split, None)
            if not path_exists(source) and "{" not in source:
                raise UserError(
                    f"Dataset {spec.name!r}: its source {source} does not exist. Name another copy"
                    " with --data-dir."
                )
            return _call_reader(reader, parameters, source_split, source)
        folder = Path(data_dir)
        if split in layout.get("lists", {}) and _has_file(folder, layout["lists"][split]):
            return read_list(folder, str(split), spec)
        if "table" in layout and _has_file(folder, layout["table"]):
            return read_table(folder, str(split), spec)
        if "reader" in layout and _has_file(folder, layout["marker"]):
            reader, source = find_source(str(layout["reader"]))
            source_split = None if split is None else layout.get("splits", {}).get(split, split)
            return _call_reader(reader, {"source": source}, source_split, data_dir)
        root = str(layout.get("root", ""))
        reader = load_plugins().datasets.get(FOLDER)
        place = folder / root if _has_file(folder, root) and (folder / root).is_dir() else folder
        chosen = self._split_of(place, split, source_split)
        try:
            return _call_reader(reader, self._parameters_for(reader), chosen, str(place))
        except UserError:
            if chosen is not None:  # another dataset? Then its classes make a better message
                map_labels(
                    _call_reader(reader, self._parameters_for(reader), None, str(place)),
                    spec,
                    data_dir,
                )
            raise

    def _split_of(self, place: Path, split: str | None, source_split: str | None) -> str | None:
        """Return the split to request from a copy: its own name, ours, or None for all images."""
        if split is None:
            return None
        folders = [folder for folder in (place, place / "data") if folder.is_dir()]
        names = [path.name for folder in folders for path in folder.iterdir()]
        for name in filter(None, (source_split, split)):
            if any(other.startswith(name) for other in names):
                return name
        return split if len(self.spec.splits) > 1 else None

    def _parameters_for(self, reader: DatasetSpec) -> Parameters:
        box = [self.spec.box] if self.spec.box else []
        columns = dict.fromkeys((*self.parameters.get("keep", ()), *self.spec.groups, *box))
        parameters = {**self.parameters, "keep": tuple(columns)}
        return {name: value for name, value in parameters.items() if name in reader.parameters}


def find_source(source: str) -> tuple[DatasetSpec, str]:
    """Return the dataset that reads a source, and the source without its scheme.

    For `hf:x` they are the dataset `hf` and `x`. A path is read by the dataset `folder`.
    """
    registry = load_plugins().datasets
    if (spec := find_scheme(source, registry)) is not None:
        return spec, source.partition(":")[2]
    return registry.get(FOLDER), source


def find_scheme(source: str, registry: Registry[DatasetSpec]) -> DatasetSpec | None:
    """Return the dataset whose scheme, such as `hf:`, a text begins with; None without a scheme.

    Raises UserError if no dataset has this scheme, and the text is not an existing path.
    """
    scheme, colon, _ = source.partition(":")
    if colon and scheme in registry and registry.get(scheme).scheme:
        return registry.get(scheme)
    word = scheme.replace("-", "").replace("_", "")
    if colon and len(word) > 1 and word.isalnum() and not path_exists(source):
        schemes = [spec.name for spec in registry if spec.scheme]
        raise UserError(
            f"Nothing reads {scheme + ':'!r}.{did_you_mean(scheme, schemes)} The schemes:"
            f" {', '.join(f'{name}:' for name in schemes)}."
        )
    return None


def _has_file(folder: Path, name: str) -> bool:
    """Return whether a file or folder exists; raise an error if it lies outside `folder`."""
    return resolve_inside(folder, name).exists()


def _call_reader(
    spec: DatasetSpec,
    parameters: Parameters,
    split: str | None,
    place: str | None,
    method: str = "load",
) -> Any:
    dataset = make(spec, **spec.resolve_parameters(parameters))
    with guard(spec.label, f"{method}()"):
        return getattr(dataset, method)(split=split, data_dir=place)


def set_split_name(rows: datasets.Dataset, split: str | None) -> datasets.Dataset:
    """Return the rows under the name that the declaration gives to their split."""
    files = rows.info.download_checksums or ()
    return make_dataset(
        rows.data, rows.features, split or rows.split or "all", files, rows._indices
    )


def map_labels(rows: datasets.Dataset, spec: DatasetSpec, where: str) -> datasets.Dataset:
    """Return the rows with labels that are indices into the declared classes.

    Rows are unchanged if no classes are declared or labels are plain numbers. With
    `leave_out_others`, rows of undeclared classes are dropped. Raises UserError if the data has
    another class, or no image is left.
    """
    import datasets
    import pyarrow as pa

    feature = rows.features["label"]
    if spec.classes is None:
        return rows
    if isinstance(feature, datasets.ClassLabel):
        index: Sequence[Any] = find_indices(feature.names, spec, where)
        values = [None if v is None or v < 0 else index[v] for v in read_column(rows, "label")]
    elif feature == datasets.Value("string"):
        labels = read_column(rows, "label")
        names = sorted({v for v in labels if v is not None and v.strip()})
        of = dict(zip(names, find_indices(names, spec, where), strict=True))
        values = [of.get(v) for v in labels]
    else:
        return rows  # numbers are indices already, and are checked with the labels
    plain = rows.flatten_indices() if rows._indices is not None else rows
    features = plain.features.copy()
    features["label"] = datasets.ClassLabel(names=list(spec.classes))
    table = plain.data.table
    chosen = [row for row, value in enumerate(values) if value != OTHER]
    if not chosen:
        raise UserError(f"{where}: no image belongs to a class of dataset {spec.name!r}.")
    table = table.set_column(
        table.column_names.index("label"), "label", pa.array(values, pa.int64())
    )
    labelled = make_dataset(table, features, rows.split, find_source_files(plain, plain.data.table))
    return labelled if len(chosen) == len(values) else labelled.select(chosen)


def find_indices(names: Sequence[str], spec: DatasetSpec, where: str) -> list[int]:
    """Return the index of the declared class for each class name of the data.

    Names are compared with `found` and `classes` of the declaration, exactly or by letters and
    digits alone. If all names are numbers, and not all of them are declared names, they are indices
    from 0 or 1. With `leave_out_others`, the index of an undeclared class is `OTHER`; otherwise
    UserError is raised.
    """
    classes = spec.classes or ()
    position_of: dict[str, int] = {}
    spelt = [*enumerate(spec.found), *enumerate(classes)]
    for position, name in spelt:
        position_of.setdefault(name, position)
    for position, name in spelt:
        position_of.setdefault(keep_alphanumeric(name), position)
    if all(name.isdecimal() for name in names) and not set(names) <= position_of.keys():
        return _shift_numbers([int(name) for name in names], len(classes), where)
    positions = [
        position_of.get(name, position_of.get(keep_alphanumeric(name), OTHER)) for name in names
    ]
    others = [name for name, position in zip(names, positions, strict=True) if position == OTHER]
    if spec.leave_out_others:
        return positions
    if others == list(names):
        raise UserError(
            f"{where} does not hold dataset {spec.name!r}, which has {len(classes)} classes:"
            f" {some_of(map(quoted, classes))}. None of its own classes is one of them:"
            f" {some_of(map(quoted, others))}."
        )
    if others:
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        raise UserError(
            f"{where}: the class {quoted(others[0])}{more} is not one of the {len(classes)}"
            f" classes of dataset {spec.name!r}.{did_you_mean(others[0], [*spec.found, *classes])}"
        )
    return positions


def _shift_numbers(numbers: Sequence[int], n_classes: int, where: str) -> list[int]:
    if 0 in numbers and max(numbers) < n_classes:
        return list(numbers)
    if n_classes in numbers and min(numbers) > 0 and max(numbers) == n_classes:
        return [number - 1 for number in numbers]
    raise UserError(
        f"{where}: the classes are the numbers {min(numbers)} to {max(numbers)}; expected 0 to"
        f" {n_classes - 1} or 1 to {n_classes}, for the {n_classes} declared classes."
    )
