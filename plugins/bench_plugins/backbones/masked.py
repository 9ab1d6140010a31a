"""Masked image models, such as aMUSEd, as likelihoods.

The model's own codebook turns an image into D tokens. A draw hides m of these. The error of a
prompt is the mean cross-entropy, in nats, with which the model predicts the hidden tokens from the
others. With `masks=elbo`, m is uniform on 1 … D: D times the expected error is then the mean of
−log p over all orders of the tokens, which bounds −log p of the image (Uria et al., 2014; Hoogeboom
et al., 2022). With `masks=training`, m is D·cos(πu/2), u uniform, as aMUSEd was trained.
"""

from collections.abc import Sequence
from functools import cached_property
from math import cos, pi
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from bench.contracts.backbone import Likelihood
from bench.engine.images import preprocess
from bench.errors import UserError
from bench.inputs.draws import MAX_DRAWS
from bench.inputs.weights import Weights
from bench_plugins.backbones._weights.checkpoint import check_headers, load_model, named_weights
from bench_plugins.backbones._weights.components import (
    SCHEDULER_CONFIG,
    TORCH_DTYPES,
    build_on_meta,
    cast,
    read_index,
    tokenizer_of,
)
from bench_plugins.backbones._weights.counting import counted_operations, size

Ints = NDArray[np.int64]

PIPELINES = ("AmusedPipeline",)
COMPONENTS = {
    "transformer": diffusers.UVit2DModel,
    "vqvae": diffusers.VQModel,
    "text_encoder": transformers.CLIPTextModelWithProjection,
}
MASKS = ("elbo", "training")
KEPT_TEXTS = 4096  # encoded texts in memory; more are encoded again
TEXTS_AT_ONCE = 64


def hidden_count(masks: str, draw: int, n_draws: int, tokens: int) -> int:
    """Return the number m of tokens that draw k of N hides, at u = (k + ½) / N."""
    place = (draw + 0.5) / n_draws
    if masks == "training":
        return max(1, round(tokens * cos(pi * place / 2)))
    return 1 + int(place * tokens)


def hidden_places(number: int, count: int, tokens: int) -> Ints:
    """Return the `count` places that the draw with this number hides, int64 [count]."""
    # Raw numbers, because numpy's distributions may change between its versions.
    order = np.argsort(np.random.Philox(key=number).random_raw(tokens), kind="stable")
    return order[:count].astype(np.int64)


