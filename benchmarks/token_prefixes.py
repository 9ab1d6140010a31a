"""Racing over prefixes of tokens: what it would save on small autoregressive models, by count.

    python benchmarks/token_prefixes.py [--epochs 30] [--backbones DIR]

The error of a prompt is a sum over the tokens of an image in their order. So a prompt could be
dropped once it is far behind on the first tokens. For the other prompts the network continues from
the keys and values of these tokens, which it keeps. A small Janus and a small Emu3, of 64 tokens
per image, are made of random weights: the codebook is the k-means of what the untrained encoder
returns for the training images of scikit-learn's digits, and the language model is trained to
predict their tokens after their prompts (minutes per model on one core). 150 training images,
stratified, are held out. `--backbones` keeps the models, for `bench run digits --backbone
DIR/janus`.

Each rule has one parameter, of which the held-out images choose the cheapest value that decides at
least 99 % of them as the full likelihood does. The test images then give what it costs, in tokens
of images that are read for prompts, of those of the full likelihood, and how often it decides the
same. The rules look after each row of 8 tokens:

* lag: drop the prompts that are more than so many nats behind the best;
* deviations: drop those that are behind by more than so many standard errors, from the differences
  on single tokens, as if these were independent;
* halving: keep the best half, rounded up, after 8, 16 … tokens, from so many tokens on;
* prefix: score every prompt on so many tokens, and no more.

Racing is kept only if a rule that drops prompts, the same on both models, takes at most half of the
tokens and decides at least 99 % of the test images as the full likelihood does. The numbers were
fixed before the first run; that one rule must serve both models was decided after it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
import torch
from helpers.autoregressive import CODES, emu3, janus, save
from numpy.typing import NDArray
from PIL.Image import Image
from sklearn.cluster import KMeans

import bench
from bench.inputs.subsets import select_subset
from bench.inputs.weights import resolve
from bench.stats.inference.shares import accuracy_interval
from bench_plugins.backbones._token_models import ImageTokens, TokenModel
from bench_plugins.backbones.autoregressive import Autoregressive

SIDE = 8
MAKERS: dict[str, Callable[..., tuple[object, object]]] = {"janus": janus, "emu3": emu3}
SIZES = {"hidden_size": 48, "intermediate_size": 128, "num_hidden_layers": 3}
HELD_OUT, BATCH, RATE = 150, 32, 3e-3
AGREEMENT, LARGEST_COST = 0.99, 0.5  # at which racing is kept

Floats = NDArray[np.float64]
Rule = Callable[[Floats, float], tuple[NDArray[np.int64], Floats]]


def race(
    errors: Floats, behind: Callable[[Floats], NDArray[np.bool_]]
) -> tuple[NDArray[np.int64], Floats]:
    """Return the decisions and the tokens read, [n] each, of errors [n, prompts, tokens].

    `behind` gets the errors of the tokens so far, and returns which prompts are dropped, [n, P].
    """
    alive = np.ones(errors.shape[:2], bool)
    read = np.zeros(len(errors))
    for end in range(SIDE, errors.shape[2] + 1, SIDE):
        read += SIDE * np.where(alive.sum(1) > 1, alive.sum(1), 0)
        scores = np.where(alive, errors[:, :, :end].sum(2), np.inf)
        alive &= ~behind(np.where(alive[:, :, None], errors[:, :, :end], np.inf))
        alive[np.arange(len(alive)), scores.argmin(1)] = True
    return scores.argmin(1), read


def lag(errors: Floats, nats: float) -> tuple[NDArray[np.int64], Floats]:
    """Drop the prompts that are more than `nats` behind the best."""

    def behind(so_far: Floats) -> NDArray[np.bool_]:
        sums = so_far.sum(2)
        return np.asarray(sums > sums.min(1, keepdims=True) + nats)

    return race(errors, behind)


def deviations(errors: Floats, count: float) -> tuple[NDArray[np.int64], Floats]:
    """Drop the prompts that are behind the best by more than `count` standard errors."""

    def behind(so_far: Floats) -> NDArray[np.bool_]:
        sums = so_far.sum(2)
        best = np.take_along_axis(so_far, sums.argmin(1)[:, None, None], 1)
        with np.errstate(invalid="ignore"):
            spread = np.nan_to_num((so_far - best).std(2)) * np.sqrt(so_far.shape[2])
        return np.asarray(sums > sums.min(1, keepdims=True) + count * spread)

    return race(errors, behind)


def halving(errors: Floats, first: float) -> tuple[NDArray[np.int64], Floats]:
    """Keep the best half of the prompts at each look, from `first` tokens on."""

    def behind(so_far: Floats) -> NDArray[np.bool_]:
        sums, tokens = so_far.sum(2), so_far.shape[2]
        if tokens < first:
            return np.zeros(sums.shape, bool)
        kept = (np.isfinite(sums).sum(1, keepdims=True) + 1) // 2
        return np.asarray(sums.argsort(1).argsort(1) >= kept)

    return race(errors, behind)


def prefix(errors: Floats, tokens: float) -> tuple[NDArray[np.int64], Floats]:
    """Score every prompt on the first `tokens`."""
    scores = errors[:, :, : int(tokens)].sum(2)
    return scores.argmin(1), np.full(len(errors), tokens * errors.shape[1])


ROWS = [float(SIDE * row) for row in range(1, SIDE + 1)]
RULES: dict[str, tuple[Rule, Sequence[float]]] = {
    "lag": (lag, np.arange(0.25, 30, 0.25).tolist()),
    "deviations": (deviations, np.arange(0.1, 8, 0.1).tolist()),
    "halving": (halving, ROWS),
    "prefix": (prefix, ROWS),
}


def make(name: str, folder: Path, epochs: int) -> Autoregressive:
    """Train a model, save it in `folder`, and return it as the toolkit loads it."""
    data = bench.load_dataset("digits", "train")
    held_out = {*select_subset(data["sample_id"], data["label"], HELD_OUT)}
    rows = data.select([n for n, i in enumerate(data["sample_id"]) if i not in held_out])
    model, processor = MAKERS[name](SIDE, **SIZES)
    save(model, processor, folder, noise=0.0)
    untrained = _load(folder)
    _fit_codebook(untrained, rows["image"])
    images = _encoded(untrained, rows["image"])
    _fit_language_model(untrained.tokens, images, torch.tensor(rows["label"]), epochs)
    save(untrained.tokens.model, untrained.tokens.processor, folder, noise=0.0)
    return _load(folder)


def _load(folder: Path) -> Autoregressive:
    return Autoregressive(resolve(str(folder)), device="cpu", dtype="float32")


@torch.no_grad()
def _fit_codebook(backbone: Autoregressive, pictures: Sequence[Image]) -> None:
    """Set the codebook to the k-means of what its encoder returns for the images."""
    vectors: list[torch.Tensor] = []
    quantizer = backbone.tokens.model.model.vqmodel.quantize

    def keep(_: object, inputs: tuple[torch.Tensor]) -> None:
        vectors.append(inputs[0].movedim(-3, -1).flatten(0, -2))

    handle = quantizer.register_forward_pre_hook(keep)
    _encoded(backbone, pictures)
    handle.remove()
    means = KMeans(CODES, n_init=1, random_state=0).fit(torch.cat(vectors).numpy()).cluster_centers_
    quantizer.embedding.weight.copy_(torch.from_numpy(means))


@torch.no_grad()
def _encoded(backbone: Autoregressive, pictures: Sequence[Image]) -> ImageTokens:
    """Return the tokens of pictures of one size, with the pictures as their first axis."""
    images = [backbone._encode(picture) for picture in pictures]
    ids, codes = (torch.stack([getattr(i, name) for i in images]) for name in ("ids", "codes"))
    return replace(images[0], ids=ids, codes=codes)


def _losses(tokens: TokenModel, images: ImageTokens, prompts: torch.Tensor) -> torch.Tensor:
    """Return −log p of each token, float32 [n, L], after prompts, int64 [n, T]."""
    embedded = torch.cat([tokens.embed_text(prompts), tokens.embed(images)], dim=1)
    states = tokens.network(inputs_embeds=embedded, use_cache=False).last_hidden_state
    logits = tokens.logits(states[:, prompts.shape[1] - 1 + images.scored])
    return torch.nn.functional.cross_entropy(logits.mT, images.codes, reduction="none")


def _prompts(tokens: TokenModel, images: ImageTokens) -> torch.Tensor:
    """Return the tokens of the default prompt of each class, int64 [classes, T]."""
    return torch.tensor([tokens.prompt(text, images.grid) for text in bench.prompts("digits")])


def _fit_language_model(
    tokens: TokenModel, images: ImageTokens, labels: torch.Tensor, epochs: int
) -> None:
    """Train the language model on the tokens of images after the prompts of their classes."""
    tokens.model.requires_grad_(True)
    tokens.model.model.vqmodel.requires_grad_(False)
    trained = [p for p in tokens.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, RATE, weight_decay=0.05)
    prompts, steps = _prompts(tokens, images), epochs * (len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        order = torch.randperm(len(labels), generator=generator)
        for chosen in order[: len(labels) // BATCH * BATCH].view(-1, BATCH):
            batch = replace(images, ids=images.ids[chosen], codes=images.codes[chosen])
            loss = _losses(tokens, batch, prompts[labels[chosen]]).mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    print(f"loss after {steps} steps: {loss.item():.3f} nats per token", flush=True)


@torch.no_grad()
def token_errors(backbone: Autoregressive, split: str) -> tuple[Floats, NDArray[np.int64]]:
    """Return −log p of each token, [n, classes, L], and the labels of images of a split.

    `held-out` are those of the training split that were held out. The sums over the tokens are
    compared with the errors of the toolkit.
    """
    data = bench.load_dataset("digits", "test" if split == "test" else "train")
    if split == "held-out":
        chosen = {*select_subset(data["sample_id"], data["label"], HELD_OUT)}
        data = data.select([n for n, i in enumerate(data["sample_id"]) if i in chosen])
    pictures, tokens = data["image"], backbone.tokens
    images = _encoded(backbone, pictures)
    prompts = _prompts(tokens, images)
    errors = [_losses(tokens, images, p.expand(len(pictures), -1)) for p in prompts]
    table = torch.stack(errors, dim=1).double().numpy()
    texts = bench.prompts("digits")
    first = backbone.evaluate([pictures[0]] * len(texts), texts, np.zeros(len(texts), np.int64))
    assert np.allclose(table[0].sum(1), first, rtol=1e-4), (table[0].sum(1), first)
    return table, np.array(data["label"])


def report(name: str, backbone: Autoregressive) -> set[str]:
    """Print what each rule saves on a model, and return the rules that are good enough."""
    held_out, _ = token_errors(backbone, "held-out")
    test, labels = token_errors(backbone, "test")
    full = test.sum(2).argmin(1)
    n, whole = len(full), test.shape[1] * test.shape[2]
    print(f"{name}: accuracy on digits/test {_share(int((full == labels).sum()), n)}")
    good: set[str] = set()
    for rule, (decide, values) in RULES.items():
        trials = [(value, *_judged(held_out, decide, value)) for value in values]
        passed = [trial for trial in trials if trial[1] >= AGREEMENT] or trials[-1:]
        value = min(passed, key=lambda trial: trial[2])[0]
        decisions, read = decide(test, value)
        same, cost = int((decisions == full).sum()), float(read.mean() / whole)
        right = int((decisions == labels).sum())
        print(
            f"  {rule} {value:g}: {cost:.1%} of the tokens, decides the same {_share(same, n)},"
            f" accuracy {_share(right, n)}"
        )
        if rule != "prefix" and cost <= LARGEST_COST and same / n >= AGREEMENT:
            good.add(rule)
    return good


def _judged(errors: Floats, decide: Rule, value: float) -> tuple[float, float]:
    """Return how often a rule decides as the full likelihood does, and its tokens per image."""
    decisions, read = decide(errors, value)
    return float((decisions == errors.sum(2).argmin(1)).mean()), float(read.mean())


def _share(count: int, n: int) -> str:
    low, high = accuracy_interval(count, n)
    return f"{count / n:.1%} ({low:.1%} to {high:.1%}, n = {n})"


def main() -> None:
    """Train the models, and print what racing would save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--backbones", type=Path, help="folder in which the models are kept")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        root = options.backbones or Path(temporary)
        models = {name: make(name, root / name, options.epochs) for name in MAKERS}
        good = set.intersection(*(report(name, model) for name, model in models.items()))
    print(f"Good enough on both models: {', '.join(sorted(good)) or 'no rule'}.")


if __name__ == "__main__":
    main()
