"""Declared datasets: one that says where its data lies, and is read by the dataset of that kind.

The source's classes are numbered as the declaration lists them, by name and never by position, so
that a copy that orders them in another way gives the same labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contracts.parameters import Parameters
from bench.contracts.specs import DatasetSpec
from bench.discovery.guard import guard
from bench.discovery.loading import load_plugins
from bench.discovery.places import DOWNLOAD
from bench.discovery.registry import Registry
from bench.discovery.targets import make
from bench.errors import UserError, did_you_mean, quoted, some_of
from bench.inputs.class_names import letters
from bench.inputs.data import FOLDER
from bench.inputs.downloads import load_items, read_list, read_table
from bench.inputs.replaced import crop
from bench.inputs.rows import column_values, rows_of
from bench.inputs.survey import files_behind
from bench.machine.files import inside, path_exists

if TYPE_CHECKING:
    import datasets

GROUP_COLUMN = "group"  # the column that the accuracy of the worst group is made from
OTHER = -2  # a class that is not declared; -1 is an image without a label


class Declared:
    """The reader of a declared dataset; the user's columns go before the declared ones."""

    def __init__(self, spec: DatasetSpec, **parameters: Any) -> None:
        self.spec = spec
        declared = {f"{kind}_column": name for kind, name in spec.columns.items()}
        own = {name: value for name, value in parameters.items() if value is not None}
        self.parameters = {**declared, **own}

    def load(self, split: str | None, data_dir: str | None) -> Any:
        """Return a split of the source or the local copy, with the declared classes (UserError)."""
        spec = self.spec
        if data_dir is None and spec.source == DOWNLOAD:
            raise UserError(
                f"Dataset {spec.name!r} is read from its original download: fetch it from"
                f" {spec.homepage or 'its homepage'} and name its folder with --data-dir."
            )
        if spec.items:
            return with_split_name(load_items(spec, data_dir, self._table(split, data_dir)), split)
        rows = self._read(split, data_dir)
        rows = with_declared_labels(rows, spec, data_dir or str(spec.source))
        if spec.box:
            rows = crop(rows, spec.box, f"Dataset {spec.name!r}")
        if spec.groups and GROUP_COLUMN not in rows.column_names:
            rows = with_groups(rows, spec.groups)
        return with_split_name(rows, split)

    def _table(self, split: str | None, data_dir: str | None) -> Any:
        """Return the rows of a source of items; None: they are in JSON files of the download."""
        spec = self.spec
        if data_dir is not None and {"file", "files"} & set(spec.item):
            return None
        reader, source = find_source(str(spec.source))
        its_split = None if split is None else spec.split_names.get(split, split)
        return _ask(reader, {"source": source}, its_split, data_dir, "load_table")

    def _read(self, split: str | None, data_dir: str | None) -> Any:
        spec, layout = self.spec, self.spec.layout
        its_split = None if split is None else spec.split_names.get(split, split)
        if data_dir is None:
            reader, source = find_source(str(spec.source))
            parameters = self._known(reader)
            if reader.scheme:
                return _ask(reader, {**parameters, "source": source}, its_split, None)
            if not path_exists(source) and "{" not in source:
                raise UserError(
                    f"Dataset {spec.name!r}: its source {source} is not there. --data-dir names"
                    " another copy."
                )
            return _ask(reader, parameters, its_split, source)
        folder = Path(data_dir)
        if split in layout.get("lists", {}) and _has(folder, layout["lists"][split]):
            return read_list(folder, str(split), layout, spec)
        if "table" in layout and _has(folder, layout["table"]):
            return read_table(folder, str(split), layout, spec)
        if "reader" in layout and _has(folder, layout["marker"]):
            reader, source = find_source(str(layout["reader"]))
            its_split = None if split is None else layout.get("splits", {}).get(split, split)
            return _ask(reader, {"source": source}, its_split, data_dir)
        root = str(layout.get("root", ""))
        reader = load_plugins().datasets.get(FOLDER)
        place = folder / root if _has(folder, root) and (folder / root).is_dir() else folder
        chosen = self._split_of(place, split, its_split)
        try:
            return _ask(reader, self._known(reader), chosen, str(place))
        except UserError:
            if chosen is not None:  # perhaps it is another dataset, as its classes say
                with_declared_labels(
                    _ask(reader, self._known(reader), None, str(place)), spec, data_dir
                )
            raise

    def _split_of(self, place: Path, split: str | None, its_split: str | None) -> str | None:
        """Return the split to ask a local copy for: its own name, ours, or all that is there."""
        if split is None:
            return None
        folders = [folder for folder in (place, place / "data") if folder.is_dir()]
        there = [path.name for folder in folders for path in folder.iterdir()]
        for name in filter(None, (its_split, split)):
            if any(other.startswith(name) for other in there):
                return name
        return split if len(self.spec.splits) > 1 else None

    def _known(self, reader: DatasetSpec) -> Parameters:
        box = [self.spec.box] if self.spec.box else []
        kept = dict.fromkeys((*self.parameters.get("keep", ()), *self.spec.groups, *box))
        wanted = {**self.parameters, "keep": tuple(kept)}
        return {name: value for name, value in wanted.items() if name in reader.parameters}


