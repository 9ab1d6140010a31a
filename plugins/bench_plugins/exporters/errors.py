"""Export a recorded run as a dataset: its errors in a few parquet files, with a dataset card.

The exported folder has the layout of a run, so every command that reads a run reads it as well. A
Croissant 1.0 file (MLCommons) describes its columns to other tools.
"""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.contracts.exporters import Exporter
from bench.contracts.specs import provenance
from bench.errors import UserError
from bench.inputs.parsing import parse_json
from bench.machine.stages import counted
from bench.reports.facts import assignments
from bench.reports.leaderboard.adding import json_lines, strip_paths
from bench.reports.run_view import RunView
from bench.reports.text import escape_hidden, escape_markdown, escape_yaml
from bench.store.folder import MANIFEST
from bench.store.formats.cells import ERROR_FOLDERS, read_draws, read_part_table, write_draws
from bench.store.formats.documents import Manifest
from bench.store.formats.fields import to_json
from bench.store.formats.identity import run_id
from bench.store.formats.journal import JOURNAL
from bench.store.formats.packed import write_packed
from bench.store.summary import SUMMARY

Errors = NDArray[np.float32]


class ErrorDataset(Exporter):
    """Every recorded error as a dataset for others to replay, with a card and a Croissant file.

    It has no image, and no absolute path of this machine.

    Args:
        licence: licence of the errors, as SPDX id such as CC-BY-4.0.
        bits: round errors to 2^-bits of their draw's standard deviation over the prompts, 4 to 16;
            the folder has a run id of its own. By default they are exact.
    """

    spec: ClassVar[dict[str, Any]] = {"name": "errors", "repository": "dataset", "several": True}

    def __init__(self, licence: str | None = None, bits: int | None = None) -> None:
        if bits is not None and not 4 <= bits <= 16:
            raise ValueError(f"bits must be from 4 to 16, got {bits}")
        self._licence, self._bits = licence, bits

    def write(self, run: RunView, folder: Path) -> None:
        """Write the dataset; UserError if the run has no errors, or only those of some classes."""
        recording, bits = run.recording(), self._bits
        if bits and (run.path / "first_order").is_dir():
            raise UserError(
                "bits: the run also recorded first-order errors, which cannot be rounded."
            )
        sample_ids = [record["sample_id"] for record in recording.records]
        for kind in ERROR_FOLDERS:
            if (run.path / kind).is_dir():
                write_packed(folder / kind, _tables(run.path / kind, sample_ids, bits))
        if (draws := read_draws(run.path)) is not None:
            write_draws(folder, draws)
        # Images of the run that failed are left out, because they cannot be replayed.
        manifest = recording.manifest.model_copy(update={"samples": sample_ids})
        if bits is not None:
            manifest = _rounded_manifest(manifest, bits)
        content = manifest.plain()
        identity = content.pop("identity")  # unchanged, because a replay refers to it
        contents = {
            MANIFEST: to_json({**strip_paths(content), "identity": identity}),
            JOURNAL: json_lines(recording.records),
        }
        # The summary is that of the exact errors.
        summary = None if bits else run.stored.summary
        if summary is not None and summary.dataset.n_samples == len(sample_ids):
            contents[SUMMARY.name] = to_json(strip_paths(summary.plain()))
        schema = read_part_table(folder / "errors", sample_ids[0]).schema
        described = croissant(
            manifest.run_id,
            f"{_title(manifest)}: one error per image, noise draw and prompt. No image is"
            " included.",
            self._licence,
            manifest.created,
            errors={field.name: str(field.type) for field in schema},
        )
        contents["croissant.json"] = to_json(described)
        contents["README.md"] = make_card(manifest, recording.n_draws, self._licence)
        for name, text in contents.items():
            (folder / name).write_text(text, "utf-8")


def _rounded_manifest(manifest: Manifest, bits: int) -> Manifest:
    """Return the manifest of the rounded recording, which has its own identity and run id."""
    scoring = manifest.identity.scoring.model_copy(update={"error_bits": bits})
    identity = manifest.identity.model_copy(update={"scoring": scoring})
    names = (manifest.dataset.name, manifest.backbone.name, manifest.strategy.name)
    return manifest.model_copy(update={"identity": identity, "run_id": run_id(*names, identity)})


