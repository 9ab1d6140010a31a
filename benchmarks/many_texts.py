"""Many prompts per class: how soon a run on 1,000 classes × 80 templates starts the second time.

    python benchmarks/many_texts.py [CLASSES] [TEMPLATES]

Writes a tiny CLIP with random weights and 1,000 tiny pictures, and runs `--template-rule mean` on
them three times, in processes of their own: on 20 images, on 40 (which encodes no text again), and
the same run once more. The tokenizer is small, so counting its tokens costs what a real one's does,
but encoding a text does not: what is measured is everything but the network.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.encoders import save_clip

RUN = """
import json, resource, sys, time
begin = time.perf_counter()
import bench.running.lifecycle, datasets, torch, transformers
from bench import hookimpl
from bench.discovery.loading import load_plugins
from bench.running.lifecycle import run
from bench.running.settings import make_config
from bench_plugins.backbones._encoders import Encoder
imported, cpu = time.perf_counter(), time.process_time()
encoded, embed = [], Encoder._embed_texts
def counted(self, texts):
    encoded.append(len(texts))
    return embed(self, texts)
Encoder._embed_texts = counted
class Watch:
    first = None
    @hookimpl
    def sample_scored(self):
        Watch.first = Watch.first or time.perf_counter()
load_plugins().manager.register(Watch())
finished = run(make_config(json.loads(sys.argv[1])))
end = time.perf_counter()
print(json.dumps({
    "import_s": round(imported - begin, 2),
    "first_image_s": Watch.first and round(Watch.first - imported, 2),
    "run_s": round(end - imported, 2),
    "run_cpu_s": round(time.process_time() - cpu, 2),
    "texts_encoded": sum(encoded),
    "images": finished.summary.dataset.n_samples,
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
}))
"""


def main(classes: int = 1000, templates: int = 80) -> None:
    """Make the model and the data, and measure the runs."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for number in range(classes):
            place = folder / "data" / f"thing {number}"
            place.mkdir(parents=True)
            Image.new("RGB", (16, 16), (number % 256, number // 256, 9)).save(place / "1.png")
        config: dict[str, Any] = {"dataset": str(folder / "data"), "backbone": "clip"}
        config |= {"weights": str(save_clip(folder / "clip")), "results": str(folder / "results")}
        config |= {"template": [f"a {{class}} of kind {n}" for n in range(templates)]}
        config["template_rule"] = "mean"
        environment = {**os.environ, "BENCH_CACHE_DIR": str(folder / "cache")}
        for phase, limit in (("first", 20), ("more images", 40), ("the same", 40)):
            given = json.dumps({**config, "limit": limit})
            done = subprocess.run(
                [sys.executable, "-c", RUN, given],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            print(json.dumps({"phase": phase, **json.loads(done.stdout)}), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
