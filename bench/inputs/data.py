"""Loading a split from a dataset plugin and validating it before scoring."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.contracts.dataset import Listing, Rows
from bench.contracts.specs import FOLDER, DatasetSpec
from bench.discovery.guard import guard
from bench.discovery.loading import load_plugins
from bench.discovery.registry import Registry
from bench.discovery.targets import load_target, make
from bench.errors import AbsentError, PluginError, UserError, did_you_mean, quoted, warn_user
from bench.inputs.class_names import (
    OTHER,
    ClassNames,
    match_classes,
    name_classes,
    parse_class_names,
    read_labels,
)
from bench.inputs.items import (
    ItemTable,
    check_images_differ,
    item_column,
    make_item_ids,
    read_items,
)
from bench.inputs.parsing import check_column, expand_pattern
from bench.inputs.replaced import crop_to_column
from bench.inputs.rows import (
    as_dataset,
    check_rows,
    disable_decoding,
    drop_unlabelled,
    format_group,
    read_column,
)
from bench.inputs.split import Split
from bench.inputs.subsets import hold_out
from bench.machine.files import is_utf8, path_exists
from bench.machine.libraries import datasets
from bench.machine.offline import hub_silence, offline
from bench.machine.stages import stage

DEFAULT_FIT_SPLIT = "train"  # the default split to learn from


@dataclass(frozen=True)
class DataSource:
    """A dataset and the options for reading it."""

    spec: DatasetSpec
    data_dir: str | None = None  # local copy, or the path that was given as the dataset
    parameters: Mapping[str, Any] = field(default_factory=dict)  # parameters of its spec
    class_names: Path | None = None  # file with the class names in words
    skip_unlabelled: bool = False  # drop images without a label instead of raising an error
    name: str | None = None  # in the manifest: the dataset as the user wrote it, or `folder`
    holdout: float | None = None  # share of a split that is scored; the rest is to learn from

    @property
    def slug(self) -> str:
        """Name in run ids.

        A folder or file has its own name, data with a scheme (`hf:OWNER/NAME:CONFIG`) the part
        between the first two colons, and other data the registered name of the dataset.
        """
        if self.spec.scheme:
            source, *_ = str(self.parameters["source"]).split(":")  # it is without its scheme
            return slugify_name(source)
        is_path = self.spec.paths and self.data_dir is not None
        return slugify(str(self.data_dir)) if is_path else self.spec.name

    @property
    def where(self) -> str:
        """Name in messages."""
        spec = self.spec
        return f"The data in {self.data_dir}" if spec.paths else f"Dataset {spec.name!r}"

    @property
    def root(self) -> Path | None:
        """Folder that contains the files of the data; None if only the plugin knows it."""
        place = Path(self.data_dir or self.spec.source or "")
        if not (self.data_dir or place.is_absolute()):
            return None
        return place if place.is_dir() else place.parent

    @property
    def is_file(self) -> bool:
        """Whether the data is one file, which may name others."""
        return Path(self.data_dir or self.spec.source or "").is_file()


def load_split(source: DataSource, split: str | None = None, rows: Rows | None = None) -> Split:
    """Load one split.

    If `rows` are already in memory, the plugin is not called. Raises UserError if the data cannot
    be found, read or scored, and PluginError if the plugin failed or did not return rows.
    """
    spec = source.spec
    if spec.items and source.class_names:
        raise UserError(f"{source.where} has no classes; leave --class-names out.")
    if split is not None and source.holdout is not None:
        split = split.removesuffix(f"-held-{source.holdout:g}")  # as stored runs name it
    is_in_memory = rows is not None
    rows = _call_plugin(source, split) if rows is None else rows
    _check_is_dataset(rows, source, split)
    rows = rows.with_format(None)  # drops transforms, which would run a plugin's code per row
    name = _split_name(spec, split, rows)
    items = None
    if spec.items:
        rows, items = _read_items(rows, source, name)
        classes = items.names
    else:
        rows, classes = _read_images(rows, source, name)
    loaded = Split(
        name=source.slug,
        version=spec.version,
        split=name,
        class_names=classes,
        sample_ids=tuple(read_column(rows, "sample_id")),
        labels=items.answers if items else tuple(read_column(rows, "label")),
        rows=rows,
        items=items,
        border=spec.border,
    )
    if source.holdout is None:
        return loaded
    if not is_in_memory and name != DEFAULT_FIT_SPLIT:
        _check_undivided(source, name)
    return _hold_out(loaded, source.holdout, source.where)


def _split_name(spec: DatasetSpec, split: str | None, rows: Rows) -> str:
    """Return the name of the split in `rows`.

    If the dataset is declared, the name that was asked for wins, since the source may have others;
    of other datasets it is the name that the reader reports.
    """
    requested = split or spec.split
    names = (requested, rows.split) if spec.source else (rows.split, requested)
    return str(names[0] or names[1] or "all")


def _call_plugin(source: DataSource, split: str | None) -> Any:
    spec, data_dir = source.spec, source.data_dir
    split = split or spec.split
    if spec.splits and split is None:
        raise UserError(
            f"Dataset {spec.name!r} has several splits; name one with --split:"
            f" {', '.join(spec.splits)}."
        )
    if spec.splits and split not in spec.splits:
        raise UserError(
            f"Dataset {spec.name!r} has no split {quoted(split)}; it has: {', '.join(spec.splits)}."
        )
    check_data_dir(spec, data_dir)
    # Absolute, so that the paths in the rows do not depend on the working directory.
    folder = str(Path(data_dir).absolute()) if data_dir else None
    if spec.unverified and data_dir is None:
        warn_user(
            f"Dataset {spec.name!r} was declared from its documentation and never loaded."
            f" `bench check-data {spec.name}` reads it once and reports problems."
        )
    with stage(f"Reading {source.slug}"):
        return call_reader(spec, source.parameters, split, folder)


def check_data_dir(spec: DatasetSpec, data_dir: str | None) -> None:
    """Raise UserError if a data folder does not exist or the dataset does not read folders."""
    if data_dir is None:
        return
    can_exist = is_utf8(data_dir) and "\0" not in data_dir
    if can_exist and "{" in data_dir and not path_exists(data_dir):
        expand_pattern(data_dir)  # raises UserError if one of its files does not exist
    elif not can_exist or not path_exists(data_dir):
        raise UserError(f"The data folder {quoted(data_dir)} does not exist.")
    if not spec.takes_data_dir:
        raise UserError(f"Dataset {spec.name!r} reads no folder; leave --data-dir out.")


def _check_is_dataset(rows: Any, source: DataSource, split: str | None) -> None:
    """Refuse what a plugin returned if it is no dataset, or one without rows."""
    columns = "'image' and 'label'"
    if source.spec.items:
        columns = "'image' or 'images', 'texts', and 'label' or 'pairing'"
    if not isinstance(rows, datasets.Dataset):
        raise PluginError(
            source.spec.label,
            f"load() returned a {type(rows).__name__}; expected a datasets.Dataset with the columns"
            f" {columns}",
        )
    if len(rows) == 0:
        split = split or source.spec.split
        of = "" if split is None else f" in split {split!r}"
        raise UserError(f"{source.where} holds no images{of}.")


def _read_images(rows: Any, source: DataSource, split: str) -> tuple[Rows, ClassNames]:
    spec, where, file = source.spec, source.where, source.class_names
    _check_columns(rows, source)
    rows, values, feature = _labels_of_declared(rows, source)
    values, names = _count_from_zero(values, feature, source)
    spellings, indices = read_labels(values, feature, names, where)
    rows, labels = drop_unlabelled(rows, indices, where, source.skip_unlabelled)
    classes = name_classes(spellings, where, declared=spec.classes is not None, file=file)
    if spec.box:
        rows = crop_to_column(rows, spec.box, where)
    columns: dict[str, tuple[Sequence[Any], Any]] = {
        "label": (labels, datasets.ClassLabel(names=list(classes.names)))
    }
    if spec.groups and "group" not in rows.column_names:
        parts = zip(*(_group_values(rows, name) for name in spec.groups), strict=True)
        groups = [format_group(spec, row) for row in parts]
        columns["group"] = (groups, datasets.Value("string"))
    return check_rows(rows, "image", where, source.root, columns, split), classes


def _check_columns(rows: Any, source: DataSource) -> None:
    groups = {name.partition("[")[0] for name in source.spec.groups}
    if (name := item_column({*rows.column_names} - groups)) is not None:
        raise PluginError(
            source.spec.label,
            f"load() returned a column {name!r}, as items have; register it with items=True, or"
            " leave the column out",
        )
    for column in ("image", "label"):
        check_column(column, rows.column_names, source.where)
    if not isinstance(rows.features["image"], datasets.Image):
        holds = f"its column 'image' holds {rows.features['image']}, not images"
        if source.spec.paths:
            raise UserError(f"{source.where}: {holds}.")
        raise PluginError(source.spec.label, f"{holds}; it must be cast with datasets.Image()")


def _labels_of_declared(rows: Rows, source: DataSource) -> tuple[Rows, list[Any], Any]:
    """Return the rows, their labels, and the type of the labels.

    If the dataset is declared with its classes, the labels become indices of these classes, and
    rows of other classes are left out.
    """
    spec = source.spec
    values, feature = read_column(rows, "label"), rows.features["label"]
    place = source.data_dir or str(spec.source)
    if not spec.source or (matched := match_classes(rows, spec, place)) is None:
        return rows, values, feature
    chosen = [row for row, index in enumerate(matched) if index != OTHER]
    rows = rows if len(chosen) == len(matched) else rows.select(chosen)
    return rows, [matched[row] for row in chosen], datasets.ClassLabel(names=spec.classes)


def _count_from_zero(
    labels: list[Any], feature: Any, source: DataSource
) -> tuple[list[Any], tuple[str, ...] | None]:
    """Return labels, and the spellings of all classes if they are known without the labels.

    They are known if the spec has classes, or if labels are numbers and the user's file lists one
    class per number, of which some may have no image. Such numbers count from 1 if the length of
    the list occurs as a label and 0 does not. The labels that are returned count from 0.
    """
    file = source.class_names
    is_numbers = isinstance(feature, datasets.Value) and "int" in feature.dtype
    if source.spec.classes is not None or file is None or not is_numbers:
        return labels, source.spec.classes
    words = parse_class_names(file, set(map(str, labels)))
    if not isinstance(words, list) or not words:  # an empty list is refused with the classes
        return labels, None
    first = 1 if len(words) in labels and 0 not in labels else 0
    shifted = [n if n is None or n < 0 else n - first for n in labels]  # None or -1: no label
    return shifted, tuple(map(str, range(first, first + len(words))))


def _group_values(rows: Rows, name: str) -> list[Any]:
    """Return a column of groups, None if missing; `npy[0]` is the first element of its lists."""
    column, _, place = name.removesuffix("]").partition("[")
    values = read_column(rows, column) if column in rows.column_names else [None] * len(rows)
    if not place:
        return values
    index = int(place)
    return [v[index] if isinstance(v, list) and index < len(v) else None for v in values]


def _read_items(rows: Any, source: DataSource, split: str) -> tuple[Rows, ItemTable]:
    where = source.where
    rows, column = disable_decoding(rows, where)
    ids = make_item_ids(rows, where)
    items = read_items(rows, column, ids, where)
    columns = {"sample_id": (ids, datasets.Value("string"))}
    rows = check_rows(rows, column, where, source.root, columns, split)
    if column == "images":
        check_images_differ(rows, ids, where)
    return rows, items


def _check_undivided(source: DataSource, split: str) -> None:
    """Raise UserError if the data have a split to learn from beside the one that is scored.

    Only the files that a user names are tried: other data might be downloaded for it.
    """
    if DEFAULT_FIT_SPLIT not in source.spec.splits:
        if not source.spec.paths:
            return
        try:
            load_split(replace(source, holdout=None), DEFAULT_FIT_SPLIT)
        except (UserError, PluginError):  # there is none
            return
    raise UserError(
        f"{source.where} has a split {DEFAULT_FIT_SPLIT!r} to learn from, beside {split!r}, which"
        " is scored. Leave --holdout out."
    )


def _hold_out(whole: Split, share: float, where: str) -> Split:
    """Return the part of a split that is scored, which holds the rest to learn from.

    Raises UserError unless every class has images in both.
    """
    groups = whole.group_names
    chosen = hold_out(whole.sample_ids, whole.labels, share, groups)
    held = [place for place, name in enumerate(whole.sample_ids) if name in chosen]
    rest = [place for place, name in enumerate(whole.sample_ids) if name not in chosen]
    n_held, n_rest = (Counter(whole.labels[place] for place in side) for side in (held, rest))
    for label in sorted(n_held.keys() ^ n_rest.keys()):
        n = n_held[label] + n_rest[label]
        has = f"{n} image{'s' * (n != 1)}" + (" in too few groups" if groups and n > 1 else "")
        raise UserError(
            f"{where}: --holdout {share:g} needs images of every class to score and others to learn"
            f" from{', each group on one side' if groups else ''}, but"
            f" {quoted(whole.classes[label])} has {has}."
        )
    learned_from = whole.select(rest, f"{whole.split}-rest-{share:g}")
    return replace(whole.select(held, f"{whole.split}-held-{share:g}"), rest=learned_from)


def explain_missing_data(
    source: DataSource, split: str | None = None, why: str | None = None
) -> str | None:
    """Return why a run could not load the data, or None if it could or this is not known.

    Nothing is downloaded. `why` says why the Hub cannot be asked. If it is None and the data would
    come from the Hub, the Hub is probed, and a silent Hub is the reason.
    """
    try:
        with offline(why or True):
            load_split(source, split)
    except AbsentError as error:  # the data are not on this machine
        if why is not None:
            return str(error)
        if (silence := hub_silence()) is not None:
            return explain_missing_data(source, split, silence)  # for a message with this reason
        # The Hub answers: a run could download the data.
    except UserError as error:
        return str(error)
    except PluginError:  # perhaps because its own download was blocked
        pass
    return None


def load_classes(source: DataSource) -> ClassNames:
    """Return a dataset's classes (UserError if it has none), read only if its spec lacks them."""
    spec = source.spec
    if spec.items:
        raise UserError(f"{source.where} has no classes: every item has texts of its own.")
    if spec.classes is None:
        return load_split(source).class_names
    return name_classes(spec.classes, source.where, declared=True, file=source.class_names)


