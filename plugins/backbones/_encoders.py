"""A CLIP, SigLIP or DINOv2, loaded and checked, whose embeddings are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image

from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import build_empty, find_tensors, load
from bench_plugins.backbones._configs import is_whole, read_config
from bench_plugins.backbones._encoder_kinds import CLIP, DINOV2, HERE, NAFLEX, Kind
from bench_plugins.backbones._kept import Kept, image_key, text_key
from bench_plugins.backbones._patches import Patching, read_patching
from bench_plugins.backbones._preprocessing import Preprocessing, read_preprocessing

VERSION = 1  # of what is computed here; raise it when embeddings change
AT_ONCE = 64  # texts

Rows = NDArray[np.float32]


class Encoder:
    """A model's image and text embeddings, each computed once for these weights and kept on disk.

    The network is loaded when one of them is missing.

    Args:
        weights: its folder.
        kind: what is expected there.
        device: where it runs.
        dtype: of the network; embeddings are float32.

    Raises:
        UserError: the folder holds another kind, or its parts are missing or damaged.
    """

    def __init__(self, weights: Weights, kind: Kind, device: str, dtype: str) -> None:
        if kind is NAFLEX and not hasattr(transformers, "Siglip2Model"):
            raise UserError("SigLIP 2 NaFlex needs: pip install 'transformers>=4.49'")
        self.weights, self.kind = weights, kind
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.raw = read_config(weights, HERE, "model_type", (kind.model_type,))
        empty: Any = build_empty(weights, kind.part, self.raw)
        find_tensors(weights, kind.part, empty, self.dtype)
        width = self.dtype.itemsize
        self.size: int = sum(tensor.numel() * width for tensor in empty.parameters())  # bytes
        self.config: Any = empty.config
        self.prepared = self._preprocessing()
        self.tokens = None if kind.tokens is None else kind.tokens(weights, self.config.text_config)
        written = getattr(kind.written, "__name__", "")
        self.kept = Kept(f"{kind.model_type} {written} {VERSION} {weights.fingerprint} {dtype}")

    def _preprocessing(self) -> Preprocessing | Patching:
        if self.kind is NAFLEX:
            return read_patching(self.weights, self.config.vision_config.patch_size)
        if self.kind is DINOV2:  # which interpolates its positions
            return read_preprocessing(self.weights, None)
        side = self.config.vision_config.image_size
        return read_preprocessing(self.weights, side if is_whole(side) else None)

    @property
    def width(self) -> int:
        """The numbers of an embedding."""
        if self.kind is CLIP:
            return int(self.config.projection_dim)
        return int((self.config if self.kind is DINOV2 else self.config.vision_config).hidden_size)

    @property
    def limit(self) -> int:
        """The most tokens of a text."""
        return int(self.config.text_config.max_position_embeddings)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Return each text's tokens, special ones included."""
        assert self.tokens is not None
        written = [self.kind.written(text) for text in texts]
        return [len(ids) for ids in self.tokens(written)["input_ids"]] if written else []

    @cached_property
    def network(self) -> Any:
        """The network, loaded when it is first needed."""
        return load(self.weights, self.kind.part, self.raw, self.dtype, self.device)

    def images(self, images: Sequence[Image.Image]) -> Rows:
        """Return the images' embeddings, float32 [n, D], of length 1."""
        keys = [image_key(image) for image in images]

        def make(places: Sequence[int]) -> Rows:
            return self._embed_images([images[place] for place in places])

        return self.kept.rows(keys, self.width, make)

    def texts(self, texts: Sequence[str]) -> Rows:
        """Return the texts' embeddings, float32 [n, D], of length 1."""
        keys = [text_key(text) for text in texts]

        def make(places: Sequence[int]) -> Rows:
            some = [texts[place] for place in places]
            groups = [some[start : start + AT_ONCE] for start in range(0, len(some), AT_ONCE)]
            return np.concatenate([self._embed_texts(group) for group in groups])

        return self.kept.rows(keys, self.width, make)

    @cached_property
    def scale_and_bias(self) -> tuple[float, float]:
        """What a cosine is multiplied with to make a logit, and what is added."""

        def make(places: Sequence[int]) -> Rows:
            scale = self.network.logit_scale.float().exp().item()
            bias = getattr(self.network, "logit_bias", torch.zeros(1)).float().item()
            return np.array([[scale, bias]], np.float32)

        scale, bias = self.kept.rows([b"scale and bias"], 2, make)[0].tolist()
        return scale, bias

    @torch.inference_mode()
    def _embed_images(self, images: Sequence[Image.Image]) -> Rows:
        given = [torch.from_numpy(array).to(self.device) for array in self.prepared.inputs(images)]
        given[0] = given[0].to(self.dtype)
        if self.kind is DINOV2:
            return _unit(self.network(*given).pooler_output)
        pooled = self.network.vision_model(*given).pooler_output
        return _unit(self.network.visual_projection(pooled) if self.kind is CLIP else pooled)

    @torch.inference_mode()
    def _embed_texts(self, texts: Sequence[str]) -> Rows:
        assert self.tokens is not None
        tokens: Mapping[str, Any] = self.tokens(
            [self.kind.written(text) for text in texts],
            padding="max_length",
            max_length=self.limit,
            truncation=True,
            return_tensors="pt",
        )
        ids = tokens["input_ids"].to(self.device)
        if self.kind is CLIP:
            mask = tokens["attention_mask"].to(self.device)
            pooled = self.network.text_model(input_ids=ids, attention_mask=mask).pooler_output
            return _unit(self.network.text_projection(pooled))
        return _unit(self.network.text_model(input_ids=ids).pooler_output)


def _unit(rows: torch.Tensor) -> Rows:
    values = rows.float()
    return np.asarray((values / values.norm(dim=-1, keepdim=True)).cpu().numpy(), np.float32)