class Amused(Likelihood):
    """aMUSEd (Patil et al., 2024): a folder or repository in diffusers' layout.

    The network and the text encoder have the run's dtype, the codebook's model is in float32. The
    network is told the size of the image, no crop and the aesthetic score, as in its pipeline.

    Raises UserError if a component is missing, damaged, of another class, or does not fit the
    others.
    """

    reduction = "mean"

    def __init__(
        self,
        weights: Weights | None,
        *,
        device: str,
        dtype: str,
        masks: str = "elbo",
        aesthetic: float = 6.0,
        resolution: int | None = None,
    ) -> None:
        self.weights = named_weights(weights)
        self.device, self.dtype = device, TORCH_DTYPES[dtype]
        self.masks, self.aesthetic = masks, aesthetic
        _check_aesthetic(aesthetic)
        empty = _checked(self.weights, self.dtype, masks, resolution)
        self.side = resolution or _own_side(empty)
        self.rows = self.side // _pixels_per_token(empty)
        self.mask_id = _mask_id(self.weights)
        self._texts: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    @cached_property
    def network(self) -> Any:
        """The masked transformer. Reading it loads it."""
        return self._loaded("transformer", self.dtype)

    @cached_property
    def codebook(self) -> Any:
        """The model that turns images into tokens. Reading it loads it."""
        return self._loaded("vqvae", torch.float32)

    @cached_property
    def text_encoder(self) -> Any:
        """The text encoder. Reading it loads it."""
        return self._loaded("text_encoder", self.dtype)

    def _loaded(self, name: str, dtype: torch.dtype) -> Any:
        return load_model(self.weights, name, COMPONENTS[name], dtype, self.device)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of prompts."""
        return tokenizer_of(self.weights, "tokenizer", transformers.CLIPTokenizer)

    # What is known without weights.

    @staticmethod
    def check_weights(
        weights: Weights | None,
        *,
        dtype: str,
        masks: str = "elbo",
        aesthetic: float = 6.0,
        resolution: int | None = None,
        **parameters: Any,
    ) -> None:
        """Validate the weights without reading tensors. Raises UserError if they are unusable."""
        _check_aesthetic(aesthetic)
        named = named_weights(weights)
        for name, module in _checked(named, TORCH_DTYPES[dtype], masks, resolution).items():
            check_headers(named, name, module)

    @staticmethod
    def memory(weights: Any, dtype: str, **parameters: Any) -> int | None:
        """Return the bytes of the parameters of all components."""
        return sum(map(size, _empty(weights, TORCH_DTYPES[dtype]).values()))

    @staticmethod
    def token_counts(weights: Any, texts: Sequence[str]) -> tuple[list[int], int] | None:
        """Return the number of tokens of each text, and how many the text encoder reads."""
        tokenizer = tokenizer_of(weights, "tokenizer", transformers.CLIPTokenizer)
        return [len(ids) for ids in tokenizer(list(texts)).input_ids], tokenizer.model_max_length

    @staticmethod
    def evaluation_flops(weights: Any, resolution: int | None = None) -> float | None:
        """Return the operations of the network for one cell, counted on the meta device."""
        empty = _empty(weights, torch.float32)
        rows = (resolution or _own_side(empty)) // _pixels_per_token(empty)
        network, text = empty["transformer"], empty["text_encoder"].config
        states = (1, text.max_position_embeddings, text.hidden_size)

        def evaluate() -> None:
            network(
                torch.zeros(1, rows, rows, dtype=torch.int64, device="meta"),
                encoder_hidden_states=torch.empty(states, device="meta"),
                pooled_text_emb=torch.empty(1, text.projection_dim, device="meta"),
                micro_conds=torch.empty(1, 5, device="meta"),
            )

        return counted_operations(evaluate)

    # Methods of a likelihood.

    @override
    def evaluate(
        self, images: Sequence[Image.Image], texts: Sequence[str], draws: Ints
    ) -> NDArray[np.float32]:
        """Return the errors of a run with as many draws as an image has tokens."""
        return self.evaluate_of(images, texts, draws, self.rows**2)

    @override
    @torch.inference_mode()
    def evaluate_of(
        self, images: Sequence[Image.Image], texts: Sequence[str], draws: Ints, n_draws: int
    ) -> NDArray[np.float32]:
        """Return the mean cross-entropy of the hidden tokens in nats, float32 [B]."""
        by_id = {id(image): image for image in images}  # all cells of an image have one object
        codes_of = dict(zip(by_id, self.encode(list(by_id.values())), strict=True))
        codes = torch.stack([codes_of[id(image)] for image in images])
        hidden = torch.from_numpy(self._hidden(draws, n_draws)).to(self.device)
        conditions = [self.side, self.side, 0, 0, self.aesthetic]  # sides, crop and score
        states, pooled = self._encoded(texts)
        logits = self.network(
            torch.where(hidden, self.mask_id, codes),
            encoder_hidden_states=states,
            pooled_text_emb=pooled,
            micro_conds=states.new_tensor([conditions] * len(texts)),
        )
        losses = torch.nn.functional.cross_entropy(logits.float(), codes, reduction="none")
        errors = (losses.double() * hidden).sum((1, 2)) / hidden.sum((1, 2))
        return np.asarray(errors.float().cpu().numpy())

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return the tokens of images, int64 [n, rows, rows]."""
        pixels = (preprocess(images, self.side) + 1) / 2  # its codebook has learned [0, 1]
        vectors = self.codebook.encode(pixels.to(self.device)).latents
        codes: torch.Tensor = self.codebook.quantize(vectors)[2][2]
        return codes.view(len(images), self.rows, self.rows)

    def _hidden(self, draws: Ints, n_draws: int) -> NDArray[np.bool_]:
        """Return which tokens each cell hides, bool [B, rows, rows]."""
        tokens = self.rows**2
        hidden = np.zeros((len(draws), tokens), bool)
        for row, number in zip(hidden, draws.tolist(), strict=True):
            count = hidden_count(self.masks, number % MAX_DRAWS, n_draws, tokens)
            row[hidden_places(number, count, tokens)] = True
        return hidden.reshape(-1, self.rows, self.rows)

    def _encoded(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the states of prompts, [B, 77, W], and their projections, [B, P]."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if len(self._texts) + len(new) > KEPT_TEXTS:
            self._texts.clear()
            new = list(dict.fromkeys(texts))
        for start in range(0, len(new), TEXTS_AT_ONCE):
            chunk = new[start : start + TEXTS_AT_ONCE]
            ids = self.tokenizer(
                chunk,
                return_tensors="pt",
                padding="max_length",
                truncation=True,  # longer ones were refused before
                max_length=self.tokenizer.model_max_length,
            ).input_ids
            read = self.text_encoder(ids.to(self.device), output_hidden_states=True)
            pairs = zip(read.hidden_states[-2], read.text_embeds, strict=True)
            self._texts.update(zip(chunk, pairs, strict=True))
        states, pooled = zip(*(self._texts[text] for text in texts), strict=True)
        return torch.stack(states), torch.stack(pooled)


def _empty(weights: Weights, dtype: torch.dtype) -> dict[str, Any]:
    """Return the components without tensors (UserError if a folder does not describe them)."""
    read_index(weights, PIPELINES)
    modules = {name: build_on_meta(weights, name, kind) for name, kind in COMPONENTS.items()}
    return {
        name: module if name == "vqvae" else cast(module, dtype) for name, module in modules.items()
    }


def _check_aesthetic(score: float) -> None:
    """Raise UserError if a score is infinite in half precision, where errors would be NaN."""
    most = torch.finfo(torch.float16).max
    if not abs(score) <= most:
        raise UserError(
            f"aesthetic = {score:g}: must lie between {-most:g} and {most:g}; scores of images are"
            " about 1 to 10."
        )


def _checked(
    weights: Weights, dtype: torch.dtype, masks: str, resolution: int | None
) -> dict[str, Any]:
    """Return the empty components, or raise UserError if these or the parameters do not fit."""
    if masks not in MASKS:
        raise UserError(f"masks must be one of {', '.join(MASKS)}, got {masks!r:.100}.")
    empty = _empty(weights, dtype)
    network, codes = empty["transformer"].config, empty["vqvae"].config.num_vq_embeddings
    if network.codebook_size != codes:
        raise weights.error(
            "transformer/config.json",
            f"has a codebook_size of {network.codebook_size}, but vqvae has {codes} codes",
        )
    if not codes <= _mask_id(weights) < network.vocab_size:
        raise weights.error(
            SCHEDULER_CONFIG,
            f"has the mask_token_id {_mask_id(weights)}; expected one of the {network.vocab_size}"
            f" inputs of the network after its {codes} codes",
        )
    step = _pixels_per_token(empty)
    if resolution is not None and resolution % step:
        raise UserError(f"--resolution {resolution}: must be a multiple of {step}, a token's side.")
    return empty


def _mask_id(weights: Weights) -> int:
    """Return the id of the mask token. Raises UserError if the scheduler names none."""
    value = weights.read(SCHEDULER_CONFIG).get("mask_token_id")
    if isinstance(value, bool) or not isinstance(value, int):
        raise weights.error(SCHEDULER_CONFIG, f"has the mask_token_id {value!r:.40}, no number")
    return value


def _pixels_per_token(empty: dict[str, Any]) -> int:
    return int(2 ** (len(empty["vqvae"].config.block_out_channels) - 1))


def _own_side(empty: dict[str, Any]) -> int:
    return int(empty["transformer"].config.sample_size) * _pixels_per_token(empty)
