"""`samples.jsonl`, the append-only journal of a run: its records, one per image, and their table.

Incomplete and damaged lines are skipped by readers.
"""

import errno
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, BinaryIO, Literal, NotRequired

import numpy as np
from pydantic import Field, TypeAdapter
from pydantic_core import from_json
from typing_extensions import TypedDict

from bench.contracts.decision import Decided, tied_with
from bench.contracts.strategy import DecidedBy, Outcome
from bench.errors import warn_user
from bench.machine.files import regular_file
from bench.machine.libraries import pa, pc, pj
from bench.store.formats.arrow import indices, values
from bench.store.formats.fields import Amount, Count, Number, Positive, Share, is_valid

MAX_EVALUATIONS = 2**40  # per image; the sum over millions of images fits into int64
MAX_ERROR = 1e39  # larger than any float32
MAX_SECONDS = 1e12  # per image; also the maximum of evaluation equivalents
SWEEP = "sweep"  # `decided_by` of an image that was swept for the calibration of its own run
TOP_CLASSES = 10  # classes kept per record, so that 200,000 samples × 1,000 classes stay small

Evaluations = Annotated[Count, Field(le=MAX_EVALUATIONS)]
Error = Annotated[Number, Field(ge=-MAX_ERROR, le=MAX_ERROR)]
StandardError = Annotated[Amount, Field(le=MAX_ERROR)]
Summed = Annotated[Amount, Field(le=MAX_SECONDS)]
TopClass = tuple[Count, Error | None, Evaluations]


class Record(TypedDict):
    """A decided or failed image. Fields without a star are in every line."""

    # `NotRequired`, a star in the documents, is that of typing: pydantic reads no other before
    # Python 3.12.
    sample_id: str  # id of the image within its split
    label: Count  # true class; for an item, the index of the right answer
    prediction: Count | None  # predicted class, None if the image failed
    score: Error | None  # mean error of the winner; lower is better
    margin: Error | None  # runner-up's score minus the winner's, on the draws that both have
    margin_stderr: StandardError | None  # standard error of the margin
    confidence: Share | None
    """Phi(margin / margin_stderr), the normal probability that the winner's expected error is below
    the runner-up's. It is too high if a strategy stopped at a significant difference."""
    evaluations: Evaluations  # number of forward passes of the network
    linearisations: NotRequired[Evaluations]  # number of draws for which a gradient was taken
    equivalents: NotRequired[Summed]  # evaluations plus gradients measured in evaluations
    top: list[TopClass]  # [class, score, draws] of the ten best classes, the best first
    seconds: Summed  # share of the scoring time
    error: str | None  # reason of the failure, None if the image was decided
    decided_by: NotRequired[Literal[DecidedBy, "sweep"]]
    """Why scoring ended, if the strategy reports it: a test left one class (`bound`), the cost
    reached a limit (`ceiling`), all draws were used (`exhausted`), or the best classes are tied
    (`tie`). `sweep` if the full sweep decided the image, for the calibration of this run."""
    in_candidates: NotRequired[bool]  # whether the true class, or a right answer, was a candidate
    right: NotRequired[list[Count]]
    """All right answers of an item, if several are. Its `label` is the first of them, and its
    `prediction` is the label if the winner is any of them; `top` has the answers themselves."""
    rank: NotRequired[Positive]
    """Place of an item's best right answer among the wrong ones, from 1; ties count against it."""
    cluster: NotRequired[str]  # hash of the image that an item is about
    group: NotRequired[str]  # group of the sample
    shape: NotRequired[list[Count]]  # [images, texts] of an item
    pairs: NotRequired[list[list[Error | None]]]  # score of each image with each text of an item
    image_right: NotRequired[bool]  # whether every text of the item was matched with its image
    group_right: NotRequired[bool]  # whether all images and all texts of the item were matched


def is_record(value: Any, n_classes: int) -> bool:
    """Return whether a line's value is a valid record of a run with `n_classes` classes."""
    if not is_valid(value, Record):
        return False
    classes = [value["label"], *value.get("right", ()), *(entry[0] for entry in value["top"])]
    if value["prediction"] is not None:
        classes.append(value["prediction"])
    elif value["error"] is None:
        return False  # neither decided nor failed
    return bool(max(classes) < n_classes)


