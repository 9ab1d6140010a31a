"""Load datasets from the Hugging Face Hub: `hf:owner/name@revision:config/split`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from bench.errors import AbsentError, UserError, did_you_mean, quoted
from bench.inputs.rows import make_dataset
from bench.machine.files import open_regular, resolve_inside
from bench.machine.offline import asking_hub, offline_reason, refusal
from bench_plugins.datasets._arrow import reading
from bench_plugins.datasets._columns import NamedColumns, standard_rows
from bench_plugins.datasets._listing import SPLIT_NAMES, splits_of
from bench_plugins.datasets.folder import Folder

_SOURCE = re.compile(
    r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^:@]+))?"
    r"(?::(?P<config>[^/:]*)(?:/(?P<split>[^/\[\]]+)(?:\[:(?P<first>\d+)\])?)?)?"
)
FORM = "hf:owner/name, hf:owner/name@revision, hf:owner/name:config/split"


@dataclass(frozen=True)
class HubSource:
    """A parsed source."""

    repository: str
    revision: str | None = None  # None for main
    config: str | None = None  # None for the default configuration
    split: str | None = None  # None for the first of test, validation and train
    first: int | None = None  # number of images to stream; None for all, downloaded


def parse_source(source: str) -> HubSource:
    """Parse `owner/name@revision:config/split[:N]` (UserError)."""
    match = _SOURCE.fullmatch(source)
    if match is None or ".." in source.partition("[")[0]:
        raise UserError(
            f"{quoted('hf:' + source)} is not the name of a dataset; write it as {FORM}."
        )
    parts: dict[str, Any] = {name: text for name, text in match.groupdict().items() if text}
    if "first" in parts:
        parts["first"] = int(parts["first"])
        if not parts["first"]:
            raise UserError(f"{quoted('hf:' + source)}: expected at least one image.")
    return HubSource(**parts)


class Hub:
    """A dataset of the Hub, read without running any of its code."""

    def __init__(self, source: str = "", **columns: Any) -> None:
        self.place = parse_source(source)
        self.columns = columns

    def load(self, split: str | None, data_dir: str | None) -> datasets.Dataset:
        """Return a split (UserError if it is missing or has no labelled images)."""
        place = self.place
        if split and place.split and split != place.split:
            raise UserError(
                f"--split {split} contradicts {place.split!r} in hf:{place.repository}."
            )
        split = split or place.split
        if data_dir is not None:
            own = Path(data_dir, place.config or "")
            return Folder(**self.columns).load(split, str(own if own.is_dir() else data_dir))
        rows, name = self._rows(split)
        return as_rows(rows, name, NamedColumns(**self.columns), f"hf:{place.repository}")

    def load_table(self, split: str | None, data_dir: str | None) -> datasets.Dataset:
        """Return a split of items with all its columns and undecoded images (UserError)."""
        if data_dir is None:
            rows, _ = self._rows(split or self.place.split)
        else:
            rows = _parquet_rows(Path(data_dir), str(split))
        for name, kind in rows.features.items():
            if isinstance(kind, datasets.Image):
                rows = rows.cast_column(name, datasets.Image(decode=False))
        return rows

    @asking_hub()
    def _rows(self, split: str | None) -> tuple[datasets.Dataset, str]:
        """Download a split unless cached; return it with its name (UserError)."""
        try:
            return self._fetch(split)
        except UserError:
            raise
        except Exception as error:  # the Hub's client raises many kinds
            raise _explain(self.place, error) from error

    def _fetch(self, split: str | None) -> tuple[datasets.Dataset, str]:
        place = self.place
        if hasattr(datasets.config, "HF_DATASETS_TRUST_REMOTE_CODE"):  # before 4.0
            datasets.config.HF_DATASETS_TRUST_REMOTE_CODE = False
        configs = datasets.get_dataset_config_names(place.repository, revision=place.revision)
        config = _one_of("configuration", place.config, configs, ("default",), place)
        splits = datasets.get_dataset_split_names(place.repository, config, revision=place.revision)
        name = _one_of("split", split, splits, SPLIT_NAMES, place)
        load: Any = partial(
            datasets.load_dataset, place.repository, config, split=name, revision=place.revision
        )
        if place.first is None:
            return load(), name
        stream = load(streaming=True)
        features = stream.features or stream._resolve_features().features
        images = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
        for key in images:
            stream = stream.cast_column(key, datasets.Image(decode=False))
            features[key] = datasets.Image()
        first_rows = list(stream.take(place.first))
        table = pa.Table.from_pylist(first_rows, schema=features.arrow_schema)
        return make_dataset(table, features), f"{name}[:{place.first}]"


def _parquet_rows(folder: Path, split: str) -> datasets.Dataset:
    by_split = splits_of(folder, ".parquet")
    files = by_split.get(split) or by_split.get("all") or []
    if not files:
        raise UserError(f"{folder} holds no parquet files of the split {split!r}.")
    tables = []
    with reading(f"The parquet files in {folder}"):
        for path in files:
            with open_regular(resolve_inside(folder, str(path))) as file:
                tables.append(pq.read_table(file))
        table = pa.concat_tables(tables)
        return make_dataset(table, datasets.Features.from_arrow_schema(table.schema))


def as_rows(
    rows: datasets.Dataset, split: str, named: NamedColumns, where: str
) -> datasets.Dataset:
    """Return a dataset with its columns renamed to image, label and, if it has ids, sample_id."""
    if rows._indices is not None:
        rows = rows.flatten_indices()
    files = [file["filename"] for file in rows.cache_files]
    # Paths in the rows are files in the library's own cache.
    root = Path(datasets.config.HF_DATASETS_CACHE).parent
    return standard_rows(rows.data.table, where, named, root, split, files)


def _one_of(
    kind: str, named: str | None, names: list[str], preferred: tuple[str, ...], place: HubSource
) -> str:
    """Return the named split or configuration, else the first preferred one or the only one."""
    if named is not None:
        if not {part.strip() for part in named.split("+")} <= set(names):
            raise UserError(
                f"hf:{place.repository} has no {kind} {named!r}.{did_you_mean(named, names)} It"
                f" has: {', '.join(names)}."
            )
        return named
    chosen = next((name for name in preferred if name in names), None)
    if chosen is None and len(names) != 1:
        raise UserError(
            f"hf:{place.repository} has several {kind}s: {', '.join(names)}. Name one:"
            f" hf:{place.repository}:CONFIG/SPLIT."
        )
    return chosen or names[0]


def _explain(place: HubSource, error: Any) -> UserError:
    kind = type(error).__name__
    reason = " ".join(str(error).split())[:200]
    if "script" in reason.lower():
        return UserError(
            f"hf:{place.repository} is a loading script, which is never run. Look for a copy in"
            " parquet, or name a revision that has one, such as @refs/convert/parquet."
        )
    hint = ""
    if "Gated" in kind or "gated" in reason:
        hint = " It is gated: accept its terms on its page, then log in with `hf auth login`."
    revision = f" --revision {place.revision}" if place.revision else ""
    refused = f"{refusal(error)}: {reason}" if offline_reason() is None else refusal(error)
    return AbsentError(
        f"hf:{place.repository} is not on this machine, and {refused}.{hint}\n"
        "Fetch it on a machine with a network, and name the copy with --data-dir FOLDER:\n"
        f"  hf download --repo-type dataset {place.repository}{revision} --local-dir FOLDER"
    )
