"""Which images, labels and class names a run reads."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from bench.contracts.backbone import Likelihood
from bench.contracts.specs import DatasetSpec
from bench.discovery.declared import load_spec
from bench.discovery.loading import load_plugins
from bench.discovery.registry import Registry, SpecT
from bench.errors import UserError
from bench.inputs.data import DataSource, check_data_dir, find_path_reader, find_scheme
from bench.inputs.split import Split
from bench.inputs.subsets import Shard, parse_shard
from bench.machine.files import path_exists, regular_file
from bench.machine.offline import offline_if_set
from bench.running.parts.declaration import (
    DENOISERS,
    Chapter,
    NameOrPath,
    Parsed,
    Text,
    passed_to,
    setting,
)
from bench.store.formats.fields import without_none
from bench.store.formats.identity import DataIdentity

Fit = Literal["crop", "squash"]
_of_rows = partial(setting, "data", identity="content", passed_to="dataset")


def _corruption(text: str) -> str | None:
    from bench.inputs.corruptions import parse_corruption  # here: it imports PIL

    return parse_corruption(text)


class DataSettings(Chapter):
    """What is scored."""

    dataset: NameOrPath = setting("data", "prompts", default=..., identity="content")
    """A registered dataset, a folder or file of images, a declaration (.toml), or a URI such as
    hf:owner/name."""
    split: Text | None = setting("data", identity="resolved", most_used=True)
    """The split to evaluate (default: the dataset's)."""
    data_dir: Text | None = setting("data", identity="content", commands="study", most_used=True)
    """A local copy of the dataset."""
    limit: int | None = setting(
        "images", of_split=True, commands="study", most_used=True, gt=0, lt=2**63
    )
    """Score only N images: a stratified sample, the same every time."""
    holdout: float | None = setting(
        "data",
        identity="resolved",
        of_split=True,
        of_classes=True,
        excludes={"fit_split": "what is not held out is learned from"},
        gt=0,
        lt=1,
    )
    """Score this share of the images, such as 0.5, the same with every backbone; one that learns is
    fitted on the others. Stratified by class, and images of a group stay together."""
    labels: Text | None = _of_rows("prompts")
    """A CSV or JSONL file that maps image files to labels, for a folder of images."""
    image_column: Text | None = _of_rows()
    """The column of the images, if a file has several (default: image)."""
    label_column: Text | None = _of_rows("prompts")
    """The column of the labels, if a file has several (default: label)."""
    id_column: Text | None = _of_rows()
    """The column with the sample ids (default: sample_id)."""
    class_names: Text | None = setting("data", "prompts", identity="content", of_classes=True)
    """A file with readable class names: JSON or CSV (name, words), or one name per line in class
    order."""
    skip_unlabelled: bool = setting("data", default=False, of_classes=True)
    """Skip images without a label instead of rejecting the dataset."""
    shard: Annotated[Shard, Parsed(parse_shard)] | None = setting(
        "one run",
        excludes={
            "slurm": "the script sets the shards itself",
            "memory": "other processes cannot load it. Save a pipeline with"
            " pipe.save_pretrained(FOLDER) and name the folder",
        },
    )
    """Score only part I of N, such as 3/16, into a separate folder; `bench results merge` joins the
    parts into one run."""
    fit: Fit = setting("images", default="crop", scorers=DENOISERS, identity="scoring")
    """How a non-square image is made square: crop (its centre), or squash (the whole image, with
    its aspect ratio changed)."""
    control: Literal["grey", "noise", "shuffled-images", "text-only"] | None = setting(
        "images", identity="run", methods={"text-only": Likelihood.prior}, of_split=True
    )
    """A blind control: replace every image with grey, noise or another sample's image
    (shuffled-images), or score the texts without an image (text-only), if the backbone can."""
    corrupt: Annotated[Text, AfterValidator(_corruption)] | None = setting(
        "images", identity="run", of_split=True
    )
    """Corrupt the images as ImageNet-C does, NAME:SEVERITY: one of its fifteen corruptions, such as
    fog or gaussian-noise, with a severity from 1 to 5."""


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
def find_dataset(settings: DataSettings) -> DataSource:
    """Return the dataset that the settings name: registered, a URI, a declaration or a folder."""
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
    settings: DataSettings, spec: DatasetSpec, name: str | None = None, data_dir: str | None = None
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
    return DataSource(spec, data_dir, chosen, words, skip, name, settings.holdout)


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


def data_identity(spec: DatasetSpec, split: Split) -> DataIdentity:
    """Return the entry of the identity for the images."""
    return DataIdentity(
        name=spec.name,
        version=split.version,
        split=split.split,
        fingerprint=split.fingerprint,
        **without_none(decoding=split.decoding),
    )