def make_record(decided: Decided, seconds: float) -> Record:
    """Return the record of a decided image; `seconds` is its share of the scoring time."""
    outcome, sample = decided.outcome, decided.sample
    record = Record(
        sample_id=sample.sample_id,
        label=sample.label,
        prediction=None,
        score=None,
        margin=None,
        margin_stderr=None,
        confidence=None,
        evaluations=decided.evaluations,
        linearisations=decided.linearisations,
        equivalents=round(decided.equivalents, 2),
        top=[],
        seconds=round(seconds, 4),
        error=decided.error,
    )
    if outcome is not None:
        scores, draws, best = outcome.scores, outcome.draws, outcome.ranking[:TOP_CLASSES]
        record["top"] = [(int(c), finite(scores[c]), int(draws[c])) for c in best]
        record["prediction"], record["score"] = decided.winner, record["top"][0][1]
        record["margin"] = finite(outcome.margin)
        record["margin_stderr"] = finite(outcome.margin_stderr)
        record["confidence"] = finite(outcome.confidence)
        if outcome.decided_by is not None:
            record["decided_by"] = outcome.decided_by
    if sample.candidates is not None:
        record["in_candidates"] = not set(sample.right).isdisjoint(sample.candidates)
    if sample.group is not None:
        record["group"] = sample.group
    if sample.item is not None:
        record["shape"] = list(sample.item.shape)
        if sample.item.right:
            record["right"] = list(sample.item.right)
        ranked = outcome if 1 in sample.item.shape else None
        if ranked is not None and (rank := rank_of(decided, ranked)) is not None:
            record["rank"] = rank
    if sample.cluster is not None:
        record["cluster"] = sample.cluster
    if decided.pairs is not None:
        record["pairs"] = [[finite(score) for score in row] for row in decided.pairs]
        record["image_right"] = bool(decided.image_right)
        record["group_right"] = bool(decided.group_right)
    return record


def rank_of(decided: Decided, outcome: Outcome) -> int | None:
    """Return the place of the best right answer among the wrong ones, from 1 on.

    A wrong answer that ties with it is ahead, also one that was eliminated. If no right answer was
    a candidate, or only for the order of answers with equal scores, the rank is that in the run
    that the candidates are from.
    """
    sample, ranking = decided.sample, outcome.ranking
    is_right = np.isin(ranking, sample.right)
    place = int(is_right.argmax())
    best = ranking[place]
    shortlisted = sample.shortlisted
    if shortlisted is not None:
        candidates, rank = shortlisted.candidates, shortlisted.rank
        if best not in candidates or (rank is not None and rank > len(candidates)):
            return rank
    one_image = sample.item is not None and sample.item.shape[0] == 1
    ahead = tied_with(outcome, decided.cells if one_image else (), int(best))[ranking]
    ahead[:place] = True
    return 1 + int((ahead & ~is_right).sum())


def finite(value: float) -> float | None:
    """Return the value as a float, or None if it is not finite, because JSON has no NaN."""
    return float(value) if math.isfinite(value) else None


JOURNAL = "samples.jsonl"
MAX_LINE_BYTES = 10_000_000  # so that a file without line ends cannot fill memory
_BLOCK_BYTES = 1 << 20  # read at a time: pyarrow's default for blocks, which it parses in parallel
SYNC_SECONDS = 2.0  # minimum time between two calls of fsync
RESUME = "damaged and ignored. The same `bench run` scores only the images of damaged lines again."


def has_id(value: Any) -> bool:
    """Return whether a line's value is an object with a sample id."""
    return isinstance(value, dict) and isinstance(value.get("sample_id"), str)


