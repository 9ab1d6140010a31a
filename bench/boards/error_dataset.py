"""A recorded run as a dataset for others: its errors in few files, with a card.

The folder is that of a run, so every command that takes a run takes it too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.boards.adding import without_paths
from bench.boards.formats import assignments
from bench.boards.text import markdown, visible, yaml_value
from bench.contracts.specs import provenance
from bench.errors import UserError
from bench.machine.files import write_atomically, writing
from bench.recordings.recording import Recording, open_recording
from bench.store.cells import whole_part
from bench.store.draw_table import DRAWS
from bench.store.fields import to_json
from bench.store.folder import MANIFEST, SUMMARY, read_summary
from bench.store.journal import JOURNAL
from bench.store.packed import write_packed

ERROR_CARD = "README.md"
ERROR_FOLDERS = ("errors", "first_order")


def write_error_dataset(run: Path, out: Path) -> list[Path]:
    """Write a recorded run as a dataset in the empty or new folder `out`, and return its files.

    It has a card, the documents of the run, and the errors as parquet; no path of this machine and
    no image. UserError: the run recorded too little, or `out` cannot be written.
    """
    recording = open_recording(run)
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise UserError(f"--out {out} already exists. Name a folder that is empty or new.")
    try:
        with writing(f"--out {out}"):
            out.mkdir(parents=True, exist_ok=True)
            _write(recording, out)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return sorted(path for path in out.rglob("*") if path.is_file())


def _write(recording: Recording, out: Path) -> None:
    ids = [record["sample_id"] for record in recording.records]
    for kind in ERROR_FOLDERS:
        if (recording.path / kind).is_dir():
            write_packed(out / kind, _tables(recording, kind, ids))
    if (recording.path / DRAWS).is_file():
        shutil.copyfile(recording.path / DRAWS, out / DRAWS)
    # Of a run of which some images failed, those that can be replayed.
    manifest = recording.manifest.model_copy(update={"samples": ids})
    content = manifest.plain()
    identity = content.pop("identity")  # what the run is: a replay names it
    write_atomically(out / MANIFEST, to_json({**without_paths(content), "identity": identity}))
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in recording.records)
    write_atomically(out / JOURNAL, "".join(lines))
    summary = read_summary(recording.path)
    if summary is not None and summary.dataset.n_samples == len(ids):
        write_atomically(out / SUMMARY, to_json(without_paths(summary.plain())))
    write_atomically(out / ERROR_CARD, card(recording))


def _tables(recording: Recording, kind: str, ids: list[str]) -> Iterator[tuple[str, Any]]:
    for sample_id in ids:
        table = whole_part(recording.path / kind, sample_id)
        place = table.schema.get_field_index("sample_id")
        if place >= 0:  # a dictionary of one word in each part; in a file, plain text
            table = table.set_column(place, "sample_id", table["sample_id"].cast("string"))
        yield sample_id, table


def card(recording: Recording) -> str:
    """Return the dataset's card."""
    from huggingface_hub import DatasetCardData

    manifest = recording.manifest
    data, backbone, strategy = manifest.dataset, manifest.backbone, manifest.strategy
    scoring = manifest.identity.scoring.plain()
    header = DatasetCardData(
        pretty_name=visible(f"Denoising errors of {backbone.name} on {data.name}/{data.split}"),
        task_categories=["zero-shot-image-classification"],
        tags=["diffusion-classifier", "bench", "denoising-errors"],
        configs=yaml_value(
            [
                {"config_name": "errors", "data_files": "errors/*.parquet", "default": True},
                {"config_name": "samples", "data_files": JOURNAL},
            ]
        ),
    )
    name, trained = markdown(manifest.run_id), markdown(provenance(backbone.trained_on))
    return f"""---
{header.to_yaml()}
---

# Denoising errors of {markdown(backbone.name)} on {markdown(data.name)}/{markdown(data.split)}

Every error that the run {name} measured: one for each image, noise draw and prompt. With it,
strategies of diffusion classification can be compared without the model and without a GPU:

```sh
pip install diffusion-classifier-bench
bench replay hf:OWNER/NAME --strategy race     # or the folder, where it lies on this machine
```

| fact | value |
|---|---|
| images | {len(recording.records):,} of {data.n_total:,} |
| classes | {len(manifest.classes):,} |
| prompts | {len(manifest.prompts):,} |
| draws | {recording.n_draws:,} |
| backbone | {markdown(backbone.name)}, {trained}, {markdown(backbone.dtype)} |
| strategy | {markdown(strategy.name)} {markdown(assignments(strategy.params))} |
| scoring | {markdown(assignments(scoring))} |
| seed | {manifest.identity.seed} |
| recorded | {markdown(manifest.created)} |

| file | content |
|---|---|
| `errors/packed-*.parquet` | `sample_id`, `prompt` (index), `draw`, `timestep`, `error` (float32) |
| `first_order/packed-*.parquet` | likewise, first-order errors, where the run linearised |
| `draws.parquet` | what each draw is: its level, time and weight |
| `samples.jsonl` | what the run decided of each image; `label` is the index of its class |
| `manifest.json` | settings, identity, classes, prompts, versions |

No image is included. The images are those of the dataset, whose licence holds for them.
"""
