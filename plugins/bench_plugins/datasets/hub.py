"""Load datasets from the Hugging Face Hub: `hf:owner/name@revision:config/split`."""

import glob
import hashlib
import json
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from bench.contracts.dataset import Listing
from bench.errors import UserError, did_you_mean, quoted
from bench.inputs.rows import make_dataset
from bench.machine.cache import cache_dir, cached_arrow, is_cached, read_cached, write_cached
from bench.machine.files import open_regular, resolve_inside
from bench.machine.hub import Commit, absent, ask_again, find_commit
from bench.machine.libraries.private_datasets import (
    cached_builder,
    features_of,
    no_remote_code,
    reads_cache,
    selected_rows,
)
from bench_plugins.datasets._arrow import NamedColumns, choose_columns, convert, labels_in, reading
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
        self.source = parse_source(source)
        self.columns = columns

    def load(self, split: str | None, data_dir: str | None) -> Listing:
        """Return a split (UserError if it is missing or has no labelled images)."""
        source = self.source
        if split and source.split and split != source.split:
            raise UserError(
                f"--split {split} contradicts {source.split!r} in hf:{source.repository}."
            )
        split = split or source.split
        if data_dir is not None:
            own = Path(data_dir, source.config or "")
            return Folder(**self.columns).load(split, str(own if own.is_dir() else data_dir))
        rows, name = self.read(split)
        rows = rows if selected_rows(rows) is None else rows.flatten_indices()
        table, files = rows.data.table, tuple(file["filename"] for file in rows.cache_files)
        where = f"hf:{source.repository}"
        columns = choose_columns(table.schema, where, NamedColumns(**self.columns))
        # Paths in the rows are files in the library's own cache.
        root = Path(datasets.config.HF_DATASETS_CACHE).parent
        others = [other for other in rows.info.splits or () if other != name]

        def read(other: str, label: str) -> pa.Table:
            return self.read(other)[0].data.table

        labels = partial(labels_in, others, columns.sources["label"], read)
        return Listing(convert(table, columns, root), name, where, files=files, elsewhere=labels)

    def load_table(self, split: str | None, data_dir: str | None) -> datasets.Dataset:
        """Return a split of items with all its columns and undecoded images (UserError)."""
        if data_dir is None:
            rows, _ = self.read(split or self.source.split)
        else:
            rows = _parquet_rows(Path(data_dir), str(split))
        for name, kind in rows.features.items():
            if isinstance(kind, datasets.Image):
                rows = rows.cast_column(name, datasets.Image(decode=False))
        return rows

    def read(self, split: str | None) -> tuple[datasets.Dataset, str]:
        """Return a split, downloaded unless it is in the cache, with its name (UserError)."""
        try:
            commit = find_commit(self.source.repository, self.source.revision, "dataset")
            return ask_again(lambda: _read(commit, self.source, split))
        except UserError:
            raise
        except Exception as error:  # the Hub's client raises many kinds
            raise _explain(self.source, error) from error


def _read(commit: Commit, source: HubSource, split: str | None) -> tuple[datasets.Dataset, str]:
    if commit.error is None and Path(source.repository).is_dir():
        raise UserError(
            f"hf:{source.repository} is on the Hub, but the folder {source.repository} here would"
            f" be read instead. Start from another folder, or name it ./{source.repository}."
        )
    config = _one_of("configuration", source.config, _names(commit), ("default",), source)
    name = _one_of("split", split, _names(commit, config), SPLIT_NAMES, source)
    if source.first is not None:
        return _first_rows(commit, config, name, source.first), f"{name}[:{source.first}]"
    builder = _builder(commit, config)
    if not reads_cache(builder):
        urls = [str(url) for part in builder.config.data_files.values() for url in part]
        paths = [url.partition(f"@{commit.commit}/")[2] for url in urls]
        with commit.downloading(paths):
            builder.download_and_prepare()
    return builder.as_dataset(split=name), name


