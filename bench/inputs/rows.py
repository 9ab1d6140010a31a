"""The table of a split: made of the rows that a reader lists, and checked."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.contracts.dataset import Listing, Row, Rows
from bench.contracts.specs import DatasetSpec
from bench.errors import UserError, quoted, some_of, warn_user
from bench.inputs.survey import find_source_files, survey
from bench.machine.files import is_utf8, resolve_inside
from bench.machine.libraries import datasets, pa
from bench.machine.libraries.private_datasets import selected_rows
from bench.machine.stages import counted

LABEL_DIGITS = 18  # maximum of a numeric label; more may not fit into 64 bits
MAX_ID_LENGTH = 4096  # characters; the longest path possible
UNLABELLED = -1  # how `datasets` encodes a missing label


def drop_unlabelled(
    rows: Rows, indices: Sequence[int | None], where: str, skip: bool
) -> tuple[Rows, list[int]]:
    """Drop rows without a label, with a warning (UserError unless `skip`, or if all lack one)."""
    chosen = [row for row, index in enumerate(indices) if index is not None]
    missing = len(indices) - len(chosen)
    if not chosen:
        raise UserError(
            f"{where}: none of the {missing} images has a label (missing or -1). --label-column"
            " names another column, or key of a tar's json files."
        )
    if missing and not skip:
        raise UserError(
            f"{where}: {missing} of {len(indices)} images have no label (missing or -1), such as"
            f" image {indices.index(None) + 1}. Use --skip-unlabelled to leave them out."
        )
    if missing:
        warn_user(f"{where}: {missing} of {len(indices)} images have no label and are left out.")
        rows = rows.select(chosen)
    return rows, [index for index in indices if index is not None]


def check_rows(
    rows: Rows,
    column: str,
    where: str,
    root: Path | None,
    replaced: Mapping[str, tuple[Sequence[Any], Any]],
    split: str,
) -> Rows:
    """Return the rows of a split with valid sample ids and absolute paths of image files.

    All files must be in `root`; it is None if the rows name files absolutely. `replaced` has values
    and feature of columns to add or replace. Without `sample_id`, ids are those of the rows or
    hashes of images. Raises UserError if an id is invalid or repeated, or a file is elsewhere.
    """
    table, places = find_stored_rows(rows)
    files = find_source_files(rows, table)
    images = resolve_paths(table.column(column), root, where)
    ids: Sequence[Any]
    if "sample_id" in replaced:
        ids = replaced["sample_id"][0]
    elif "sample_id" in rows.column_names:
        ids = read_column(rows, "sample_id")
    else:
        surveyed = survey(images, files)
        ids = make_unique(surveyed.digest(row)[:16] for row in places)
    replaced = {**replaced, "sample_id": (check_ids(ids, where), datasets.Value("string"))}
    columns = {**{name: table.column(name) for name in table.column_names}, column: images}
    features = {name: rows.features[name] for name in table.column_names}
    if isinstance(features[column], datasets.Image):
        features[column] = datasets.Image(decode=False)
    for name, (values, feature) in replaced.items():
        value_of = dict(zip(places, values, strict=True))
        spread = [value_of.get(place) for place in range(len(table))]
        columns[name], features[name] = pa.array(spread, feature.pa_type), feature
    dataset = make_dataset(pa.table(columns), datasets.Features(features), split, files)
    return dataset if places == range(len(table)) else dataset.select(places)


def make_dataset(
    table: Any, features: Any, split: Any = None, files: Iterable[object] = ()
) -> Rows:
    """Return a dataset of an Arrow table's rows, as `datasets` stores it.

    `files` determine the table completely; there are none if it has other content. The fingerprint
    is random. The library's own would hash the table, which copies all images in memory: for
    200,000 small ones that took seconds and 500 MB.
    """
    behind: dict[str, dict[str, str]] = {str(file): {} for file in files}
    return datasets.Dataset(
        table.replace_schema_metadata(features.arrow_schema.metadata),
        info=datasets.DatasetInfo(features=features, download_checksums=behind or None),
        split=None if split is None else datasets.NamedSplit(str(split)),
        fingerprint=datasets.fingerprint.generate_random_fingerprint(),
    )


def as_dataset(listing: Listing) -> Rows:
    """Return the rows of a listing as a dataset; its labels are numbers if it has classes.

    Raises UserError if a label is none of its classes, or a number exceeds 64 bits.
    """
    rows = listing.rows
    if isinstance(rows, list):
        table = tabulate(rows) if rows else pa.table({})
        places = [row.at for row in rows]
    else:
        table, places = rows, [listing.where] * len(rows)
    features = datasets.Features.from_arrow_schema(table.schema)
    if features.get("label") == datasets.Value("string"):
        numbers, classes = _numbered(listing, table["label"].to_pylist(), places)
        if numbers is not None:
            named = datasets.ClassLabel(names=[*classes]) if classes else datasets.Value("int64")
            features["label"] = named
            place = table.column_names.index("label")
            table = table.set_column(place, "label", pa.array(numbers, pa.int64()))
    return make_dataset(table, features, listing.split, listing.files)


def _numbered(
    listing: Listing, labels: Sequence[Any], places: Sequence[str]
) -> tuple[Sequence[int | None] | None, Sequence[str] | None]:
    """Return the labels as numbers, None if they stay names, and the class names, None if unknown.

    Labels that are texts of whole numbers are these numbers; others are the places of their names
    among the classes, to which the other splits contribute.
    """
    if listing.numbered and (numbers := parse_numbers(labels, places)):
        return numbers, listing.class_names()
    classes = None if listing.numbered else listing.class_names()
    elsewhere = {v for v in listing.elsewhere() if isinstance(v, str) and v.strip()}
    if missing := elsewhere - {*labels}:
        classes = sorted({label for label in labels if label and label.strip()} | missing)
        warn_user(
            f"{listing.where} has no images of classes that other splits have and that are possible"
            f" answers all the same: {some_of(sorted(missing))}."
        )
    if classes is None:
        return None, None
    number_of = {name: number for number, name in enumerate(classes)}
    for label, at in zip(labels, places, strict=True):
        if label is not None and label.strip() and label not in number_of:
            raise UserError(f"{at}: the label {quoted(label)} is not one of its classes.")
    return [number_of.get(label) for label in labels], classes


def tabulate(rows: Sequence[Row]) -> Any:
    """Return an Arrow table of one or more rows of a kind, with the schema of its features.

    The columns are image, label and sample_id; group, if a row has one; and those that are kept.
    Items have texts, and if they have several images, images and pairing for image and label.
    """
    text, number, list_of = datasets.Value("string"), datasets.Value("int64"), make_list_feature
    first, images, labels = rows[0], [row.image for row in rows], [row.label for row in rows]
    if isinstance(first.image, tuple):
        right = {"pairing": (list_of(number), labels)}
        if isinstance(first.label, int):  # the right image of one text
            right = {"label": (number, labels)}
        columns = {"images": (list_of(datasets.Image()), images), **right}
    else:
        of_label = text if isinstance(first.label, str) else number
        columns = {"image": (datasets.Image(), images), "label": (of_label, labels)}
    columns["sample_id"] = text, [row.id for row in rows]
    if first.texts is not None:
        columns["texts"] = list_of(text), [row.texts for row in rows]
    if any(row.group is not None for row in rows):
        columns["group"] = text, [row.group for row in rows]
    columns |= {name: (text, [row.kept[name] for row in rows]) for name in first.kept}
    features = datasets.Features({name: feature for name, (feature, _) in columns.items()})
    values = {name: values for name, (_, values) in columns.items()}
    return pa.Table.from_pydict(values, features.arrow_schema)


def parse_numbers(labels: Sequence[str], at: Sequence[str]) -> list[int] | None:
    """Return labels as integers, or None if any of them is not a whole number; -1 if empty.

    `at` has the places of the labels in messages. Raises UserError if a number exceeds 64 bits.
    """
    if not all(label == "" or label.removeprefix("-").isdecimal() for label in labels):
        return None
    for label, place in zip(labels, at, strict=True):
        if len(label) > LABEL_DIGITS:
            raise UserError(f"{place}: the label {quoted(label)} is too large.")
    return [int(label or UNLABELLED) for label in labels]


def format_group(spec: DatasetSpec, values: Sequence[Any]) -> str | None:
    """Return the name of a group, such as `place water, sex f`, or None if it has no values.

    `values` are those of the columns that the dataset declares, in their order.
    """
    texts = [
        spec.group_names.get(name, {}).get(str(value), f"{name} {value}")
        for name, value in zip(spec.groups, values, strict=True)
        if value is not None
    ]
    return ", ".join(filter(None, texts)) or None


def read_column(rows: Rows, name: str) -> list[Any]:
    """Return a column as Python values, a hundred times as fast as row by row."""
    table, places = find_stored_rows(rows)
    values: list[Any] = table.column(name).to_pylist()
    return values if places == range(len(values)) else [values[place] for place in places]


def find_stored_rows(rows: Rows) -> tuple[Any, Sequence[int]]:
    """Return the underlying Arrow table, and the positions of the selected rows in it.

    Unlike `flatten_indices`, this copies no images. If a row is selected twice, the table holds a
    copy of each selected row.
    """
    table, places = rows.data.table, selected_rows(rows)
    if places is None:
        return table, range(len(table))
    if len(set(places)) < len(places):  # a row that is selected twice needs two ids
        return table.take(places), range(len(places))
    return table, places


def make_list_feature(feature: Any) -> Any:
    """Return the feature of lists of `feature`, for any version of datasets."""
    return datasets.List(feature) if hasattr(datasets, "List") else [feature]  # before 4.0


def entry_of(feature: Any) -> Any:
    """Return the feature of the entries of a column of lists; None if it holds no lists."""
    return feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)


def disable_decoding(rows: Any, where: str) -> tuple[Any, str]:
    """Return rows with undecoded images, and their column, `images` or `image` (UserError)."""
    column = "images" if "images" in rows.column_names else "image"
    if column not in rows.column_names:
        names = ", ".join(rows.column_names)
        raise UserError(f"{where} has no column 'image' or 'images'; its columns: {names}.")
    feature, stored = rows.features[column], datasets.Image(decode=False)
    entry, kind = feature, "images"
    if column == "images":
        entry, kind, stored = entry_of(feature), "lists of images", make_list_feature(stored)
    if not isinstance(entry, datasets.Image):
        raise UserError(f"{where}: its column {column!r} holds {feature}, not {kind}.")
    return rows.cast_column(column, stored), column


def get_images(row: Any) -> tuple[Any, ...]:
    """Return the encoded images of a row."""
    return tuple(row["images"] or ()) if "images" in row else (row["image"],)


def resolve_paths(column: Any, root: Path | None, where: str, links: bool = False) -> Any:
    """Return a column of stored images with absolute paths inside `root`; bytes are not copied.

    `column` is a chunked Arrow array of structs (bytes, path), or of lists of them. Links are
    resolved, or with `links` kept, as they may change. Raises UserError if a path leads out of
    `root`, or is relative and `root` is None.
    """
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return pa.chunked_array(
            [_resolve_lists(chunk, root, where) for chunk in column.chunks], column.type
        )

    def resolve_chunk(chunk: Any) -> Any:
        stored = chunk.field("bytes")
        if stored.null_count == 0:
            return chunk
        paths, valid = chunk.field("path").to_pylist(), stored.is_valid().to_pylist()
        named = counted(zip(paths, valid, strict=True), "Checking image files", len(paths))
        absolute = [
            path if path is None or has_bytes else str(_resolve_path(path, root, where, links))
            for path, has_bytes in named
        ]
        return pa.StructArray.from_arrays(
            [stored, pa.array(absolute, pa.string())], ["bytes", "path"], mask=chunk.is_null()
        )

    return pa.chunked_array([resolve_chunk(chunk) for chunk in column.chunks], column.type)


def _resolve_lists(chunk: Any, root: Path | None, where: str) -> Any:
    images = resolve_paths(pa.chunked_array([chunk.flatten()]), root, where).combine_chunks()
    lengths = chunk.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    offsets = pa.array([0, *lengths.cumsum().tolist()], pa.int32())
    return pa.ListArray.from_arrays(offsets, images).cast(chunk.type)


def _resolve_path(path: str, root: Path | None, where: str, links: bool) -> Path:
    if root is not None:
        real = resolve_inside(root, path)
        return root / path if links else real
    if not Path(path).is_absolute():
        raise UserError(
            f"{where}: the path of an image, {quoted(path)}, is not absolute. A dataset must have"
            " absolute paths, or the bytes of its images."
        )
    return Path(path)


def check_ids(ids: Sequence[object], where: str) -> tuple[str, ...]:
    """Return sample ids (UserError unless they are unique UTF-8 texts of 1 to 4,096 characters)."""
    for row, sample_id in enumerate(ids):
        if not isinstance(sample_id, str):
            raise UserError(
                f"{where}: the sample_id of image {row + 1} is {quoted(sample_id)}; expected text."
            )
        if not sample_id.strip() or len(sample_id) > MAX_ID_LENGTH or not is_utf8(sample_id):
            raise UserError(
                f"{where}: the sample_id of image {row + 1} must be 1 to {MAX_ID_LENGTH} characters"
                f" of UTF-8, got {quoted(sample_id)}."
            )
    names = [str(sample_id) for sample_id in ids]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(
            f"{where}: the sample_id {quoted(repeated[0])} occurs several times; ids must be"
            " unique."
        )
    return tuple(names)


def make_unique(ids: Iterable[str]) -> list[str]:
    """Make ids unique with suffixes: x, x-2, x-3. Identical images have identical ids."""
    seen: Counter[str] = Counter()
    unique = []
    for sample_id in ids:
        seen[sample_id] += 1
        repeats = f"-{seen[sample_id]}" if seen[sample_id] > 1 else ""
        unique.append(f"{sample_id}{repeats}")
    return unique
