"""Datasets of the Hugging Face Hub: `hf:owner/name@revision:config/split`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from bench.errors import AbsentError, UserError, did_you_mean, quoted
from bench.inputs.rows import rows_of
from bench.machine.files import inside, open_regular
from bench.machine.offline import asking_hub, offline_reason, refusal
from bench_plugins.datasets._arrow import reading
from bench_plugins.datasets._columns import Wanted, standard_rows
from bench_plugins.datasets._listing import SPLIT_NAMES, splits_of
from bench_plugins.datasets.folder import Folder

_SOURCE = re.compile(
    r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^:@]+))?"
    r"(?::(?P<config>[^/:]*)(?:/(?P<split>[^/\[\]]+)(?:\[:(?P<first>\d+)\])?)?)?"
)
FORM = "hf:owner/name, hf:owner/name@revision, hf:owner/name:config/split"


@dataclass(frozen=True)
class HubSource:
    """A source; None: main, the default configuration, and test, validation or train."""

    repository: str
    revision: str | None = None
    config: str | None = None
    split: str | None = None
    first: int | None = None


def parse_source(source: str) -> HubSource:
    """Return what `owner/name@revision:config/split[:N]` says (UserError)."""
    source_parts = _SOURCE.fullmatch(source)
    if source_parts is None or ".." in source.partition("[")[0]:
        raise UserError(
            f"{quoted('hf:' + source)} is not the name of a dataset; write it as {FORM}."
        )
    first = source_parts["first"]
    if first is not None and int(first) < 1:
        raise UserError(f"{quoted('hf:' + source)}: expected at least one image.")
    stated: dict[str, Any] = {name: text for name, text in source_parts.groupdict().items() if text}
    return HubSource(**{**stated, "first": int(first) if first else None})


class Hub:
    """A dataset of the Hub, read without running any of its code."""

    def __init__(self, source: str = "", **columns: Any) -> None:
        self.place = parse_source(source)
        self.columns = columns

    def load(self, split: str | None, data_dir: str | None) -> datasets.Dataset:
        """Return a split; a UserError if it is missing or does not hold labelled images."""
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
        return as_rows(rows, name, Wanted(**self.columns), f"hf:{place.repository}")

    def load_table(self, split: str | None, data_dir: str | None) -> datasets.Dataset:
        """Return a split with all its columns, images not decoded, for items; raises as `load`."""
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
        """Return a split and its name; raises as `load`."""
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
        of: dict[str, Any] = {"revision": place.revision}
        configs = datasets.get_dataset_config_names(place.repository, **of)
        config = _one_of("configuration", place.config, configs, ("default",), place)
        splits = datasets.get_dataset_split_names(place.repository, config, **of)
        name = _one_of("split", split, splits, SPLIT_NAMES, place)
        if place.first is None:
            rows = datasets.load_dataset(place.repository, config, split=name, **of)
            return rows, name
        stream = datasets.load_dataset(place.repository, config, split=name, streaming=True, **of)
        features = stream.features or stream._resolve_features().features
        images = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
        for key in images:
            stream = stream.cast_column(key, datasets.Image(decode=False))
            features[key] = datasets.Image()
        taken = list(stream.take(place.first))
        table = pa.Table.from_pylist(taken, schema=features.arrow_schema)
        return rows_of(table, features), f"{name}[:{place.first}]"


def _parquet_rows(folder: Path, split: str) -> datasets.Dataset:
    by_split = splits_of(folder, ".parquet")
    files = by_split.get(split) or by_split.get("all") or []
    if not files:
        raise UserError(f"{folder} holds no parquet files of {split}.")
    tables = []
    with reading(f"The parquet files in {folder}"):
        for path in files:
            with open_regular(inside(folder, str(path))) as file:
                tables.append(pq.read_table(file))
        table = pa.concat_tables(tables)
        return rows_of(table, datasets.Features.from_arrow_schema(table.schema))


def as_rows(rows: datasets.Dataset, split: str, wanted: Wanted, where: str) -> datasets.Dataset:
    """Return a dataset's rows with the columns image, label and perhaps sample_id."""
    if rows._indices is not None:
        rows = rows.flatten_indices()
    files = [file["filename"] for file in rows.cache_files]
    # Files that a row names are the cache's own.
    root = Path(datasets.config.HF_DATASETS_CACHE).parent
    return standard_rows(rows.data.table, where, wanted, root, split, files)


def _one_of(
    kind: str, named: str | None, there: list[str], preferred: tuple[str, ...], place: HubSource
) -> str:
    if named is not None:
        if not {part.strip() for part in named.split("+")} <= set(there):
            raise UserError(
                f"hf:{place.repository} has no {kind} {named!r}.{did_you_mean(named, there)} It"
                f" has: {', '.join(there)}."
            )
        return named
    chosen = next((name for name in preferred if name in there), None)
    if chosen is None and len(there) != 1:
        raise UserError(
            f"hf:{place.repository} has several {kind}s: {', '.join(there)}. Name one:"
            f" hf:{place.repository}:CONFIG/SPLIT."
        )
    return chosen or there[0]


def _explain(place: HubSource, error: Any) -> UserError:
    kind = type(error).__name__
    reason = " ".join(str(error).split())[:200]
    if "script" in reason.lower():
        return UserError(
            f"hf:{place.repository} is a loading script, which is never run. Look for a copy of it"
            " in parquet, or name a revision that has one, such as @refs/convert/parquet."
        )
    hint = ""
    if "Gated" in kind or "gated" in reason:
        hint = " It is gated: accept its terms on its page, then log in with `hf auth login`."
    revision = f" --revision {place.revision}" if place.revision else ""
    refused = f"{refusal(error)}: {reason}" if offline_reason() is None else refusal(error)
    return AbsentError(
        f"hf:{place.repository} is not on this machine, and {refused}.{hint}\n"
        "Fetch it where there is a network, and name the copy with --data-dir FOLDER:\n"
        f"  hf download --repo-type dataset {place.repository}{revision} --local-dir FOLDER"
    )