def read_lines(
    path: Path, is_valid: Callable[[Any], bool] = has_id, problem: str = RESUME
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield offset (bytes), length (bytes) and record of each valid line; none if there is no file.

    A warning names the invalid lines and says that they are `problem`. A last one without a line
    end is not named, because a running or killed process leaves it. Raises UserError if it is not a
    regular file inside its folder.
    """
    file = regular_file(path.parent, path.name)
    if file is None:
        return
    damaged, start = [], 0
    with file.open("rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES), b""), start=1):
            try:
                record = from_json(line, allow_inf_nan=False)
            except ValueError:  # not JSON, not UTF-8 or nested too deeply
                record = None
            if is_valid(record):
                yield start, len(line), record
            elif line.endswith(b"\n") and line.strip():
                damaged.append(number)
            start += len(line)
    if damaged:
        lines_are = "lines {} are" if len(damaged) > 1 else "line {} is"
        numbers = ", ".join(map(str, damaged[:5])) + " and others" * (len(damaged) > 5)
        warn_user(f"{path}: {lines_are.format(numbers)} {problem}")


def complete_length(file: BinaryIO) -> int:
    """Return the number of bytes up to the end of the last complete line. Moves the position."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def prefix_hash(path: Path, length: int | None = None) -> tuple[int, str]:
    """Return the length in bytes and the hash of a run's first lines; None: all complete ones."""
    file = regular_file(path, JOURNAL)
    if file is None:
        return 0, sha256().hexdigest()
    if length is None:
        with file.open("rb") as lines:
            length = complete_length(lines)
    status = file.stat()
    return length, _hash_of_start(file, length, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=64)  # the side files of a run mostly cover the same lines
def _hash_of_start(file: Path, length: int, *version: int) -> str:
    start = sha256()
    with file.open("rb") as lines:
        while length > 0 and (block := lines.read(min(length, _BLOCK_BYTES))):
            start.update(block)
            length -= len(block)
    return start.hexdigest()


class Journal:
    """Append-only file of JSON lines. Opening it removes an incomplete last line.

    Each line reaches the operating system before `append` returns, so a killed process loses none.
    fsync, against power loss, takes milliseconds, so it follows every few seconds and on closing.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._synced, self._clean = path, monotonic(), True
        self._file = path.open("ab+", buffering=0)  # so that a failed write leaves no buffered data
        complete = complete_length(self._file)
        if complete != self._file.seek(0, os.SEEK_END):  # a process was killed while it wrote
            self._file.truncate(complete)

    def append(self, record: Any) -> None:
        """Write one line, completely or not at all (OSError if the disk is full or gone)."""
        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        if not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno())):
            raise FileNotFoundError(errno.ENOENT, "it was replaced", str(self._path))
        before = self._file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError:
            with suppress(OSError):
                self._file.truncate(before)
            raise
        self._clean = False
        if monotonic() - self._synced >= SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        if not self._clean:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # no fsync here
                    raise
        self._synced, self._clean = monotonic(), True

    def close(self) -> None:
        """Sync and close the file. Errors of the last fsync are ignored."""
        with suppress(OSError):
            self._sync()
        self._file.close()


def read_table(path: Path, n_classes: int, top: bool = False) -> Any:
    """Return the latest record of each sample as a pyarrow table, empty without a journal.

    With `top`, it has the column `top`: the best classes of each image. A warning names images that
    were decided and have a later record with another decision.
    """
    table, changed = _latest(_all_lines(path, n_classes, top))
    if changed:
        images = "an image" if len(changed) == 1 else f"{len(changed):,} images"
        warn_user(
            f"{path / JOURNAL} was changed: it has a second, different decision of {images}, such"
            f" as {changed[0]}. The last one counts."
        )
    return table


def has_changed_decisions(path: Path, n_classes: int) -> bool:
    """Return whether an image that was decided has a later record with another decision."""
    return bool(_latest(_all_lines(path, n_classes, top=False))[1])


def _latest(table: Any) -> tuple[Any, list[str]]:
    """Return the last record of each sample, and the samples of which it changed a decision."""
    if pc.count_distinct(table["sample_id"]).as_py() == len(table):
        return table, []
    samples = table["sample_id"].combine_chunks().dictionary_encode()
    codes = values(samples.indices)
    last = len(codes) - 1 - np.unique(codes[::-1], return_index=True)[1]  # row of each code
    predictions = values(table["prediction"], -1)
    changed = (predictions >= 0) & (predictions != predictions[last[codes]])
    names = samples.dictionary.take(indices(np.unique(codes[changed]))).to_pylist()
    return table.take(indices(np.sort(last))), names


def _all_lines(path: Path, n_classes: int, top: bool) -> Any:
    """Return the valid records of the journal as a table."""
    file = regular_file(path, JOURNAL)
    table = _parsed(file, n_classes, top) if file else to_table([], top)
    if table is None:  # line by line, which is slower but can skip damaged lines
        lines = read_lines(path / JOURNAL, lambda value: is_record(value, n_classes))
        table = to_table([record for _, _, record in lines], top)
    return table


def _parsed(file: Path, n_classes: int, top: bool) -> Any:
    """Return the complete lines of the journal as a table, None if one is not a valid record."""
    options = pj.ParseOptions(explicit_schema=_schema(top), unexpected_field_behavior="ignore")
    try:
        with file.open("rb") as lines:
            length = complete_length(lines)
        large = length >= _BLOCK_BYTES  # threads slow down the parsing of small files
        with pa.memory_map(str(file)) as source:
            table = pj.read_json(
                pa.BufferReader(source.read_buffer(length)),
                read_options=pj.ReadOptions(use_threads=large),
                parse_options=options,
            )
    except (OSError, ValueError, pa.ArrowException):  # an empty file, a damaged line
        return None
    return table if _all_records(table, n_classes) else None


def _all_records(table: Any, n_classes: int) -> bool:
    """Return whether all rows are records; a vectorised `is_record`."""
    if table["prediction"].null_count:
        neither = pc.and_(table["prediction"].is_null(), table["error"].is_null())
        if pc.any(neither).as_py():
            return False
    largest = {"label": n_classes - 1, "prediction": n_classes - 1}
    for name in table.column_names:
        declared, column = _columns()[name], table[name]
        if declared["required"] and column.null_count:
            return False
        if "maximum" in declared:
            least, most = declared["minimum"], largest.get(name, declared["maximum"])
            numbers = values(column, least)
            if len(column) and not least <= numbers.min() <= numbers.max() <= most:
                return False
        # A set, because pyarrow imports pandas for `pa.array` and `is_in`.
        words = {None, *declared.get("enum", ())}
        if len(words) > 1 and not set(pc.unique(column).to_pylist()) <= words:
            return False
    if not _is_shape(table["shape"]):
        return False
    return "top" not in table.column_names or _is_top(table["top"], n_classes)


def _is_shape(column: Any) -> bool:
    """Return whether all entries of `shape` are null or two counts."""
    shapes = column.combine_chunks()
    numbers = shapes.flatten()
    two = (values(shapes.value_lengths(), 2) == 2).all()
    return bool(two and not numbers.null_count and (values(numbers) >= 0).all())


def _is_top(column: Any, n_classes: int) -> bool:
    """Return whether all entries of `top` are valid triples [class, score, draws]."""
    triples = column.combine_chunks().flatten()
    numbers = triples.flatten()
    if column.null_count or triples.null_count or len(numbers) != 3 * len(triples):
        return False
    classes = values(numbers, np.nan)[::3]
    integers = (values(triples.value_lengths()) == 3).all() and (classes == classes.round()).all()
    return bool(integers and (classes >= 0).all() and (classes < n_classes).all())


_NO_COLUMNS = {"score", "pairs", "right"}  # fields that are read from single records alone


@lru_cache
def _columns() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each column, as `Record` declares it, and if every line has it."""
    declared, columns = TypeAdapter(Record).json_schema(), {}
    for name, field in declared["properties"].items():
        own, *null = field.get("anyOf", [field])
        columns[name] = {**own, "required": name in declared["required"] and not null}
    return {name: column for name, column in columns.items() if name not in _NO_COLUMNS}


def _schema(top: bool) -> Any:
    types = {
        **{"string": pa.string(), "integer": pa.int64(), "number": pa.float64()},
        **{"boolean": pa.bool_(), "array": pa.list_(pa.list_(pa.float64()))},
    }
    columns = {name: types[column["type"]] for name, column in _columns().items()}
    columns["shape"] = pa.list_(pa.int64())
    return pa.schema([pair for pair in columns.items() if top or pair[0] != "top"])


def to_table(records: Sequence[Any], top: bool = True) -> Any:
    """Return records as a pyarrow table with the same columns as `read_table`."""
    schema = _schema(top)
    rows = [{f.name: _converted(record.get(f.name), f.type) for f in schema} for record in records]
    return pa.Table.from_pylist(rows, schema)


def _converted(value: Any, type_: Any) -> Any:
    """Convert integers to floats for a column of doubles, because pyarrow rejects large ones."""
    if isinstance(value, list):
        return [_converted(item, type_.value_type) for item in value]
    return float(value) if isinstance(value, int) and str(type_) == "double" else value
