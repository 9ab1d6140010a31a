"""What every source of data gives is frozen: ids, labels, fingerprints and run ids.

Runs of the same images are resumed, compared and ranked by these. `frozen.json` is what the first
readers gave; whoever changes a reader changes none of it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers.data_sources import SOURCES
from helpers.given import spec_of

from bench.running.parts.settings import make_config
from bench.running.prepare import Preloaded, prepare

pytestmark = pytest.mark.filterwarnings("ignore::bench.errors.BenchWarning")
FROZEN = json.loads(Path(__file__).with_name("frozen.json").read_text("utf-8"))
PARTS = {
    "splits": "train",
    "parquet_of_texts": "train",
    "tars_of_numbers": "train",
    "tables_of_splits": "train",
    "land": "train",
}


def describe(name: str, root: Path) -> Iterator[tuple[str, Any]]:
    """Yield what a run is known by: of its default split, and perhaps of another one."""
    made = SOURCES[name](root)
    for split in filter(lambda part: part != "", (None, PARTS.get(name, ""))):
        if isinstance(made, datasets.Dataset):
            config, spec = make_config({"dataset": "given", "backbone": "random"}), spec_of(made)
        else:
            config = make_config({"backbone": "random", **made, "split": split})
            spec = None
        prepared = prepare(config, Preloaded(spec))
        data = prepared.split
        assert data is not None
        samples = list(data.samples(data.sample_ids))
        yield (
            str(split or "default"),
            {
                "run": prepared.manifest.run_id,
                "split": data.split,
                "fingerprint": data.fingerprint,
                "decoding": data.decoding,
                "ids": list(data.sample_ids)[:6],
                "labels": list(data.labels)[:6],
                "groups": [sample.group for sample in samples][:6],
                "classes": list(data.classes)[:6],
                "spellings": list(data.class_names.spellings)[:6],
                "hash": data.hash_sample(data.sample_ids[0]),
            },
        )


@pytest.mark.parametrize("name", SOURCES)
def test_the_same_images_give_the_same_run(name: str, tmp_path: Path) -> None:
    if name.startswith("torchvision"):
        pytest.importorskip("torchvision")
    assert dict(describe(name, tmp_path)) == FROZEN["sources"][name]
