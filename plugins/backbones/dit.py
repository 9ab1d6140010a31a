"""DiT: a transformer that is told one of ImageNet's classes instead of a text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor

from bench.engine.trees import Tree
from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import diffusers_part
from bench_plugins.backbones._folders import PIPELINE_INDEX, Pipeline
from bench_plugins.backbones._latent import LatentDenoiser
from bench_plugins.backbones._texts import TextEncoder

IMAGENET = 1000  # classes, in the order of their WordNet ids


class DiT(LatentDenoiser):
    """DiT-XL/2 and its like. A prompt is a class's name, number or WordNet id, and nothing else."""

    can_linearise = False  # there is nothing between two labels
    linearisation_cost = None  # type: ignore[assignment]  # so it has not this ability

    pipelines = ("DiTPipeline",)
    network_part = diffusers_part("transformer", DiTTransformer2DModel)
    network_classes = ("DiTTransformer2DModel", "Transformer2DModel")  # the second: older files

    @classmethod
    def encoders(cls, weights: Weights, **parameters: Any) -> tuple[TextEncoder, ...]:
        """Return none: it reads no text."""
        return ()

    @classmethod
    def token_counts(cls, weights: Weights, texts: Sequence[str]) -> tuple[list[int], int]:
        """Return one for each text, which stands for one class; refuse what is none of its own."""
        return [1 for _ in labels_of(weights, texts)], 1

    @classmethod
    def example(cls, folder: Pipeline) -> Tree:
        """Return a conditioning of one label, to try the network with."""
        return {"label": torch.zeros(1, dtype=torch.int64)}

    def encode_prompts(self, texts: Sequence[str]) -> Tree:
        """Return labels, int64 [n]."""
        return {"label": torch.tensor(labels_of(self.weights, texts), device=self.device)}

    def encode_null(self) -> Tree:
        """Return the label that stood for no class in training: the one after the last."""
        classes = int(self._folder.empty.config.num_embeds_ada_norm)
        return {"label": torch.tensor([classes], device=self.device)}

    @classmethod
    def inputs(cls, folder: Pipeline, x_t: Tensor, t: Tensor, text: Any) -> dict[str, Any]:
        """Return what the network is called with."""
        # Every block has an embedding of its own, of which only the label is an argument.
        return {"hidden_states": x_t, "timestep": t, "class_labels": text["label"]}

    @classmethod
    def prediction(cls, folder: Pipeline, output: Tensor) -> Tensor:
        """Return the predicted noise, without the variance that is learned beside it."""
        return output[:, : folder.latent_shape[0]]


def labels_of(weights: Weights, texts: Sequence[str]) -> list[int]:
    """Return the label of each text.

    Raises:
        UserError: a text is no class of the model, or of two; it says which.
    """
    count, names = _names(weights)
    chosen: list[int] = []
    for text in texts:
        word = _plain(text)
        labels = {int(word)} if word.isdecimal() else names.get(word, set())
        if len(labels) != 1 or not max(labels) < count:
            which = " and ".join(map(str, sorted(labels))) if len(labels) > 1 else ""
            problem = (
                f"is the name of the classes {which}; write the number"
                if which
                else f"is not one of its {count} classes: it takes their numbers, from 0, and the"
                f" {len(names)} names that are known"
            )
            raise UserError(
                f"The weights {weights.location} are a model of class labels: {text!r:.100}"
                f" {problem}. A dataset with other classes cannot be scored with it."
            )
        chosen += labels
    return chosen


@lru_cache(maxsize=2)
def _names(weights: Weights) -> tuple[int, dict[str, set[int]]]:
    """Return the number of classes, and the labels of each name in the pipeline's index."""
    name = "transformer/config.json"
    count = weights.read(name).get("num_embeds_ada_norm")
    if not isinstance(count, int) or count < 1:
        raise weights.error(name, f"has num_embeds_ada_norm {count!r:.100}; expected classes")
    index = weights.read(PIPELINE_INDEX) if weights.find(PIPELINE_INDEX) else {}
    names_by_label = index.get("id2label") or {}
    if not isinstance(names_by_label, dict):
        raise weights.error(
            PIPELINE_INDEX, "has an id2label that is not an object of names by label"
        )
    labels_by_name: dict[str, set[int]] = {}
    for label, names in names_by_label.items():
        if not str(label).isdecimal() or int(label) >= count or not isinstance(names, str):
            raise weights.error(
                PIPELINE_INDEX, f"names label {label!r:.100}, which is not one of {count}"
            )
        for word in [names, *names.split(",")]:
            labels_by_name.setdefault(_plain(word), set()).add(int(label))
    if count == IMAGENET:
        labels_by_name.update({name: {label} for name, label in _imagenet().items()})
    return count, labels_by_name


def _imagenet() -> dict[str, int]:
    folder = files("bench_plugins.datasets") / "declared"
    return {
        _plain(name): label
        for file in ("imagenet_classes.txt", "imagenet_wnids.txt")
        for label, name in enumerate((folder / file).read_text("utf-8").split("\n")[:IMAGENET])
    }


def _plain(text: str) -> str:
    """Return a name without case, underscores and article."""
    words = text.replace("_", " ").replace("-", " ").lower().split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)
