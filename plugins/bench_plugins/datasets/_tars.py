"""Load WebDataset tars: files with the same name up to the first dot are one sample.

Only images and `cls`, `json` and `txt` files are read; other files are skipped. No code is run.

Python's `tarfile` silently treats a damaged header, or a block of zeros between two members, as the
end of the archive. It follows negative sizes backwards and expands sparse members. Here, `tarfile`
only parses each header; the structure of the archive is checked.
"""

import os
import tarfile
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import datasets
import pyarrow as pa

from bench.contracts.dataset import Listing, Row, StoredImage
from bench.errors import UserError, quoted, refusing, warn_user
from bench.inputs import parsing
from bench.inputs.class_names import check_names
from bench.inputs.items import check_classes
from bench.inputs.parsing import convert_to_name
from bench.inputs.rows import tabulate
from bench.machine.files import is_utf8, open_regular, regular_file, resolve_inside
from bench_plugins.datasets._arrow import SAMPLE_ID, NamedColumns, converted
from bench_plugins.datasets._listing import IMAGE_SUFFIXES, SkippedRows, chosen_split, splits_of

TAR_BATCH = 100  # maximum number of images per converted batch
TAR_BATCH_BYTES = 64_000_000  # size of the images at which a batch ends early
MAX_SAMPLE_BYTES = 200_000_000  # of all files of a sample
TAR_VERSION = 3  # increase it when other rows are read from a tar
LABEL_FILES = ("cls", "json", "txt")  # files of a sample that are no images
LABELS = ("label", "class", "cls")  # keys of a json file that may hold the label
CLASS_NAMES = "classnames.txt"  # as in clip-benchmark's tars: one class per line
BLOCK = tarfile.BLOCKSIZE
MAX_HEADER = 1_000_000  # bytes of a long name or of extended headers
MAX_PADDING = 100_000_000  # bytes of zeros at the end; GNU tar pads to 10 KiB
SIZE_DIGITS = 18  # maximum number of digits of a size
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)

Sample = dict[str, bytes]  # suffix → content


def load_tars(source: Path, split: str | None, named: NamedColumns) -> Listing:
    """Return a split of a tar, a folder of tars, or a pattern such as `{000..031}.tar` (UserError).

    The label of an image is its `cls` file, a key of its `json` file (`label`, `class`, `cls` or
    the named column), or its `txt` file. Its id is its name in the tar, or the named json key.
    """
    by_split = splits_of(source, ".tar")
    chosen = chosen_split(split, by_split, str(source))
    root = source if source.is_dir() else source.parent
    files = [resolve_inside(root, str(path)) for path in by_split[chosen]]
    text = datasets.Value("string")
    columns = dict.fromkeys(("label", SAMPLE_ID, *named.keep), text)
    schema = datasets.Features({"image": datasets.Image(), **columns}).arrow_schema

    def tables() -> Iterator[pa.Table]:
        rows: list[Row] = []
        size, left_out = 0, SkippedRows()
        for path in files:
            for row, n_bytes in _rows(path, named, left_out):
                rows.append(row)
                size += n_bytes
                if len(rows) == TAR_BATCH or size > TAR_BATCH_BYTES:
                    yield tabulate(rows).cast(schema)
                    rows, size = [], 0
        left_out.warn(source)
        yield tabulate(rows).cast(schema) if rows else schema.empty_table()

    arrow = str(converted("tars", files, f"{TAR_VERSION} {named}", schema, tables))
    table = _with_unique_ids(datasets.Dataset.from_file(arrow).data.table, root)
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


def _with_unique_ids(table: pa.Table, root: Path) -> pa.Table:
    """Replace ids TAR NUL ID by the shortest unique form: ID, or with the tar's name or path."""
    pairs = [full_id.split("\0") for full_id in table[SAMPLE_ID].to_pylist()]
    top = os.path.realpath(root)
    forms = (
        [own_id for _, own_id in pairs],
        [f"{Path(tar).name}:{own_id}" for tar, own_id in pairs],
        [f"{os.path.relpath(tar, top)}:{own_id}" for tar, own_id in pairs],
    )
    chosen = next((ids for ids in forms if len(set(ids)) == len(ids)), forms[-1])
    position = table.column_names.index(SAMPLE_ID)
    return table.set_column(position, SAMPLE_ID, pa.array(chosen, pa.string()))