def find_source(source: str) -> tuple[DatasetSpec, str]:
    """Return the dataset that reads a source, and what it is given: `hf:x` → that of `hf`, `x`."""
    registry = load_plugins().datasets
    if (spec := dataset_of_scheme(source, registry)) is not None:
        return spec, source.partition(":")[2]
    return registry.get(FOLDER), source


def dataset_of_scheme(source: str, registry: Registry[DatasetSpec]) -> DatasetSpec | None:
    """Return the dataset whose scheme a text begins with, such as `hf:`; None: it has no scheme.

    A UserError for a scheme that nothing reads, unless the text is a path that exists.
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


def _has(folder: Path, name: str) -> bool:
    """Tell whether a file or folder is there; one that lies outside is refused."""
    return inside(folder, name).exists()


def _ask(
    spec: DatasetSpec,
    parameters: Parameters,
    split: str | None,
    place: str | None,
    method: str = "load",
) -> Any:
    dataset = make(spec, **spec.resolve_parameters(parameters))
    with guard(spec.label, f"{method}()"):
        return getattr(dataset, method)(split=split, data_dir=place)


def with_split_name(rows: datasets.Dataset, split: str | None) -> datasets.Dataset:
    """Return the rows as those of a split that the declaration names."""
    files = rows.info.download_checksums or ()
    return rows_of(rows.data, rows.features, split or rows.split or "all", files, rows._indices)


def with_groups(rows: datasets.Dataset, columns: Sequence[str]) -> datasets.Dataset:
    """Return the rows with a column of groups, such as `place water, sex f`."""
    values = [column_values(rows, name) for name in columns]
    groups = [
        ", ".join(f"{name} {value}" for name, value in zip(columns, row, strict=True))
        for row in zip(*values, strict=True)
    ]
    return rows.add_column(GROUP_COLUMN, groups)


def with_declared_labels(rows: datasets.Dataset, spec: DatasetSpec, where: str) -> datasets.Dataset:
    """Return the rows with indices into the declared classes; a UserError for another class."""
    import datasets
    import pyarrow as pa

    feature = rows.features["label"]
    if spec.classes is None:
        return rows
    if isinstance(feature, datasets.ClassLabel):
        index: Sequence[Any] = indices_of(feature.names, spec, where)
        values = [None if v is None or v < 0 else index[v] for v in column_values(rows, "label")]
    elif feature == datasets.Value("string"):
        labels = column_values(rows, "label")
        names = sorted({v for v in labels if v is not None and v.strip()})
        of = dict(zip(names, indices_of(names, spec, where), strict=True))
        values = [of.get(v) for v in labels]
    else:
        return rows  # numbers are indices already; they are checked with the labels
    plain = rows.flatten_indices() if rows._indices is not None else rows
    features = plain.features.copy()
    features["label"] = datasets.ClassLabel(names=list(spec.classes))
    table = plain.data.table
    chosen = [row for row, value in enumerate(values) if value != OTHER]
    if not chosen:
        raise UserError(f"{where}: no image is of a class of dataset {spec.name!r}.")
    table = table.set_column(
        table.column_names.index("label"), "label", pa.array(values, pa.int64())
    )
    made = rows_of(table, features, rows.split, files_behind(plain, plain.data.table))
    return made if len(chosen) == len(values) else made.select(chosen)


def indices_of(names: Sequence[str], spec: DatasetSpec, where: str) -> list[int]:
    """Return which declared class each name of the data is; a UserError for one that is none.

    A name is known as the declaration spells it in `found` or `classes`, or by its letters alone.
    Bare numbers are indices, from 0 or from 1 on. Where other classes are left out, one that is
    not declared is -2.
    """
    classes = spec.classes or ()
    position_of: dict[str, int] = {}
    spelt = [*enumerate(spec.found), *enumerate(classes)]
    for position, name in spelt:
        position_of.setdefault(name, position)
    for position, name in spelt:
        position_of.setdefault(letters(name), position)
    if all(name.isdecimal() for name in names) and not set(names) <= position_of.keys():
        return _from_numbers([int(name) for name in names], len(classes), where)
    positions = [position_of.get(name, position_of.get(letters(name), OTHER)) for name in names]
    strange = [name for name, position in zip(names, positions, strict=True) if position == OTHER]
    if spec.leave_out_others:
        return positions
    if strange == list(names):
        raise UserError(
            f"{where} does not hold dataset {spec.name!r}, which has {len(classes)} classes:"
            f" {some_of(map(quoted, classes))}. Those here are others:"
            f" {some_of(map(quoted, strange))}."
        )
    if strange:
        more = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
        raise UserError(
            f"{where}: the class {quoted(strange[0])}{more} is not one of the {len(classes)}"
            f" classes of dataset {spec.name!r}.{did_you_mean(strange[0], [*spec.found, *classes])}"
        )
    return positions


def _from_numbers(numbers: Sequence[int], n_classes: int, where: str) -> list[int]:
    if 0 in numbers and max(numbers) < n_classes:
        return list(numbers)
    if n_classes in numbers and min(numbers) > 0 and max(numbers) == n_classes:
        return [number - 1 for number in numbers]
    raise UserError(
        f"{where}: the classes are the numbers {min(numbers)} to {max(numbers)}, which do not say"
        f" which of the {n_classes} declared classes they are."
    )
