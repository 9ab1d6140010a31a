"""Which images, labels and class names a run reads."""

from collections.abc import Sequence
from pathlib import Path

from bench.contracts.specs import DatasetSpec
from bench.discovery.declared import load_spec
from bench.discovery.loading import load_plugins
from bench.discovery.registry import Registry, SpecT
from bench.errors import UserError
from bench.inputs.data import DataSource, check_data_dir, find_path_reader, find_scheme
from bench.machine.files import path_exists, regular_file
from bench.machine.offline import offline_if_set
from bench.running.settings import RunConfig, passed_to


def is_path(name: str) -> bool:
    """Return whether a name is a path: it has a slash, or is `.` or `..`."""
    return "/" in name or "\\" in name or name in (".", "..")


def registered(registry: Registry[SpecT], name: str) -> SpecT:
    """Return a registered spec; the error for an unknown name hints at a file of that name."""
    try:
        return registry.get(name)
    except UserError as error:
        if path_exists(name):
            raise UserError(
                f"{error}\nTo use the folder or file of that name, write ./{name}"
            ) from None
        raise


DECLARATION = ".toml"


@offline_if_set
def find_dataset(settings: RunConfig) -> DataSource:
    """Return the dataset that the settings name: registered, a URI, a declaration or a folder.

    Raises UserError if the name is unknown or a collection, or the declaration or data invalid.
    """
    name, data_dir, plugins = settings.dataset, settings.data_dir, load_plugins()
    if name.startswith("@"):
        names = plugins.collections.get(name[1:]).datasets
        raise UserError(
            f"{name} is a collection of {len(names)} datasets, but a run takes one of them:"
            f" {', '.join(names)}."
        )
    if (spec := find_scheme(name, plugins.datasets)) is not None:
        return data_source(settings, spec)
    if name.endswith(DECLARATION):
        return data_source(settings, _declared(Path(name)))
    inside = f"dataset{DECLARATION}"
    if is_path(name) and path_exists(name) and regular_file(Path(name), inside) is not None:
        return data_source(settings, _declared(Path(name, inside), in_data=True))
    if is_path(name):
        spec, data_dir = find_path_reader(), name
    else:
        spec = registered(plugins.datasets, name)
    if spec.paths and not data_dir:
        raise UserError(
            f"Dataset {spec.name!r} needs --data-dir FOLDER, or the folder itself as the dataset."
        )
    return data_source(settings, spec, spec.name, data_dir)


def data_source(
    settings: RunConfig, spec: DatasetSpec, name: str | None = None, data_dir: str | None = None
) -> DataSource:
    """Return where a dataset's images are and how they are read.

    `name` and `data_dir` default to the settings' `dataset` and `data_dir`. Raises UserError if the
    dataset lacks an option that was set, or `data_dir` does not fit.
    """
    data_dir = data_dir or settings.data_dir
    check_data_dir(spec, data_dir)
    chosen = passed_to(spec, settings)
    if spec.scheme:
        chosen["source"] = settings.dataset.partition(":")[2]
    words = None if settings.class_names is None else Path(settings.class_names)
    skip, name = settings.skip_unlabelled, name or settings.dataset
    return DataSource(spec, data_dir, chosen, words, skip, name)


def expand_datasets(names: Sequence[str]) -> list[str]:
    """Return the names without duplicates, each collection `@NAME` expanded to its datasets."""
    expanded: list[str] = []
    collections = load_plugins().collections
    for name in names:
        expanded += collections.get(name[1:]).datasets if name.startswith("@") else (name,)
    return list(dict.fromkeys(expanded))


def _declared(file: Path, in_data: bool = False) -> DatasetSpec:
    """Return the dataset that a TOML file declares; `in_data` if the file came with the data."""
    spec = load_spec(file, in_data)
    if spec.name in load_plugins().datasets:
        raise UserError(
            f"{file}: a dataset named {spec.name!r} is already registered. Choose another name, so"
            " that their results are not mixed up."
        )
    return spec
