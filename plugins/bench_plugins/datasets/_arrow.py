"""Arrow tables of images: parquet files and datasets saved by `save_to_disk`, in a common layout.

The columns of images and labels are found, and converted to columns `image` and `label`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.features.features import generate_from_arrow_type

from bench.contracts.dataset import Listing
from bench.errors import UserError, quoted
from bench.inputs.items import check_classes
from bench.inputs.parsing import check_column, join_names, parse_json
from bench.inputs.rows import resolve_paths
from bench.machine.cache import cache_dir, cached_arrow, stamp
from bench.machine.files import open_regular, read_bytes, resolve_inside
from bench_plugins.datasets._listing import chosen_split, splits_of, subfolders

SAMPLE_ID = "sample_id"


@dataclass(frozen=True)
class NamedColumns:
    """Column names set by the user or a declaration, as parameters of a dataset."""

    image_column: str | None = None  # None for `image`, or the only column of images
    label_column: str | None = None
    """None for `label`, the only `ClassLabel`, or the only column of texts or numbers."""
    id_column: str | None = None  # column of sample ids; None for `sample_id` if there is one
    keep: tuple[str, ...] = ()  # further columns to keep, such as groups or boxes

    @property
    def others(self) -> tuple[str, ...]:
        """All names except those of the image and label columns."""
        return (*filter(None, [self.id_column]), *self.keep)

    @property
    def names(self) -> tuple[str, ...]:
        """All names that are set."""
        return (*filter(None, [self.image_column, self.label_column]), *self.others)


UNNAMED = NamedColumns()


@dataclass(frozen=True)
class ImageColumns:
    """The columns of the common layout: image, label, perhaps sample_id, and the kept ones."""

    sources: Mapping[str, str]  # column → name of the table's column with its values
    features: datasets.Features  # column → feature; same order as `sources`


def choose_columns(schema: pa.Schema, where: str, named: NamedColumns = UNNAMED) -> ImageColumns:
    """Choose the columns of image, label and id in an Arrow schema (UserError)."""
    check_classes(schema.names, where, named.label_column)
    for name in named.others:
        check_column(name, schema.names, where)
    types = {name: _plain(schema.field(name).type) for name in schema.names}
    features, unreadable = _features(schema)
    image, label = _choose_image_and_label(types, features, where, named)
    _check_kinds(types, image, label, features, where)
    if label in unreadable and pa.types.is_integer(types[label]):  # texts are names themselves
        raise UserError(
            f"{where}: the class names of the column {label!r} cannot be read: {unreadable[label]}."
        )
    sources = {"image": image, "label": label}
    common = {
        "image": datasets.Image(),
        "label": features.get(label) or datasets.Value(str(types[label])),
    }
    ids = named.id_column or SAMPLE_ID
    if ids in types:
        sources[SAMPLE_ID], common[SAMPLE_ID] = ids, datasets.Value("string")
    for name in named.keep:
        if sources.setdefault(name, name) != name:  # image, label or sample_id, from elsewhere
            raise UserError(
                f"{where}: the column {name!r} cannot be kept: the {name} is in {sources[name]!r}."
            )
        common.setdefault(name, features.get(name) or generate_from_arrow_type(types[name]))
    return ImageColumns(sources, datasets.Features(common))


def _choose_image_and_label(
    types: Mapping[str, pa.DataType], features: Mapping[str, Any], where: str, named: NamedColumns
) -> tuple[str, str]:
    """Return the columns of images and of labels, by name or as the only candidates (UserError)."""
    columns = [*types]
    images = [name for name in columns if _may_be_image(types[name])]
    image = choose_column(named.image_column, ("image",), columns, where, "image", images)
    taken = (image, SAMPLE_ID, *named.others)
    free = [name for name in columns if name not in taken and not name.startswith("__")]
    labels = [name for name in free if isinstance(features.get(name), datasets.ClassLabel)]
    labels = labels or [name for name in free if _may_be_label(types[name])]
    return image, choose_column(named.label_column, ("label",), columns, where, "label", labels)


def _check_kinds(
    types: Mapping[str, pa.DataType],
    image: str,
    label: str,
    features: Mapping[str, Any],
    where: str,
) -> None:
    """Refuse a column of images that holds none, and a column of labels with nested values."""
    if not (_may_be_image(types[image]) or pa.types.is_string(types[image])):
        raise UserError(
            f"{where}: the column {image!r} holds {types[image]}; expected images: a struct of"
            " bytes and path, bytes, or names of files. Name another with --image-column."
        )
    if pa.types.is_nested(types[label]) and label not in features:
        raise UserError(
            f"{where}: the column {label!r} holds {types[label]}; expected class names or whole"
            " numbers. Name another with --label-column."
        )


def choose_column(
    named: str | None,
    usual: Sequence[str],
    columns: Sequence[str],
    where: str,
    kind: str,
    candidates: Sequence[str] = (),
) -> str:
    """Return the named column, the first with a usual name, or the only candidate (UserError)."""
    if named is not None:
        check_column(named, columns, where)
        return named
    first = next((name for name in usual if name in columns), None)
    if first is not None or len(candidates) == 1:
        return first or candidates[0]
    advice = f"Name the right one with --{kind}-column."
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
        advice = "Separate columns by commas."
    raise UserError(
        f"{where} has no column {' or '.join(map(repr, usual))}; its columns:"
        f" {join_names(columns)}. {advice}"
    )


def _features(schema: pa.Schema) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the features that a schema states, by column, and why others cannot be read."""
    stated = (schema.metadata or {}).get(b"huggingface")
    if stated is None:
        return {}, {}
    try:
        columns = dict(json.loads(stated)["info"]["features"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        return {}, dict.fromkeys(schema.names, f"invalid `datasets` metadata ({error!r:.100})")
    features: dict[str, Any] = {}
    unreadable: dict[str, str] = {}
    # A renamed column of labels lacks its class names; it may be any that has no feature.
    gone = [name for name in columns if name not in schema.names]
    if gone and "ClassLabel" in str(columns[gone[0]]):
        problem = f"the metadata describes {quoted(gone[0])}, which is not a column"
        unreadable = dict.fromkeys(set(schema.names) - set(columns), problem)
    for name in {*columns} & {*schema.names}:
        kind = _plain(schema.field(name).type)
        try:  # each column alone
            feature = datasets.Features.from_dict({name: columns[name]})[name]
            if isinstance(feature, datasets.ClassLabel):
                if not all(isinstance(word, str) for word in feature.names):
                    raise ValueError(f"its names are {quoted(feature.names)}")
                if pa.types.is_integer(kind):
                    features[name] = feature
            elif datasets.Features({name: feature}).arrow_schema.field(name).type == kind:
                features[name] = feature
        except Exception as error:  # the metadata may contain anything
            unreadable[name] = " ".join(str(error).split())[:200]
    return features, unreadable


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values, without dictionary encoding or large offsets."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind):
        return pa.string()
    return pa.binary() if pa.types.is_large_binary(kind) else kind


def _may_be_label(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_integer(kind))


def _may_be_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool({"bytes", "path"} & {kind.field(i).name for i in range(kind.num_fields)})
    return bool(pa.types.is_binary(kind))


def convert(table: pa.Table, columns: ImageColumns, root: Path) -> pa.Table:
    """Return the columns of `columns.features`; UserError if the path of an image leaves `root`."""
    features = columns.features
    arrays = {}
    for name, source in columns.sources.items():
        column = table.column(source)
        if pa.types.is_dictionary(column.type) or column.type != _plain(column.type):
            column = column.cast(_plain(column.type))
        if name == "image":
            chunks = [features[name].cast_storage(chunk) for chunk in column.chunks]
            column = resolve_paths(
                pa.chunked_array(chunks, features[name].pa_type), root, str(root), links=True
            )
        if isinstance(features[name], datasets.ClassLabel):
            column = column.cast(pa.int64())
        if name == SAMPLE_ID:
            column = column.cast(pa.string())  # ids may be numbers
        arrays[name] = column
    return pa.table(arrays, metadata=features.arrow_schema.metadata)


def converted(
    kind: str,
    files: Sequence[Path],
    key: str,
    schema: pa.Schema,
    tables: Callable[[], Iterator[pa.Table]],
) -> Path:
    """Convert files to one cached Arrow file, and return its path.

    The cache is invalidated when `key`, or a file's size, inode or ctime changes. Outdated Arrow
    files of the same source are deleted. `tables` is called only if there is no cached result.
    """
    place = hashlib.sha256(f"{files[0].parent} {files[0].name}".encode()).hexdigest()[:16]
    state = [key, *(f"{path} {stamp(path)}" for path in files)]
    folder = cache_dir(kind, place)
    target = folder / f"{hashlib.sha256(repr(state).encode()).hexdigest()[:16]}.arrow"
    if not target.is_file():
        for old in folder.glob("[!.]*.arrow*"):  # not those that another process is writing
            old.unlink(missing_ok=True)
    return cached_arrow(target, schema, tables)


VERIFIED = {"page_checksum_verification": True}  # of pages that have a checksum
PARQUET_BATCH = 100  # rows per batch; the Hub writes its own files with as many


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Raise UserError with a short reason if Arrow data cannot be read."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"{what} cannot be read: {reason}") from None


def load_parquet(source: Path, split: str | None, named: NamedColumns = UNNAMED) -> Listing:
    """Return a split of a parquet file, or of a folder of them such as data/train-….parquet.

    Raises UserError, also if files differ in their columns or classes.
    """
    by_split = splits_of(source, ".parquet")
    chosen = chosen_split(split, by_split, str(source))
    root = source if source.is_dir() else source.parent
    files = [resolve_inside(root, str(path)) for path in by_split[chosen]]
    others = [path for name in by_split if name != chosen for path in by_split[name]]
    with reading(f"The parquet files in {source}"):
        columns = _common_columns(files, named)
        arrow = str(_converted(files, columns, root))
        table = datasets.Dataset.from_file(arrow).data.table

    def read(path: Path, label: str) -> pa.Table:
        with reading(str(path)), open_regular(resolve_inside(root, str(path))) as file:
            return pq.ParquetFile(file, **VERIFIED).read([label])

    labels = partial(labels_in, others, columns.sources["label"], read)
    return Listing(table, chosen, str(source), files=(arrow,), elsewhere=labels)


def _common_columns(files: Sequence[Path], named: NamedColumns) -> ImageColumns:
    """Return the columns of the files. They must agree, also in the order of the classes."""
    by_file: dict[Path, ImageColumns] = {}
    for path in files:
        with open_regular(path) as file:
            by_file[path] = choose_columns(pq.read_schema(file), str(path), named)
        columns, first = by_file[path], by_file[files[0]]
        if columns != first:
            raise UserError(
                f"{path} differs from {files[0].name} in its columns or in the order of its"
                f" classes: {quoted(columns.features['label'])} against"
                f" {quoted(first.features['label'])}."
            )
    return by_file[files[0]]


def _converted(files: Sequence[Path], columns: ImageColumns, root: Path) -> Path:
    schema, names = columns.features.arrow_schema, [*columns.sources.values()]

    def tables() -> Iterator[pa.Table]:
        for path in files:
            with open_regular(path) as file, pq.ParquetFile(file, **VERIFIED) as parquet:
                for batch in parquet.iter_batches(PARQUET_BATCH, columns=names):
                    batch.validate(full=True)  # finds texts that are not UTF-8
                    yield convert(pa.Table.from_batches([batch]), columns, root).cast(schema)

    return converted("parquet", files, f"{columns} {root} links", schema, tables)


STATE = "state.json"


def is_saved(folder: Path) -> bool:
    """Return whether `save_to_disk` wrote the folder, with one split or several."""
    return (folder / STATE).is_file() or (folder / "dataset_dict.json").is_file()


def load_saved(folder: Path, split: str | None, named: NamedColumns) -> Listing:
    """Return a split of a saved dataset, without reading outside its folder (UserError)."""
    parts = {path.name: path for path in subfolders(folder) if (path / STATE).is_file()}
    if (folder / STATE).is_file():
        parts = {"all": folder}
    chosen = chosen_split(split, parts, f"The saved dataset {folder}")
    place = parts.pop(chosen)

    def read(part: Path, label: str = "") -> pa.Table:
        with reading(f"The saved dataset {part}"):
            files = [resolve_inside(folder, str(part / name)) for name in _files(folder, part)]
            for file in files:
                open_regular(file).close()  # refuses pipes and devices before mapping
            maps = (pa.memory_map(str(file)) for file in files)
            return pa.concat_tables(pa.ipc.open_stream(file).read_all() for file in maps)

    table = read(place)
    columns = choose_columns(table.schema, str(place), named)
    labels = partial(labels_in, parts.values(), columns.sources["label"], read)
    with reading(f"The saved dataset {place}"):
        return Listing(convert(table, columns, folder), chosen, str(folder), elsewhere=labels)


def labels_in(places: Iterable[Any], label: str, read: Callable[..., pa.Table]) -> Iterator[Any]:
    """Yield the different labels of each place that has them."""
    for place in places:
        table = read(place, label)
        if label in table.column_names:
            yield from table[label].unique().to_pylist()


def _files(folder: Path, place: Path) -> Sequence[str]:
    state: Any = parse_json(read_bytes(resolve_inside(folder, str(place / STATE))))
    entries = state.get("_data_files") if isinstance(state, Mapping) else None
    names = [e.get("filename") if isinstance(e, Mapping) else None for e in entries or ()]
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{STATE} names no files")
    return [str(name) for name in names]