def _rows(path: Path, named: NamedColumns, left_out: SkippedRows) -> Iterator[tuple[Row, int]]:
    """Yield the row of each sample with an image, with the id TAR NUL ID, and the image's bytes."""
    for key, sample in read_tar(path):
        images = [suffix for suffix in sample if suffix not in LABEL_FILES]
        if not images and "cls" in sample:
            left_out.add([key], "label", " without an image")
        if not images:  # perhaps a caption, or a list of classes
            continue
        if len(images) > 1:  # a mask may be 1.seg.png beside 1.jpg
            images = [suffix for suffix in images if "." not in suffix] or images
        if len(images) > 1:
            several = ", ".join(f"{key}.{suffix}" for suffix in images)
            raise UserError(f"{path}: expected one image for {quoted(key)}, got {several}.")
        facts, at = _facts(path, key, sample), f"{path}: in {key}.json"
        own_id, id_key = key, named.id_column
        if id_key is not None:
            own_id = convert_to_name(_fact(facts, id_key, path, key), id_key, at)
        kept = {
            name: parsing.convert_to_text(_fact(facts, name, path, key), name, at)
            for name in named.keep
        }
        image: StoredImage = {"bytes": sample[images[0]], "path": None}
        label = _label(path, key, sample, facts, named)
        yield Row(f"{path}\0{own_id}", image, label, kept=kept), len(sample[images[0]])


def _facts(path: Path, key: str, sample: Sample) -> dict[str, Any]:
    """Return what a sample's json file states; one that holds no object is the label."""
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
    name = named.label_column
    if name is None and "cls" not in sample:
        name = next((name for name in LABELS if name in facts), None)
        check_classes(facts, f"{path}: {key}.json")
    if name is None and "cls" in sample:
        label = _decoded(sample["cls"], f"{path}: {key}.cls")
    elif name is not None:
        value = _fact(facts, name, path, key)
        label = "" if value is None else convert_to_name(value, name, f"{path}: in {key}.json")
    else:
        label = _decoded(sample.get("txt", b""), f"{path}: {key}.txt")
    return parsing.strip_text(label, "label", f"{path}: {key}")


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{where} is not UTF-8: {quoted(content)}.") from None


def read_tar(path: Path) -> Iterator[tuple[str, Sample]]:
    """Yield the name and the files, suffix → content, of each sample in a tar (UserError)."""
    kinds = (tarfile.TarError, OSError, EOFError, ValueError)
    with refusing(f"{path} is not a complete tar file: ", *kinds), open_regular(path) as file:
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


def _members(path: Path, file: BinaryIO) -> Iterator[tuple[str, str, int]]:
    """Yield sample, suffix and size of each member of a sample; the file is at its content.

    The suffix of an image is all that follows the first dot of its name.
    """
    names: set[str] = set()
    for member in read_members(file):
        name, suffixes = _split(member.name)
        suffix = suffixes.rpartition(".")[2]
        used = f".{suffix}" in IMAGE_SUFFIXES or suffix in LABEL_FILES
        if not used or name.rpartition("/")[2].startswith("."):
            continue
        is_link = member.islnk() or member.issym()
        if not (member.isreg() or is_link):
            continue
        file_name, shown = f"{name}.{suffix}", quoted(member.name)
        if not is_utf8(member.name):
            raise UserError(f"{path}: the name {shown} is not UTF-8; rename it.")
        if is_link:
            raise UserError(f"{path}: {shown} is a link; write the tar with --hard-dereference.")
        if file_name in names:
            raise UserError(
                f"{path}: {shown} occurs twice: same name up to its first dot, same ending."
            )
        names.add(file_name)
        yield name, suffix if suffix in LABEL_FILES else suffixes, member.size


