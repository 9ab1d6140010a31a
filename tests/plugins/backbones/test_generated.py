"""`--fit-split generated`: a classifier learns from images that a diffusion model makes."""

import io
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from diffusers import StableDiffusionPipeline
from helpers.command import bench
from helpers.given import make_folder
from helpers.refusals import refused
from PIL import Image

import bench as toolkit
from bench.running.estimate import make_plan
from bench.running.generated import MADE_AT_ONCE, GeneratedImages, MadeBatch, counted_forwards
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench_plugins.backbones.pipeline_folder import FolderPipeline

WEIGHTS = Path("plugins/bench_plugins/backbones/weights/tiny_digits").absolute()
FEW = "generated:tiny-digits:images=9,steps=2"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def images_of(fit_split: str = FEW, **settings: Any) -> GeneratedImages:
    config = make_config(
        {"dataset": "./two", "backbone": "gaussian", "fit_split": fit_split, **settings}
    )
    make_folder(Path("two"), "zero/0.png", "seven/0.png")
    learned_from = prepare(config).content.learns_from
    assert learned_from is not None and isinstance(learned_from.rows, GeneratedImages)
    return learned_from.rows


def pictures(images: GeneratedImages) -> list[bytes]:
    return [images[place]["image"]["bytes"] for place in range(len(images))]


@pytest.mark.skipif(
    transformers.__version__ < "5",
    reason="transformers 4 alone does not load a text encoder that 5 saved; the toolkit does",
)
def test_images_are_those_of_the_pipelines_own_call() -> None:
    """The first batch, made by diffusers from the folder with the seeds of its requests."""
    images = images_of()
    images.make()
    pipe = StableDiffusionPipeline.from_pretrained(WEIGHTS, torch_dtype=torch.float32)
    requests = images.requests[:MADE_AT_ONCE]
    own_images = pipe(
        ["a photo of a seven"] * MADE_AT_ONCE,
        num_inference_steps=2,
        guidance_scale=3.0,
        generator=[torch.Generator().manual_seed(seed) for _, seed, _ in requests],
    ).images
    for own, stored in zip(own_images, pictures(images), strict=False):
        read = np.asarray(Image.open(io.BytesIO(stored)), np.int64)
        assert np.abs(read - np.asarray(own, np.int64)).max() <= 1  # rounding to 8 bits
    assert [label for _, _, label in images.requests] == [0] * 9 + [1] * 9
    assert len({seed for _, seed, _ in images.requests}) == 18