def call_reader(
    spec: DatasetSpec,
    parameters: Mapping[str, Any],
    split: str | None,
    data_dir: str | None,
    method: str = "load",
) -> Any:
    """Return what a method of a dataset's class returns; a listing as a `datasets.Dataset`."""
    # The target of a spec with a source is `make_declared`, which takes the spec too.
    arguments = [spec] if spec.source else []
    dataset = make(spec, *arguments, **spec.resolve_parameters(parameters))
    with guard(spec.label, f"{method}()"):
        answer = getattr(dataset, method)(split=split, data_dir=data_dir)
        return as_dataset(answer) if isinstance(answer, Listing) else answer


def make_declared(spec: DatasetSpec, **parameters: Any) -> Any:
    """Return the reader of a declared dataset, made by the class that reads paths."""
    return load_target(find_path_reader()).declared(spec, **parameters)


def find_source(source: str) -> tuple[DatasetSpec, str]:
    """Return the dataset that reads a source, and the source without its scheme: `x` for `hf:x`."""
    if (spec := find_scheme(source, load_plugins().datasets)) is not None:
        return spec, source.partition(":")[2]
    return find_path_reader(), source


def find_path_reader() -> DatasetSpec:
    """Return the dataset that reads paths (UserError if there is not exactly one)."""
    readers = [spec for spec in load_plugins().datasets if spec.paths]
    if len(readers) != 1:
        raise UserError(
            "One dataset must read folders and files; those that are registered:"
            f" {', '.join(spec.label for spec in readers) or 'none'}. `bench plugins` shows why."
        )
    return readers[0]


def find_scheme(source: str, registry: Registry[DatasetSpec]) -> DatasetSpec | None:
    """Return the dataset whose scheme, such as `hf:`, a text begins with; None without a scheme.

    Raises UserError if no dataset has this scheme, and the text is not an existing path.
    """
    scheme, colon, _ = source.partition(":")
    if colon and scheme in registry and registry.get(scheme).scheme:
        return registry.get(scheme)
    word = scheme.replace("-", "").replace("_", "")  # a single letter is a drive, as in C:
    if colon and len(word) > 1 and word.isalnum() and not path_exists(source):
        schemes = [spec.name for spec in registry if spec.scheme]
        raise UserError(
            f"Nothing reads {scheme + ':'!r}.{did_you_mean(scheme, schemes)} The schemes:"
            f" {', '.join(f'{name}:' for name in schemes)}."
        )
    return None


def slugify(path: str) -> str:
    """Return the name of a folder or file in the form used in run ids."""
    real = Path(path).resolve()
    return slugify_name(real.stem if real.is_file() else real.name)


def slugify_name(name: str) -> str:
    """Return a name that is no path in the form used in run ids."""
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-") or FOLDER
