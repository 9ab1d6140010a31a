"""Pages about pipelines, README among them: their Python runs where what it names lies."""

import re
import shlex
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from helpers.command import bench as command
from helpers.loras import save_lora
from helpers.pipelines import save_pipeline
from helpers.places import ROOT
from PIL import Image
from safetensors.torch import save_file

PAGES = ("docs/tutorials/pipeline.md", "README.md")
BLOCKS = [
    (page, place)
    for page in PAGES
    for place in range(len(re.findall(r"^```python$", (ROOT / page).read_text(), re.M)))
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, a pipeline, an autoencoder, a LoRA and an embedding."""
    root = tmp_path_factory.mktemp("pages")
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(save_pipeline(root / "my-pipeline"))
    pipe.vae.save_pretrained(root / "my-vae")
    save_lora(pipe, root / "my-lora")
    for name, grey in (("dark", 40), ("light", 200)):
        (root / "my-images" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), (grey, grey, grey)).save(root / "my-images" / name / "1.png")
    save_file({"<mine>": torch.ones(48)}, root / "my-embedding.safetensors")
    return root


@pytest.mark.long
@pytest.mark.parametrize(("page", "number"), BLOCKS)
def test_the_python_of_a_page_runs(
    page: str, number: int, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    text = (ROOT / page).read_text()
    code = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)[number]
    names: dict[str, Any] = {}
    exec(compile(code, page, "exec"), names)
    if (page, number) == (PAGES[0], 0):
        board = names["bench"].leaderboard("results")
        assert list(board["in_memory"]) == ["StableDiffusionPipeline"]
        lines = [line for line in code.splitlines() if line.strip()]
        assert len(lines) <= 10
        done = command(*shlex.split(
            "run digits --backbone ./my-pipeline --lora ./my-lora:0.8 --strategy full"
            " --set draws=8 --limit 10 --json"
        ))  # fmt: skip
        assert done.json["metrics"]["accuracy"] == names["run"].metrics.accuracy
