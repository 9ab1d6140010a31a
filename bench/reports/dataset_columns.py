"""Read further labels of a run's images from other columns of its dataset."""

from collections.abc import Sequence
from dataclasses import replace

from bench.contracts.dataset import Rows
from bench.errors import UserError, did_you_mean, refusing
from bench.inputs.data import DataSource, load_split
from bench.inputs.pixels import PixelsError, decode
from bench.inputs.rows import find_stored_rows, read_column, resolve_paths
from bench.inputs.survey import hash_image, stored_images
from bench.machine.libraries import datasets, pa
from bench.running.parts.data import find_dataset
from bench.running.parts.settings import data_config
from bench.store.formats.documents import Manifest

STANDARD_COLUMNS = ("image", "sample_id")


def dataset_columns(manifest: Manifest, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return columns of a run's dataset as text: column → sample id → value (UserError).

    Class indices become class names, lists are joined by |, and missing values are empty. Images,
    such as masks, are decoded and represented by the first 16 hex digits of their SHA-256.
    """
    data = find_dataset(data_config(manifest.config))
    split = load_split(data, manifest.dataset.split)
    if split.fingerprint != manifest.identity.dataset.fingerprint:
        raise UserError(
            f"{data.where} has changed since {manifest.run_id} was made: its labels belong to other"
            " images. Run it again, or add the labels from a CSV file with the column sample_id."
        )
    missing = tuple(n for n in names if n not in (*split.rows.column_names, *STANDARD_COLUMNS))
    if missing and "keep" in data.spec.parameters:  # the dataset drops other columns by default
        keeping = replace(data, parameters={**data.parameters, "keep": missing})
        split = load_split(keeping, manifest.dataset.split)
    of_run, columns = set(manifest.samples), {}
    for name in names:
        if name not in split.rows.column_names or name in STANDARD_COLUMNS:
            others = [n for n in split.rows.column_names if n not in STANDARD_COLUMNS]
            raise UserError(
                f"Dataset {manifest.dataset.name!r} has no further column {name!r}."
                f"{did_you_mean(name, others)} It has: {', '.join(others)}."
            )
        pairs = zip(split.sample_ids, _texts(split.rows, name, data), strict=True)
        columns[name] = {sample: text for sample, text in pairs if sample in of_run}
    return columns


def _texts(rows: Rows, name: str, data: DataSource) -> list[str]:
    """Return the values of a column as text, one per row (UserError)."""
    table, places = find_stored_rows(rows)
    kind = table.schema.field(name).type
    if not (pa.types.is_struct(kind) or pa.types.is_binary(kind)):
        label = rows.features[name]
        names = label.names if isinstance(label, datasets.ClassLabel) else None
        return [_text(value, names) for value in read_column(rows, name)]
    feature = datasets.Image()
    try:
        chunks = [feature.cast_storage(chunk) for chunk in table.column(name).chunks]
    except (pa.ArrowException, TypeError, ValueError, KeyError):
        raise UserError(f"The column {name!r} holds {kind}; expected labels or images.") from None
    images = resolve_paths(pa.chunked_array(chunks, feature.pa_type), data.root, data.where)
    stored = list(stored_images(images))
    texts = []
    for row in places:
        if (image := stored[row]) is None or (image["bytes"] is None and image["path"] is None):
            texts.append("")
            continue
        with refusing(f"The column {name!r}, row {row}: ", PixelsError):
            decode(image)
        texts.append(hash_image(image)[:16])
    return texts


def _text(value: object, names: Sequence[str] | None) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and names is not None:
        return names[value] if value >= 0 else ""
    return "|".join(map(str, value)) if isinstance(value, list) else str(value)