def _split(name: str) -> tuple[str, str]:
    """Return a member's name up to the first dot of its last part, and what follows that dot."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, suffixes = base.partition(".")
    return folder + slash + stem, suffixes.lower()


def read_members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar in order, with the file positioned at the member's content.

    Bytes of a name that are not UTF-8 are lone surrogates. Read the content before requesting the
    next member. Raises TarError if a member is invalid or could be missed.
    """
    total = os.fstat(file.fileno()).st_size
    place, long_name = 0, None  # the next header's byte; the next member's name, if stated
    extended: dict[str, str] = {}  # records about the next member
    everywhere: dict[str, str] = {}  # records about all later members
    while (header := _next_header(file, place, total)) is not None:
        is_extended, is_long = header.type in _EXTENDED, header.type in _LONG
        records = {} if is_extended or is_long else {**everywhere, **extended}
        size = _size(records["size"]) if "size" in records else header.size
        _check_member(header, records, size, place)
        has_content = header.isreg() or header.type not in tarfile.SUPPORTED_TYPES
        if is_extended or is_long or has_content:
            place += size + -size % BLOCK  # whole blocks
        place += BLOCK
        if place > total:
            raise tarfile.ReadError("unexpected end of data")
        if header.type == tarfile.GNUTYPE_LONGNAME:
            long_name = file.read(size).split(b"\0")[0].decode("utf-8", "surrogateescape")
        elif header.type == tarfile.XGLTYPE:
            everywhere |= _parse_records(file.read(size))
        elif is_extended:
            extended = _parse_records(file.read(size))
        elif not is_long:
            header.name, header.size = records.get("path", long_name or header.name), size
            yield header
            long_name, extended = None, {}


def _next_header(file: BinaryIO, place: int, total: int) -> tarfile.TarInfo | None:
    """Return the header at a byte, or None at the blocks that end the tar."""
    file.seek(place)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        raise tarfile.ReadError("the blocks that end a tar are missing")
    if not any(block):
        _check_end(file, total - place)
        return None
    return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")


def _check_member(
    header: tarfile.TarInfo, records: Mapping[str, str], size: int, place: int
) -> None:
    if header.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sp") for key in records):
        raise tarfile.ReadError(f"the member at byte {place:,} is sparse, which is not read")
    if size < 0:
        raise tarfile.ReadError(f"the member at byte {place:,} has a negative size")
    if header.type in (*_EXTENDED, *_LONG) and size > MAX_HEADER:
        raise tarfile.ReadError(f"a name or header has more than {MAX_HEADER:,} bytes")


def _size(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > SIZE_DIGITS:
        raise tarfile.ReadError(f"invalid size {text[:40]!r}: expected a number of bytes")
    return int(text)


def _parse_records(content: bytes) -> dict[str, str]:
    """Parse the records of an extended header, each `LENGTH KEY=VALUE` and a line feed."""
    records: dict[str, str] = {}
    place = 0
    while place < len(content):
        length, space, _ = content[place : place + SIZE_DIGITS].partition(b" ")
        end = place + int(length) if length.isdigit() else place
        record = content[place + len(length) + len(space) : end]
        key, equals, value = record.partition(b"=")
        if not (key and equals and record.endswith(b"\n")) or end > len(content):
            raise tarfile.ReadError("an extended header is damaged")
        records[key.decode("utf-8", "replace")] = value[:-1].decode("utf-8", "surrogateescape")
        place = end
    return records


def _check_end(file: BinaryIO, rest: int) -> None:
    if rest > MAX_PADDING:
        raise tarfile.ReadError(f"more than {MAX_PADDING:,} bytes follow the end of the archive")
    if file.read(rest).strip(b"\0"):
        raise tarfile.ReadError(
            "data follows the end of the archive: another tar, or members behind a damaged block"
        )
    if rest % BLOCK:
        raise tarfile.ReadError("its size is not a multiple of the block size: it is cut off")
