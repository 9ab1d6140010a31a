"""Make an included backbone, from data to weights and model card.

python studies/tiny-backbones/train.py digits tiny_digits
python studies/tiny-backbones/train.py landuse tiny_landuse --data-dir ~/data/UCMerced_LandUse
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click
import losses
import torch
from data import Settings, load, read_recipe
from datasets import ClassLabel, Dataset
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
from diffusers.utils import make_image_grid
from jinja2 import Template
from networks import TextDenoiser, bake
from phases import Training, encode, reconstruct
from torch import Tensor, nn

import bench
from bench.engine.images import preprocess
from bench.reports.result import RunResult

PER_CLASS = 8  # samples on the model card
CARD = Path(__file__).with_name("card.md.jinja")


def make(recipe: Settings, out: Path, data_dir: str | None = None, test: bool = False) -> None:
    """Train a recipe, and write the pipeline folder `out` with a model card."""
    work = out.with_name(f"{out.name}.training")
    work.mkdir(parents=True, exist_ok=True)
    parts = load(recipe, data_dir)
    training, validation = Training(recipe, parts["train"], work), parts["validation"]
    vae = training.autoencoder()
    views = training.views(vae)
    pixels = preprocess(validation.images, recipe.resolution)
    latents, labels = encode(vae, pixels), validation.labels

    torch.manual_seed(recipe.seed)
    model, on_validation = TextDenoiser(recipe), []
    for number, settings in enumerate([recipe, *recipe.contrasts]):
        training.denoiser(model, views, f"denoiser-{number}", settings)
        texts = model.encode(recipe.captions.prompts)[labels]
        on_validation.append(denoising_loss(model, latents, texts))
    bake(model.unet)
    pipeline = save(vae, model, out)

    prompts = [prompt for prompt in recipe.captions.prompts for _ in range(PER_CLASS)]
    scheduler = DDIMScheduler.from_config(model.scheduler.config, timestep_spacing="trailing")
    sampler = StableDiffusionPipeline(**{**pipeline.components, "scheduler": scheduler})
    options = {"guidance_scale": 2.0, "num_inference_steps": recipe.sample_steps}
    noise = torch.Generator().manual_seed(recipe.seed)
    samples = sampler(prompts, generator=noise, **options).images
    make_image_grid(samples, len(recipe.captions.names), PER_CLASS).save(out / "samples.png")
    judge = training.judge(vae)
    prompted = torch.arange(len(recipe.captions.names)).repeat_interleave(PER_CLASS)
    judged = {
        "real": accuracy(judge, pixels, labels),
        "reconstructed": accuracy(judge, reconstruct(vae, pixels), labels),
        "samples": accuracy(judge, preprocess(samples, recipe.resolution), prompted),
    }
    measured = ["validation", *(["test"] if test else [])]
    runs = {part: decide(recipe, parts[part].rows, out, work) for part in measured}
    shutil.copy(work / "training.jsonl", out)
    values = {"networks": pipeline, "losses": on_validation, "samples": samples, "judged": judged}
    values |= {"recipe": recipe, "parts": parts, "runs": runs}
    card = Template(CARD.read_text("utf-8"), keep_trailing_newline=True)
    (out / "README.md").write_text(card.render(values, constants=vars(losses)), "utf-8")


@torch.no_grad()
def denoising_loss(model: TextDenoiser, latents: Tensor, texts: Tensor) -> float:
    """Return the mean loss of latents under their texts on 25 evenly spread noise levels."""
    generator, loss = torch.Generator().manual_seed(0), 0.0
    for timestep in range(20, 1000, 40):
        noise = torch.randn(latents.shape[1:], generator=generator).expand_as(latents)
        t = torch.full((len(latents),), timestep)
        x_t, target = model.corrupt(latents, noise, t)
        loss += nn.functional.mse_loss(model.unet(x_t, t, texts).sample, target).item() / 25
    return loss


def save(vae: AutoencoderKL, model: TextDenoiser, out: Path) -> StableDiffusionPipeline:
    """Write a Stable Diffusion pipeline folder in half precision, to which weights are rounded."""
    networks = (vae, model.text_encoder, model.tokenizer, model.unet, model.scheduler)
    pipeline = StableDiffusionPipeline(*networks, None, None, requires_safety_checker=False)
    pipeline.to(dtype=torch.float16).save_pretrained(out)
    # vocab.json and merges.txt, for older versions of transformers
    model.tokenizer.backend_tokenizer.model.save(str(out / "tokenizer"))
    return pipeline.to(dtype=torch.float32)


@torch.no_grad()
def accuracy(judge: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    """Return the share of images for which the judge predicts the label."""
    return float((judge(pixels).logits.argmax(1) == labels).float().mean())


def decide(recipe: Settings, rows: Dataset, out: Path, work: Path) -> dict[str, RunResult]:
    """Return the runs of the toolkit on images, by strategy."""
    names = ClassLabel(names=[names[0] for names in recipe.captions.names.values()])
    template = recipe.captions.templates[0].format("{class}")
    options = {"template": template, "plan": recipe.plan, "dtype": "float32"}
    options["results"] = str(work / "results")
    return {
        name: bench.run(rows.cast_column("label", names), f"{out}/", name, params, **options)
        for name, params in recipe.strategies.items()
    }


@click.command()
@click.argument("name", metavar="RECIPE", type=click.Choice(["digits", "landuse"]))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--data-dir", help="A local copy of the dataset, as for `bench run`.")
@click.option("--test", is_flag=True, help="Measure the accuracy on test images too.")
def main(name: str, out: Path, data_dir: str | None, test: bool) -> None:
    """Train the backbone RECIPE, or resume its training, and write its folder OUT with a card."""
    make(read_recipe(name), out, data_dir, test)


if __name__ == "__main__":
    main()