def test_what_was_interrupted_goes_on_and_a_damaged_batch_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, generate = [], FolderPipeline.generate

    def interrupted(self: Any, texts: Any, *arguments: Any) -> Any:
        calls.append(len(texts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return generate(self, texts, *arguments)

    monkeypatch.setattr(FolderPipeline, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        images_of().make()
    assert images_of().missing == 9
    continued = images_of()
    continued.make()
    assert calls == [8, 1, 8, 8, 1]
    resumed, took = pictures(continued), continued.took
    assert took.images == 18 and took.evaluations == 18 * 2 * 2 and took.seconds > 0
    entry = next((tmp_path / "cache/generated").glob("[0-9a-f]*"))
    entry.write_bytes(entry.read_bytes()[:-7])
    with pytest.warns(UserWarning, match="damaged"):
        assert pictures(images_of()) == resumed
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "other"))
    assert pictures(images_of()) == resumed


SAMPLERS = {
    "DDIMScheduler": 10,
    "EulerDiscreteScheduler": 10,
    "PNDMScheduler": 28,  # as Runge-Kutta steps come first
    "HeunDiscreteScheduler": 18,
    "KDPM2DiscreteScheduler": 18,
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_evaluations_are_what_the_network_is_asked_for_by_the_sampler(
    monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    """Of five steps with guidance; also of images from the cache, and of its early entries."""
    asked, generate = [], FolderPipeline.generate
    forward = diffusers.UNet2DConditionModel.forward

    def sampled(self: Any, *arguments: Any) -> Any:
        scheduler = getattr(diffusers, sampler)
        self.pipe.scheduler = scheduler.from_config(self.whole().scheduler.config)
        monkeypatch.setattr(diffusers.UNet2DConditionModel, "forward", counted)
        images = generate(self, *arguments)
        monkeypatch.setattr(diffusers.UNet2DConditionModel, "forward", forward)
        return images

    def counted(self: Any, sample: Any, *arguments: Any, **keywords: Any) -> Any:
        asked.append(len(sample))
        return forward(self, sample, *arguments, **keywords)

    monkeypatch.setattr(FolderPipeline, "generate", sampled)
    few = FEW.replace("steps=2", "steps=5")
    first = images_of(few)
    first.make()
    pictures(first)
    assert first.took.evaluations == sum(asked) == 18 * SAMPLERS[sampler]
    cached = images_of(few)
    assert cached.missing == 0 and pictures(cached) and cached.took.evaluations == sum(asked)
    with monkeypatch.context() as patched:
        stored = GeneratedImages._stored

        def early(self: GeneratedImages, number: int) -> MadeBatch | None:
            batch = stored(self, number)
            return batch and batch._replace(evaluations=None)

        patched.setattr(GeneratedImages, "_stored", early)
        before, uncounted = sum(asked), images_of(few)
        assert pictures(uncounted) and uncounted.took.evaluations == before
    assert sum(asked) == before + MADE_AT_ONCE * SAMPLERS[sampler]  # one batch is made again


class Distilled(torch.nn.Module):
    """A network that is told the guidance, and asked once a step."""

    def forward(self, hidden_states: Any, guidance: Any = None) -> Any:
        return hidden_states


def test_whatever_is_given_to_a_network_is_counted_by_its_samples() -> None:
    network, rows = Distilled(), torch.zeros(3, 4, 2)
    with counted_forwards(network) as asked:
        network(rows)
        network(hidden_states=rows, guidance=torch.tensor(3.5))
        network([rows[0], rows[1]])  # a list of samples of any size
    network(rows)
    assert asked == [3, 3, 2]
    with counted_forwards(None) as nothing:
        network(rows)
    assert nothing == []


def test_all_that_changes_an_image_is_in_the_fingerprint_and_nothing_else() -> None:
    first = images_of()
    others = [f"{FEW},{more}" for more in ("guidance=2", "seed=1")]
    others += [FEW.replace("images=9", "images=8"), FEW.replace("steps=2", "steps=3")]
    others += [FEW.replace("tiny-digits", "tiny-landuse")]
    fingerprints = [images_of(text).fingerprint for text in others]
    assert len({first.fingerprint, *fingerprints}) == len(others) + 1
    first.make()
    assert images_of().fingerprint == first.fingerprint
    assert images_of(f"{FEW},guidance=3,seed=0").fingerprint == first.fingerprint
    more = images_of(FEW.replace("images=9", "images=16"))
    assert more.missing == 16  # the whole batches are shared


def test_a_run_says_what_it_learned_from_what_that_cost_and_when_it_pays() -> None:
    config: dict[str, Any] = {"dataset": "digits", "backbone": "gaussian", "limit": 10}
    few = FEW.replace("images=9", "images=4")
    planned = make_plan(make_config({**config, "fit_split": few})).generation
    assert planned is not None
    assert (planned.images, planned.images_to_make, planned.evaluations) == (40, 40, 160)
    assert planned.tflop == pytest.approx(160 * 67.9e6 / 1e12, rel=1e-3)
    result = toolkit.run(**config, fit_split=few)
    made = result["fitted"]["generated"]
    assert made["flop"] == 160 * 67.9e6 and made["images"] == 40
    assert result["backbone"]["trained_on"] == "images made by tiny-digits + digits/train"
    race = toolkit.run(dataset="digits", backbone="tiny-digits", limit=10)
    compared = bench("compare", result.results_dir, race.results_dir, "--json").json
    saved = race["cost"]["flop_per_image"]
    assert compared["break_even"]["flop"] == -(-made["flop"] // saved)
    shown = bench("show", result.results_dir).out
    assert "Generated once: 40 images to learn from, 160 evaluations" in shown.replace("\n", " ")
    again = make_plan(make_config({**config, "fit_split": few, "fresh": True})).generation
    assert again is not None and again.images_to_make == again.evaluations == 0


@pytest.mark.parametrize(
    ("fit_split", "message"),
    [
        ("generated:", "the name of a backbone is missing"),
        ("generated:nothing", "Unknown backbone 'nothing'"),
        ("generated:clip-b32", "'clip-b32' cannot generate images"),
        ("generated:sd21", "does not declare how it generates"),
        ("generated:tiny-digits:images", "expected settings such as images=240"),
        ("generated:tiny-digits:images=1,images=2", "each once"),
        ("generated:tiny-digits:templates=x", "expected settings"),
        ("generated:tiny-digits:images=0", "images: Input should be greater than 0"),
        ("generated:tiny-digits:steps=1.5", "steps: Input should be a valid integer"),
        ("generated:tiny-digits:guidance=nan", "guidance: Input should be a finite number"),
        ("generated:tiny-digits:seed=-1", "seed: "),
        ("generated:tiny-digits:size=3", "size: "),
        ("generated", "stabilityai/sdxl-turbo"),  # of a folder, and the weights are not here
    ],
)
def test_refused(fit_split: str, message: str) -> None:
    with refused(message):
        images_of(fit_split, offline=True)