def _tables(folder: Path, sample_ids: list[str], bits: int | None) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa

    for sample_id in counted(sample_ids, f"Packing {folder.name}", len(sample_ids)):
        table = read_part_table(folder, sample_id)
        column = table.schema.get_field_index("sample_id")
        if column >= 0:  # dictionary-encoded in the parts of a run, plain text in the export
            table = table.set_column(column, "sample_id", table["sample_id"].cast("string"))
        if bits is not None:
            errors = round_errors(table["error"].to_numpy(), table["draw"].to_numpy(), bits)
            column = table.schema.get_field_index("error")
            table = table.set_column(column, "error", pa.array(errors))
        yield sample_id, table


def round_errors(errors: Errors, draws: NDArray[np.int32], bits: int) -> Errors:
    """Round errors to multiples of about 2^-bits of their draw's spread, so that they compress.

    Decisions depend on the differences between prompts on one draw. The spread is therefore the
    standard deviation over the prompts of a draw, and the step is 2^-bits times the largest power
    of two that does not exceed it. `draws` are those of the cells, int32 [cells]. A draw without
    spread keeps its errors.
    """
    _, draw = np.unique(draws, return_inverse=True)
    exact, count = errors.astype(np.float64), np.bincount(draw)
    centred = exact - (np.bincount(draw, exact) / count)[draw]
    spread = np.sqrt(np.bincount(draw, centred**2) / count)
    exponent = np.floor(np.log2(np.where(spread > 0, spread, 1.0))) - bits
    # 2^-149 is the smallest positive float32, so that this step changes nothing.
    step = np.where(spread > 0, 2.0**exponent, 2.0**-149)[draw]
    return np.asarray(np.round(exact / step) * step, np.float32)


def _title(manifest: Manifest) -> str:
    data, backbone = manifest.dataset, manifest.backbone.name
    return escape_hidden(f"Denoising errors of {backbone} on {data.name}/{data.split}")


def make_card(manifest: Manifest, n_draws: int, licence: str | None) -> str:
    """Return the dataset card as Markdown; `manifest` is the exported one, on `n_draws` draws."""
    from huggingface_hub import DatasetCardData

    data, backbone, strategy = manifest.dataset, manifest.backbone, manifest.strategy
    scoring, bits = manifest.identity.scoring.plain(), manifest.identity.scoring.error_bits
    spread = "a draw's standard deviation over the prompts"
    header = DatasetCardData(
        pretty_name=_title(manifest),
        license=licence and licence.lower(),
        task_categories=["zero-shot-image-classification"],
        tags=["diffusion-classifier", "bench", "denoising-errors"],
        configs=escape_yaml(
            [
                {"config_name": "errors", "data_files": "errors/*.parquet", "default": True},
                {"config_name": "samples", "data_files": JOURNAL},
            ]
        ),
    )
    facts = {
        "title": _title(manifest),
        "run": manifest.run_id,
        "images": f"{len(manifest.samples):,} of {data.n_total:,}",
        "backbone": f"{backbone.name}, {provenance(backbone.trained_on)}, {backbone.dtype}",
        "strategy": f"{strategy.name} {assignments(strategy.params)}",
        "scoring": assignments(scoring),
        "recorded": manifest.created,
        "licence": licence or "not stated",
    }
    card = (files(__package__) / "card.md").read_text("utf-8")
    return card.format(
        header=header.to_yaml(),
        classes=len(manifest.classes),
        prompts=len(manifest.prompts),
        draws=n_draws,
        seed=manifest.identity.seed,
        precision="exact" if bits is None else f"rounded to about 1/{2**bits:,} of {spread}",
        **{name: escape_markdown(fact) for name, fact in facts.items()},
    )


# Type in parquet → type in schema.org.
_TYPES = dict.fromkeys(("float", "double"), "sc:Float") | {"string": "sc:Text"}
_TYPES |= dict.fromkeys(("int32", "int64"), "sc:Integer")


def croissant(
    name: str, description: str, licence: str | None, created: str, errors: Mapping[str, str]
) -> dict[str, object]:
    """Return the Croissant description of an error dataset, as JSON-LD.

    `errors` maps columns of `errors/*.parquet` to their types; `created` is in ISO 8601.
    """
    content: dict[str, Any] = parse_json((files(__package__) / "croissant.json").read_bytes())
    content |= {"name": name, "description": description, "datePublished": created}
    content["recordSet"][0]["field"] = [
        {
            "@type": "cr:Field",
            "@id": f"errors/{column}",
            "name": column,
            "dataType": _TYPES[kind],
            "source": {"fileSet": {"@id": "errors-files"}, "extract": {"column": column}},
        }
        for column, kind in errors.items()
    ]
    return content | ({"license": f"https://spdx.org/licenses/{licence}"} if licence else {})