def _first_rows(commit: Commit, config: str, split: str, count: int) -> datasets.Dataset:
    """Return the first rows of a split, which are streamed unless they are in a cache."""
    key = hashlib.sha256(f"{commit.commit} {config} {split} {count}".encode()).hexdigest()
    file = cache_dir("first-rows") / f"{key}.arrow"
    if not is_cached(file):
        stream: Any = _builder(commit, config).as_streaming_dataset(split=split)
        features = features_of(stream)
        for column, kind in list(features.items()):
            if isinstance(kind, datasets.Image):  # undecoded in the stream, decoded when it is read
                stream = stream.cast_column(column, datasets.Image(decode=False))
                features[column] = datasets.Image()
        table = pa.Table.from_pylist(list(stream.take(count)), schema=features.arrow_schema)
        cached_arrow(file, table.schema, lambda: [table])
    return datasets.Dataset.from_file(str(file))


def _builder(commit: Commit, config: str) -> datasets.DatasetBuilder:
    """Return the builder of a configuration, which reads the library's cache if it is there."""
    if (folder := _cached(commit).get(config)) is not None:
        kept = {"config_name": config, "version": folder.parent.name, "hash": commit.commit}
        return cached_builder(commit.repository, **kept)
    if commit.error is not None:
        raise commit.error
    return datasets.load_dataset_builder(
        commit.repository, config, revision=commit.commit, **no_remote_code()
    )


def _names(commit: Commit, config: str = "") -> list[str]:
    """Return the configurations of a dataset, or with `config` the splits of this one.

    The answers are kept, because the library's cache holds only what was loaded.
    """
    file = cache_dir("splits") / f"{commit.commit}.json"
    answers: dict[str, list[str]] = json.loads(read_cached(file) or "{}")
    if config not in answers:
        if config:
            builder = _builder(commit, config)
            answers[config] = [*map(str, builder.info.splits or builder.config.data_files)]
        elif commit.error is None:
            answers[config] = datasets.get_dataset_config_names(
                commit.repository, revision=commit.commit, **no_remote_code()
            )
        elif cached := _cached(commit):
            return list(cached)
        else:
            raise commit.error
        write_cached(file, json.dumps(answers))
    return answers[config]


def _cached(commit: Commit) -> dict[str, Path]:
    """Return the folders of the library's cache with configurations of a commit."""
    owner = glob.escape(commit.repository.partition("/")[0])
    folders = Path(datasets.config.HF_DATASETS_CACHE).glob(f"{owner}___*/*/*/{commit.commit}")
    return {folder.parts[-3]: folder for folder in folders}


def _parquet_rows(folder: Path, split: str) -> datasets.Dataset:
    by_split = splits_of(folder, ".parquet")
    files = by_split.get(split) or by_split.get("all") or []
    if not files:
        raise UserError(f"{folder} holds no parquet files of the split {split!r}.")

    def read(path: Path) -> pa.Table:
        with open_regular(resolve_inside(folder, str(path))) as file:
            return pq.read_table(file)

    with reading(f"The parquet files in {folder}"):
        table = pa.concat_tables(map(read, files))
        return make_dataset(table, datasets.Features.from_arrow_schema(table.schema))


def _one_of(
    kind: str, named: str | None, names: list[str], preferred: tuple[str, ...], source: HubSource
) -> str:
    """Return the named split or configuration, else the first preferred one or the only one."""
    if named is not None:
        parts = {part.strip() for part in named.split("+")}  # as in `train+test`
        if not parts <= set(names):
            raise UserError(
                f"hf:{source.repository} has no {kind} {named!r}.{did_you_mean(named, names)} It"
                f" has: {', '.join(names)}."
            )
        return named
    chosen = next((name for name in preferred if name in names), None)
    if chosen is None and len(names) != 1:
        raise UserError(
            f"hf:{source.repository} has several {kind}s: {', '.join(names)}. Name one:"
            f" hf:{source.repository}:CONFIG/SPLIT."
        )
    return chosen or names[0]


def _explain(source: HubSource, error: Exception) -> UserError:
    if "script" in str(error).lower():
        return UserError(
            f"hf:{source.repository} is a loading script, which is never run. Look for a copy in"
            " parquet, or name a revision that has one, such as @refs/convert/parquet."
        )
    revision = f" --revision {source.revision}" if source.revision else ""
    named = f" at {source.revision}" if source.revision else ""
    return absent(
        f"hf:{source.repository}{named} is",
        error,
        source.repository,
        "dataset",
        "Fetch it where there is a network with `bench fetch`, or name a copy with --data-dir"
        " FOLDER:\n"
        f"  hf download --repo-type dataset {source.repository}{revision} --local-dir FOLDER",
    )
