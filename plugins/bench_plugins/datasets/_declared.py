"""Datasets that are declared by their source and loaded by the reader for that kind of source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.contracts.parameters import Parameters
from bench.contracts.specs import DatasetSpec
from bench.discovery.declaration_checks import DOWNLOAD
from bench.errors import UserError
from bench.inputs.data import call_reader, find_path_reader, find_source
from bench.inputs.labels import match_classes
from bench.machine.files import path_exists, resolve_inside
from bench_plugins.datasets._downloads import load_items, read_list, read_table


class Declared:
    """Reader of a declared dataset. Columns named by the user replace declared ones."""

    def __init__(self, spec: DatasetSpec, **parameters: Any) -> None:
        self.spec = spec
        declared = {f"{kind}_column": name for kind, name in spec.columns.items()}
        named = {name: value for name, value in parameters.items() if value is not None}
        self.parameters = {**declared, **named}

    def load(self, split: str | None, data_dir: str | None) -> Any:
        """Return a split of the source, or of a local copy.

        Raises UserError if the data is missing.
        """
        spec, layout = self.spec, self.spec.layout
        if data_dir is None and spec.source == DOWNLOAD:
            raise UserError(
                f"Dataset {spec.name!r} is read from its original download: download it from"
                f" {spec.homepage or 'its homepage'} and name its folder with --data-dir."
            )
        source_split = None if split is None else spec.split_names.get(split, split)
        if spec.items and data_dir is not None and {"file", "files"} & set(spec.item):
            return load_items(spec, data_dir)
        if spec.items:
            reader, source = find_source(str(spec.source))
            table = call_reader(reader, {"source": source}, source_split, data_dir, "load_table")
            return load_items(spec, data_dir, table)
        if data_dir is None:
            reader, source = find_source(str(spec.source))
            parameters = self._parameters_for(reader)
            if reader.scheme:
                return call_reader(reader, {**parameters, "source": source}, source_split, None)
            if not path_exists(source) and "{" not in source:
                raise UserError(
                    f"Dataset {spec.name!r}: its source {source} does not exist. Name another copy"
                    " with --data-dir."
                )
            return call_reader(reader, parameters, source_split, source)
        folder = Path(data_dir)
        if (file := layout.get("lists", {}).get(str(split))) and _has_file(folder, file):
            return read_list(folder, str(split), spec)
        if "table" in layout and _has_file(folder, layout["table"]):
            return read_table(folder, str(split), spec)
        if "reader" in layout and _has_file(folder, layout["marker"]):
            reader, source = find_source(layout["reader"])
            source_split = None if split is None else layout.get("splits", {}).get(split, split)
            return call_reader(reader, {"source": source}, source_split, data_dir)
        root = layout.get("root", "")
        reader = find_path_reader()
        place = folder / root if _has_file(folder, root) and (folder / root).is_dir() else folder
        chosen = self._split_of(place, split, source_split)
        try:
            return call_reader(reader, self._parameters_for(reader), chosen, str(place))
        except UserError:
            if chosen is not None:  # another dataset? Then its classes make a better message
                rows = call_reader(reader, self._parameters_for(reader), None, str(place))
                match_classes(rows, spec, data_dir)
            raise

    def _split_of(self, place: Path, split: str | None, source_split: str | None) -> str | None:
        """Return the split to request from a copy: its own name, ours, or None for all images."""
        if split is None:
            return None
        folders = [folder for folder in (place, place / "data") if folder.is_dir()]
        names = [path.name for folder in folders for path in folder.iterdir()]
        for name in filter(None, (source_split, split)):
            if any(other.startswith(name) for other in names):
                return name
        return split if len(self.spec.splits) > 1 else None

    def _parameters_for(self, reader: DatasetSpec) -> Parameters:
        box = [self.spec.box] if self.spec.box else []
        columns = dict.fromkeys((*self.parameters.get("keep", ()), *self.spec.groups, *box))
        parameters = {**self.parameters, "keep": tuple(columns)}
        return {name: value for name, value in parameters.items() if name in reader.parameters}


def _has_file(folder: Path, name: str) -> bool:
    """Return whether a file or folder exists; raise an error if it lies outside `folder`."""
    return resolve_inside(folder, name).exists()
