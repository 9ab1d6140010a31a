"""Load WebDataset tars: files with the same name up to the first dot are one sample.

Only images and `cls`, `json` and `txt` files are read; other files are skipped. No code is run.
"""

import tarfile
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import datasets
import pyarrow as pa

from bench.contracts.dataset import Listing, Row, StoredImage
from bench.errors import UserError, quoted, warn_user
from bench.inputs import parsing
from bench.inputs.class_names import check_names
from bench.inputs.parsing import convert_to_name
from bench.inputs.rows import tabulate
from bench.machine.files import is_utf8, open_regular, regular_file, resolve_inside
from bench_plugins.datasets._arrow import SAMPLE_ID, UNNAMED, NamedColumns, converted
from bench_plugins.datasets._listing import IMAGE_SUFFIXES, chosen_split, splits_of
from bench_plugins.datasets._tar_members import TarMember, read_members

TAR_BATCH = 100  # maximum number of images per converted batch
TAR_BATCH_BYTES = 64_000_000  # size of the images at which a batch ends early
MAX_SAMPLE_BYTES = 200_000_000  # of all files of a sample
LABELS = ("label", "class", "cls")  # keys of a json file that may hold the label
CLASS_NAMES = "classnames.txt"  # as in clip-benchmark's tars: one class per line

Sample = dict[str, bytes]  # suffix → content


def load_tars(source: Path, split: str | None, named: NamedColumns = UNNAMED) -> Listing:
    """Return a split of a tar, a folder of tars, or a pattern such as `{000..031}.tar` (UserError).

    The label of an image is its `cls` file, a key of its `json` file (`label`, `class`, `cls` or
    the named column), or its `txt` file. Its id is its name in the tar, or the named json key.
    """
    pattern = "{" in source.name and not source.exists()
    files = parsing.expand_pattern(str(source)) if pattern else []
    by_split = {"all": files} if pattern else splits_of(source, ".tar")
    chosen = chosen_split(split, by_split, str(source))
    root = source if source.is_dir() else source.parent
    files = [resolve_inside(root, str(path)) for path in by_split[chosen]]
    text = datasets.Value("string")
    columns = dict.fromkeys(("label", SAMPLE_ID, *named.keep), text)
    schema = datasets.Features({"image": datasets.Image(), **columns}).arrow_schema

    def tables() -> Iterator[pa.Table]:
        rows: list[Row] = []
        size = 0
        for path in files:
            for row, n_bytes in _rows(path, named):
                rows.append(row)
                size += n_bytes
                if len(rows) == TAR_BATCH or size > TAR_BATCH_BYTES:
                    yield tabulate(rows).cast(schema)
                    rows, size = [], 0
        yield tabulate(rows).cast(schema) if rows else schema.empty_table()

    arrow = str(converted("tars", files, repr(named), schema, tables))
    table = _with_unique_ids(datasets.Dataset.from_file(arrow).data.table)
    names = partial(_names_of_numbers, root, by_split[chosen][0])
    return Listing(table, chosen, str(source), names, numbered=True, files=(arrow,))


def _names_of_numbers(root: Path, first: Path) -> list[str] | None:
    """Return the names in `classnames.txt` in `root` or next to `first`; warn if it is above."""
    for place in dict.fromkeys((root / CLASS_NAMES, first.parent / CLASS_NAMES)):
        file = regular_file(root, str(place.relative_to(root)))
        if file is not None:
            names = [name for _, name in parsing.read_lines(file, "class")]
            check_names(names, str(place))
            return names
    above = root.absolute().parent / CLASS_NAMES
    if above.is_file():
        warn_user(
            f"{above} lies outside the folder {root} and is not read; --class-names names it."
        )
    return None


def _with_unique_ids(table: pa.Table) -> pa.Table:
    """Remove the tar's name from the ids, unless two tars use the same id."""
    ids = table[SAMPLE_ID].to_pylist()
    short = [full_id.partition(":")[2] for full_id in ids]
    chosen = short if len(set(short)) == len(short) else ids
    position = table.column_names.index(SAMPLE_ID)
    return table.set_column(position, SAMPLE_ID, pa.array(chosen, pa.string()))


