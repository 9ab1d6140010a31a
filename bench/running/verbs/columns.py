"""Further labels of a run's images from other columns of its dataset."""

from __future__ import annotations

from collections.abc import Sequence

from bench.discovery.loading import load_plugins
from bench.errors import UserError, did_you_mean
from bench.inputs.data import load_split
from bench.inputs.rows import column_values
from bench.running.parts.data import find_dataset
from bench.running.settings import make_config
from bench.store.documents import Manifest


def dataset_columns(manifest: Manifest, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the values of columns of a run's dataset as text, by column and sample id.

    UserError: the data is not here, or it has no such column.
    """
    config = make_config(manifest.config.plain())
    data = find_dataset(config, load_plugins())
    split = load_split(data, manifest.dataset.split)
    of_run, columns = set(manifest.samples), {}
    for name in names:
        if name not in split.rows.column_names or name in ("image", "sample_id"):
            others = [n for n in split.rows.column_names if n not in ("image", "sample_id")]
            raise UserError(
                f"Dataset {manifest.dataset.name!r} has no further column {name!r}."
                f"{did_you_mean(name, others)} It has: {', '.join(others)}."
            )
        values = column_values(split.rows, name)
        pairs = zip(split.sample_ids, values, strict=True)
        columns[name] = {s: "" if v is None else _text(v) for s, v in pairs if s in of_run}
    return columns


def _text(value: object) -> str:
    return "|".join(map(str, value)) if isinstance(value, list) else str(value)
