"""Datasets that are declared by their source and loaded by the reader for that kind of source.

Original downloads are read here: lists and tables of images, and JSON records of items.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.contracts.dataset import Listing, Row, Rows, file_image
from bench.contracts.parameters import Parameters
from bench.contracts.specs import DatasetSpec
from bench.discovery.declaration_checks import DOWNLOAD
from bench.errors import UserError, did_you_mean, quoted, refusing
from bench.inputs import parsing
from bench.inputs.class_names import match_classes
from bench.inputs.data import call_reader, find_path_reader, find_source
from bench.inputs.parsing import convert_to_name
from bench.inputs.replaced import crop_to_boxes
from bench.inputs.rows import LABEL_DIGITS, as_dataset, format_group
from bench.machine.files import path_exists, read_bytes, resolve_inside
from bench_plugins.datasets._listing import check_listed, chosen_split

_FIELDS = {"file": r"(?P<file>\S.*?)", "label": r"(?P<label>\S.*)", "_": r"\S++"}
MAX_LINE_LENGTH = 1_000  # characters; matching takes time quadratic in the length


class Declared:
    """Reader of a declared dataset. Columns named by the user replace declared ones."""

    def __init__(self, spec: DatasetSpec, **parameters: Any) -> None:
        self.spec = spec
        declared = {f"{kind}_column": name for kind, name in spec.columns.items()}
        named = {name: value for name, value in parameters.items() if value is not None}
        self.parameters = {**declared, **named}

    def load(self, split: str | None, data_dir: str | None) -> Any:
        """Return a split of the source, or of a local copy (UserError if the data is missing)."""
        spec = self.spec
        if data_dir is None and spec.source == DOWNLOAD:
            raise UserError(
                f"Dataset {spec.name!r} is read from its original download: download it from"
                f" {spec.homepage or 'its homepage'} and name its folder with --data-dir."
            )
        source_split = None if split is None else spec.split_names.get(split, split)
        if spec.items:
            return self._load_items(source_split, data_dir)
        if data_dir is None:
            return self._load_source(source_split)
        return self._load_copy(Path(data_dir), split, source_split)

    def _load_items(self, source_split: str | None, data_dir: str | None) -> Any:
        """Return the items of a copy, if its files are declared, or of a table."""
        if data_dir is not None and {"file", "files"} & set(self.spec.item):
            return load_items(self.spec, data_dir)
        reader, source = find_source(str(self.spec.source))
        table = call_reader(reader, {"source": source}, source_split, data_dir, "load_table")
        return load_items(self.spec, data_dir, table)

    def _load_source(self, source_split: str | None) -> Any:
        """Return a split of the declared source, which is online or a path."""
        reader, source = find_source(str(self.spec.source))
        parameters = self._parameters_for(reader)
        if reader.scheme:
            return call_reader(reader, {**parameters, "source": source}, source_split, None)
        if not path_exists(source) and "{" not in source:
            raise UserError(
                f"Dataset {self.spec.name!r}: its source {source} does not exist. Name another copy"
                " with --data-dir."
            )
        return call_reader(reader, parameters, source_split, source)

    def _load_copy(self, folder: Path, split: str | None, source_split: str | None) -> Any:
        """Return a split of a copy in the layout of the original download, or in a usual one."""
        layout = self.spec.layout
        lists = layout.get("lists", {})
        if by_split := {**lists, **layout.get("split_values", {})}:
            split = split or chosen_split(None, by_split, self.spec.name)
        for file in (lists.get(split or ""), layout.get("table")):
            if file and _has_file(folder, file):
                return read_listed(folder, file, split or "all", self.spec)
        if "reader" in layout and _has_file(folder, layout["marker"]):
            reader, source = find_source(layout["reader"])
            source_split = None if split is None else layout.get("splits", {}).get(split, split)
            return call_reader(reader, {"source": source}, source_split, str(folder))
        root = layout.get("root", "")
        place = folder / root if _has_file(folder, root) and (folder / root).is_dir() else folder
        reader, chosen = find_path_reader(), self._split_of(place, split, source_split)
        try:
            return call_reader(reader, self._parameters_for(reader), chosen, str(place))
        except UserError:
            if chosen is not None:
                # If the folder holds another dataset, `match_classes` raises the better error.
                rows = call_reader(reader, self._parameters_for(reader), None, str(place))
                match_classes(rows, self.spec, str(folder))
            raise

    def _split_of(self, place: Path, split: str | None, source_split: str | None) -> str | None:
        """Return the split to request from a copy; None for all of its images.

        It is the split's name at the source or ours, whichever the name of a file or folder begins
        with. If none does, a dataset of one split has all images; one of several has our name, for
        which the reader raises the error.
        """
        if split is None:
            return None
        folders = [folder for folder in (place, place / "data") if folder.is_dir()]
        names = [path.name for folder in folders for path in folder.iterdir()]
        for candidate in filter(None, (source_split, split)):
            if any(name.startswith(candidate) for name in names):
                return candidate
        return split if len(self.spec.splits) > 1 else None

    def _parameters_for(self, reader: DatasetSpec) -> Parameters:
        box = [self.spec.box] if self.spec.box else []
        groups = [name.partition("[")[0] for name in self.spec.groups]  # `npy[0]`: the column npy
        kept = dict.fromkeys((*self.parameters.get("keep", ()), *groups, *box))  # each once
        parameters = {**self.parameters, "keep": tuple(kept)}
        return {name: value for name, value in parameters.items() if name in reader.parameters}


def _has_file(folder: Path, name: str) -> bool:
    """Return whether a file or folder exists; raise an error if it lies outside `folder`."""
    return resolve_inside(folder, name).exists()


def compile_line(line: str) -> re.Pattern[str]:
    """Return the pattern of a line such as `{file} {label} {_}` (UserError if one is missing)."""
    parts = re.split(r"\{(\w+)\}", line)
    texts, fields = parts[::2], parts[1::2]
    if sorted(field for field in fields if field != "_") != ["file", "label"]:
        raise UserError(
            f"layout.line = {quoted(line)}: write it with {{file}} and {{label}}, each once, and"
            " {_} for other words."
        )
    patterns = [re.escape(text).replace(r"\ ", r"\s+") for text in texts]
    for place, field in enumerate(fields):
        patterns[place] += _FIELDS[field]
    return re.compile("".join(patterns) + r"\s*")


Entry = tuple[str, str, str, str | None]  # place in messages, image file, label, group


def read_listed(folder: Path, file: str, split: str, spec: DatasetSpec) -> Listing:
    """Return the images of a split that a text or CSV file of a download lists.

    The declaration's `layout` has `lists` (split → text file) or `table` (the CSV file, whose
    labels are numbers from 0), and `first_label` (number of the first class, if labels in a list
    are numbers). Raises UserError, with file and line, if a line or a file is invalid.
    """
    path = resolve_inside(folder, file)
    if file != spec.layout.get("table"):
        entries, first = _read_lines(path, spec), spec.layout.get("first_label")
    else:
        entries, first = _read_cells(path, split, spec), 0
    rows: list[Row] = []
    for at, name, label, group in entries:
        check_listed(folder, name, at)
        label = _find_class(label, first, spec, at)
        rows.append(Row(name, file_image(folder / name), label, group, at))
    if not rows:
        raise UserError(f"{path} lists no images of {split}.")
    return Listing(rows, split)


def _read_lines(path: Path, spec: DatasetSpec) -> Iterator[Entry]:
    """Yield the entry of each line: `layout["line"]` is its form, `images` its image's path."""
    form = spec.layout.get("line", "{label}/{file}")
    pattern, images = compile_line(form), spec.layout.get("images", "{label}/{file}")
    for number, line in enumerate(_read_lossy(path).split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if len(line) > MAX_LINE_LENGTH:
            raise UserError(f"{path}:{number}: more than {MAX_LINE_LENGTH:,} characters.")
        at = f"{path}:{number}"
        fields = pattern.fullmatch(parsing.strip_text(line, "line", at))
        if fields is None:
            raise UserError(f"{at}: {quoted(line)} is not of the form {form!r}.")
        name = images.replace("{file}", fields["file"]).replace("{label}", fields["label"])
        yield at, name, fields["label"], None


def _read_cells(table: Path, split: str, spec: DatasetSpec) -> Iterator[Entry]:
    """Yield the rows whose `split_column` has the split's value in `split_values`."""
    layout = spec.layout
    head, lines = parsing.read_csv(_read_lossy(table), str(table))
    columns = [layout["file_column"], layout["label_column"], layout["split_column"], *spec.groups]
    for column in columns:
        parsing.check_column(column, head, str(table))
    for line, row in lines:
        if row[layout["split_column"]] == layout["split_values"].get(split):
            group = format_group(spec, [row[group] for group in spec.groups])
            yield f"{table}:{line}", row[columns[0]], row[columns[1]], group


def _read_lossy(table: Path) -> str:
    """Return the text of a list of the download. Bytes that are not UTF-8 are replaced."""
    with refusing(f"{table} cannot be read: ", OSError):
        return read_bytes(table).decode("utf-8-sig", "replace")


def _find_class(label: str, first: int | None, spec: DatasetSpec, where: str) -> str:
    """Return the class name of a label; `first` is the number of the first class, if numbered."""
    if first is None:
        return label
    classes = spec.found or spec.classes or ()
    number = int(label) - first if label.isdecimal() and len(label) <= LABEL_DIGITS else -1
    if not 0 <= number < len(classes):
        raise UserError(
            f"{where}: the label {quoted(label)} is not one of {first} to"
            f" {first + len(classes) - 1}."
        )
    return classes[number]


Record = Mapping[str, Any]


def load_items(spec: DatasetSpec, data_dir: str | None, table: Any = None) -> Listing | Rows:
    """Return the items of a declared dataset: a dataset if they are cropped to boxes, or a listing.

    Their records are the rows of `table`, a `datasets.Dataset` that holds its images, or are read
    from the JSON files of the original download, in `data_dir`. The declaration's `item` says which
    fields of a record have what; its `label` or `pairing` is the right answer of every item.
    Raises UserError, with file and record, if a file or field is missing.
    """
    where = f"Dataset {spec.name!r}"
    folder = Path(str(data_dir)) if table is None else Path()
    records: Iterable[tuple[str, str | None, Record]]  # key, group, record
    if table is None:
        records = _read_records(folder, spec.item)
    else:
        records = ((str(row), None, record) for row, record in enumerate(table))
    items: list[Row] = []
    boxes: list[list[Any]] = []
    for key, part, record in records:
        items.append(_make_item(key, part, record, spec.item, folder, where))
        at = f"{where}, record {key}"
        boxes.append([_get_field(record, name, at) for name in spec.item.get("box", ())])
    if not items:
        raise UserError(f"{where} holds no items.")
    if "box" not in spec.item:
        return Listing(items)
    places = [f"{where}, item {item.id}" for item in items]
    return crop_to_boxes(as_dataset(Listing(items)), boxes, places)


def _read_records(folder: Path, fields: Record) -> Iterator[tuple[str, str | None, Record]]:
    """Yield key, group and record from JSON files that hold lists or objects of records."""
    files: Mapping[str, str] = fields.get("files") or {"": fields["file"]}
    for part, name in files.items():
        path = resolve_inside(folder, name)
        try:
            content = parsing.parse_json(read_bytes(path))
            if not isinstance(content, dict | list):
                raise ValueError("expected a list or an object of records")
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / name} is not a JSON file: {str(error)[:200]}.") from None
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
        for key, record in pairs:
            if not isinstance(record, dict):
                raise UserError(f"{path}: the record {key} is not a JSON object.")
            yield f"{part}/{key}" if part else str(key), part or None, record


