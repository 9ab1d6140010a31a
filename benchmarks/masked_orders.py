"""A small masked image model of digits, and its accuracy over the number of draws.

    python benchmarks/masked_orders.py [--epochs 60] [--backbone DIR]

An aMUSEd of random weights with 64 tokens per image is trained on scikit-learn's digits, as the
small Janus of `token_prefixes.py` is: the codebook is the k-means of what the untrained encoder
returns for the training images, the text encoder stays as it is, and the network learns to predict
the tokens that aMUSEd's own training would hide, after the prompts of their classes. `--backbone`
keeps the model, for `bench run digits --backbone DIR`.

The full sweep then scores the 360 test images on 1, 2, 5, 10 and 20 draws, with both distributions
of the number of hidden tokens.
"""

from __future__ import annotations

import argparse
import sys
from math import cos, pi
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch
from helpers.masked import CODES, amused
from sklearn.cluster import KMeans

import bench
from bench.inputs.weights import resolve
from bench_plugins.backbones.masked import MASKS, Amused

ROWS, HIDDEN, LAYERS = 8, 48, 3
BATCH, RATE = 32, 2e-3
DRAWS = (1, 2, 5, 10, 20)


def make(folder: Path, epochs: int) -> None:
    """Train a model, and save it in `folder`."""
    data = bench.load_dataset("digits", "train")
    pipe = amused(ROWS, HIDDEN, LAYERS)
    pipe.save_pretrained(folder)
    untrained = Amused(resolve(str(folder)), device="cpu", dtype="float32")
    pictures = list(data["image"])
    vectors = []
    handle = untrained.codebook.quantize.register_forward_pre_hook(
        lambda _, inputs: vectors.append(inputs[0].movedim(1, -1).flatten(0, -2))
    )
    untrained.encode(pictures)
    handle.remove()
    means = KMeans(CODES, n_init=1, random_state=0).fit(torch.cat(vectors).numpy()).cluster_centers_
    for codebook in (untrained.codebook, pipe.vqvae):
        codebook.quantize.embedding.weight.data.copy_(torch.from_numpy(means))
    codes, labels = untrained.encode(pictures).clone(), torch.tensor(data["label"])
    states, pooled = (part.clone() for part in untrained._encoded(bench.prompts("digits")))
    _fit(pipe.transformer, codes, (states[labels], pooled[labels]), untrained, epochs)
    pipe.save_pretrained(folder)


def _fit(
    network: torch.nn.Module,
    codes: torch.Tensor,
    prompts: tuple[torch.Tensor, torch.Tensor],
    told: Amused,
    epochs: int,
) -> None:
    """Train the network on tokens [n, rows, rows] after the encoded prompts of each image."""
    n, tokens = len(codes), ROWS**2
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.05)
    steps, generator = epochs * (n // BATCH), torch.Generator().manual_seed(0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    micro = torch.tensor([[told.side, told.side, 0, 0, told.aesthetic]] * BATCH)
    network.train()
    for epoch in range(epochs):
        order = torch.randperm(n, generator=generator)
        for chosen in order[: n // BATCH * BATCH].view(-1, BATCH):
            hidden = torch.zeros(BATCH, tokens, dtype=torch.bool)
            for row in hidden:
                u = torch.rand((), generator=generator).item()
                count = max(1, round(tokens * cos(pi * u / 2)))
                row[torch.randperm(tokens, generator=generator)[:count]] = True
            hidden = hidden.view(-1, ROWS, ROWS)
            logits = network(
                torch.where(hidden, told.mask_id, codes[chosen]),
                encoder_hidden_states=prompts[0][chosen],
                pooled_text_emb=prompts[1][chosen],
                micro_conds=micro,
            )
            loss = torch.nn.functional.cross_entropy(
                logits.movedim(1, -1)[hidden], codes[chosen][hidden]
            )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: {loss.item():.3f} nats per hidden token", flush=True)
    network.eval()


def report(folder: Path, results: Path) -> None:
    """Print the accuracy on the test images by the number of draws, as a table in Markdown."""
    print("| draws | " + " | ".join(f"`masks={masks}`" for masks in MASKS) + " |\n|--:|--:|--:|")
    for draws in DRAWS:
        cells = []
        for masks in MASKS:
            run = bench.run(
                "digits",
                backbone=f"{folder}/",
                strategy="full",
                params={"draws": draws, "masks": masks},
                results=str(results),
            )
            low, high = run.metrics["accuracy_ci95"]
            cells.append(f"{run.metrics['accuracy']:.1%} ({low:.1%} to {high:.1%})")
        print(f"| {draws} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Train the model, unless it is there, and print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--backbone", type=Path)
    options = parser.parse_args()
    with TemporaryDirectory() as scratch:
        folder = options.backbone or Path(scratch, "masked-digits")
        if not (folder / "model_index.json").exists():
            make(folder, options.epochs)
        report(folder, Path(scratch, "results"))


if __name__ == "__main__":
    main()