def _rows(path: Path, named: NamedColumns) -> Iterator[tuple[Row, int]]:
    """Yield a row, whose id is TAR:ID, and the image's size of each sample with an image."""
    for key, sample in read_tar(path):
        images = [suffix for suffix in sample if f".{suffix}" in IMAGE_SUFFIXES]
        if not images:
            continue  # a caption or another file, such as a list of classes
        facts, at = _facts(path, key, sample), f"{path}: in {key}.json"
        own_id = key
        if named.id_column is not None:
            own_id = convert_to_name(_fact(facts, named.id_column, path, key), named.id_column, at)
        kept = {
            name: parsing.convert_to_text(_fact(facts, name, path, key), name, at)
            for name in named.keep
        }
        image: StoredImage = {"bytes": sample[images[0]], "path": None}
        label = _label(path, key, sample, facts, named)
        yield Row(f"{path.name}:{own_id}", image, label, kept=kept), len(sample[images[0]])


def _facts(path: Path, key: str, sample: Sample) -> dict[str, Any]:
    if "json" not in sample:
        return {}
    try:
        facts = parsing.parse_json(sample["json"])
    except ValueError as error:
        raise UserError(f"{path}: {key}.json is not JSON: {str(error)[:200]}.") from None
    return facts if isinstance(facts, dict) else {"label": facts}


def _fact(facts: dict[str, Any], name: str, path: Path, key: str) -> Any:
    if name not in facts:
        raise UserError(f"{path}: {key}.json has no key {name!r}.")
    return facts[name]


def _label(path: Path, key: str, sample: Sample, facts: dict[str, Any], named: NamedColumns) -> str:
    if named.label_column is not None:
        _fact(facts, named.label_column, path, key)
    name = named.label_column or next((name for name in LABELS if name in facts), None)
    if "cls" in sample and named.label_column is None:
        label = _decoded(sample["cls"], f"{path}: {key}.cls")
    elif name is not None:
        value = facts[name]
        label = "" if value is None else convert_to_name(value, name, f"{path}: in {key}.json")
    else:
        label = _decoded(sample.get("txt", b""), f"{path}: {key}.txt")
    label = parsing.strip_text(label, "label", f"{path}: {key}")
    if not label:
        raise UserError(
            f"{path}: the image {quoted(key)} has no label: expected {key}.cls, or {key}.json with"
            " a key label. --label-column names another key."
        )
    return label


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{where} is not UTF-8: {quoted(content)}.") from None


def read_tar(path: Path) -> Iterator[tuple[str, Sample]]:
    """Yield the name and the files, suffix → content, of each sample in a tar (UserError)."""
    try:
        with open_regular(path) as file:
            for name, members in groupby(_members(path, file), key=lambda member: member[0]):
                sample: Sample = {}
                for _, suffix, size in members:
                    if size + sum(map(len, sample.values())) > MAX_SAMPLE_BYTES:
                        raise UserError(
                            f"{path}: the files of {quoted(name)} have more than"
                            f" {MAX_SAMPLE_BYTES:,} bytes."
                        )
                    sample[suffix] = file.read(size)
                yield name, sample
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} is not a complete tar file: {error}.") from None


def _members(path: Path, file: BinaryIO) -> Iterator[tuple[str, str, int]]:
    """Yield name, suffix and size of the members that belong to samples, as `read_members`."""
    names: set[str] = set()
    for member in read_members(file):
        name, suffix = _split(member.name)
        used = f".{suffix}" in IMAGE_SUFFIXES or suffix in ("cls", "json", "txt")
        if not used or name.rpartition("/")[2].startswith("."):
            continue
        if member.is_file or member.is_link:
            _check_member(path, member, f"{name}.{suffix}" in names)
            names.add(f"{name}.{suffix}")
            yield name, suffix, member.size


def _check_member(path: Path, member: TarMember, path_exists: bool) -> None:
    name = quoted(member.name)
    if not is_utf8(member.name):
        raise UserError(f"{path}: the name {name} is not UTF-8; rename it.")
    if member.is_link:
        raise UserError(f"{path}: {name} is a link; write the tar with --hard-dereference.")
    if path_exists:
        raise UserError(f"{path}: {name} occurs twice: same name up to its first dot, same ending.")


def _split(name: str) -> tuple[str, str]:
    """Return a member's name up to the first dot of its last part, and its last suffix."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, suffixes = base.partition(".")
    return folder + slash + stem, suffixes.rpartition(".")[2].lower()