def _make_item(
    key: str, part: str | None, record: Record, fields: Record, folder: Path, where: str
) -> Row:
    at = f"{where}, record {key}"
    images = [_get_field(record, name, at) for name in fields["images"]]
    texts: list[Any] = []
    for name in fields["texts"]:
        value = _get_field(record, name, at)
        texts += value if isinstance(value, list) else [value]
    for text in texts:
        if not isinstance(text, str):
            raise UserError(f"{at}: expected a text, got {quoted(text)}.")
    group = _get_field(record, fields["group"], at) if "group" in fields else part
    kinds = {type(image) for image in images}
    held = {dict, type(None)}  # what a source with images of its own has for one, or for none
    if kinds == {str}:
        place = Path(fields.get("folder", ""))
        images = [file_image(resolve_inside(folder, str(place / name))) for name in images]
    elif not kinds or not kinds <= held:
        raise UserError(f"{at}: expected names of image files, got {quoted(images)}.")
    if "id" in fields:
        key = convert_to_name(_get_field(record, fields["id"], at), "id", f"{at}:")
    if group is not None:
        group = convert_to_name(group, "group", f"{at}:")
    right = fields["label"] if "label" in fields else tuple(fields["pairing"])
    if len(images) > 1:
        return Row(key, tuple(images), right, group, texts=tuple(texts))
    if isinstance(right, tuple):
        if len(right) != 1:
            raise UserError(f"{at}: 'pairing' has {len(right)} texts for its single image.")
        (right,) = right
    return Row(key, images[0], right, group, texts=tuple(texts))


def _get_field(record: Record, name: str, at: str) -> Any:
    if name not in record:
        raise UserError(
            f"{at}: there is no {name!r}.{did_you_mean(name, record)} It has:"
            f" {parsing.join_names(map(str, record))}."
        )
    return record[name]
