"""Models that generate an image token by token, such as Janus and Emu3, as likelihoods.

The model's own codebook turns an image into tokens. The error of a prompt is their negative
log-likelihood in nats, −Σ log p(token | earlier tokens, prompt), found by one pass of the network
(teacher forcing, as A-VARC+, arXiv 2510.12060). The prompt's template, the special tokens and the
order of the tokens are those with which the model's own code generates images. Nothing is random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import override

from bench.contracts.backbone import Likelihood
from bench.errors import UserError
from bench.inputs.pixels import MAX_ELONGATION, cut_to_middle
from bench.inputs.weights import InMemory, Weights
from bench_plugins.backbones._checkpoint import HERE, check_headers, from_library, load_model
from bench_plugins.backbones._components import build_on_meta
from bench_plugins.backbones._gate import check_unaltered
from bench_plugins.backbones._image_tokens import TOKEN_MODELS, ImageTokens, TokenModel
from bench_plugins.backbones.pipeline_live import check_evaluating, content_hash

POSITIONS_AT_ONCE = 1024  # whose logits are in memory at a time
TEXT_TOKENS = 32  # of the prompt whose operations are counted

Row = tuple[int, tuple[int, ...]]  # an image, by `id`, and the tokens of a prompt


class Autoregressive(Likelihood):
    """A model in the layout of transformers: `from_pretrained` of its class loads the folder.

    With a `guidance` other than 1, the logits are null + guidance · (prompt − null), as when the
    model generates; null is the prompt that its own code uses for this. With `relative`, the error
    is −log p(image | prompt) + log p(image), the latter from the null prompt: that matters where
    several images are compared for one text.

    Raises UserError if a file is missing, damaged or of another model.
    """

    reduction = "mean"
    draws_are_equal = True

    def __init__(
        self,
        weights: Weights | None,
        *,
        device: str,
        dtype: str,
        guidance: float = 1.0,
        relative: bool = False,
    ) -> None:
        self.weights, self.device, self.dtype = weights, device, getattr(torch, dtype)
        self.guidance, self.relative = guidance, relative
        self._processor = _processor(weights)

    @cached_property
    def tokens(self) -> TokenModel:
        """The model. Reading it loads it."""
        kind = _kind(self.weights)
        model_cls = getattr(transformers, kind.architecture)
        model = load_model(_named(self.weights), HERE, model_cls, self.dtype, self.device)
        return kind(model, self._processor)

    @staticmethod
    @override
    def check_weights(weights: Weights | None, *, dtype: str, **parameters: Any) -> None:
        empty = _empty(weights)
        check_headers(_named(weights), HERE, empty.model.to(getattr(torch, dtype)))

    @staticmethod
    @override
    def memory(weights: Any, dtype: str, **parameters: Any) -> int | None:
        itemsize: int = getattr(torch, dtype).itemsize
        return itemsize * sum(int(part.numel()) for part in _empty(weights).model.parameters())

    @staticmethod
    @override
    def token_counts(weights: Weights | None, texts: Sequence[str]) -> tuple[list[int], int] | None:
        return _token_counts(_empty(weights), texts)

    @staticmethod
    @override
    def evaluation_flops(weights: Weights | None, resolution: int | None = None) -> float | None:
        empty = _empty(weights)
        length, width = empty.least_tokens, empty.model.config.text_config.hidden_size
        positions = TEXT_TOKENS + length
        inputs = torch.empty(1, positions, width, device="meta")
        # Without a mask of its own, the network looks at values, which a meta tensor has not.
        mask = torch.empty(1, 1, positions, positions, dtype=torch.bool, device="meta")
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            states = empty.network(
                inputs_embeds=inputs, attention_mask=mask, use_cache=False
            ).last_hidden_state
            empty.logits(states[0, :length])
        return float(counter.get_total_flops())

    @torch.inference_mode()
    def evaluate(
        self, images: Sequence[Image.Image], texts: Sequence[str], draws: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return negative log-likelihoods in nats, float32 [B]; the draws are not read."""
        by_id = {id(image): image for image in images}  # all cells of an image have one object
        encoded = {key: self._encode(image) for key, image in by_id.items()}
        prompts: list[Row] = []
        nulls: list[Row] = []
        for image, text in zip(map(id, images), texts, strict=True):
            prompt = self.tokens.prompt(text, encoded[image])
            prompts.append((image, prompt))
            nulls.append((image, self.tokens.null(prompt, encoded[image])))
        with_null = self.relative or self.guidance != 1
        rows = list(dict.fromkeys(prompts + nulls if with_null else prompts))
        states = dict(zip(rows, self._states(rows, encoded), strict=True))
        errors = [
            self._error(states[prompt], states[null] if with_null else None, encoded[prompt[0]])
            for prompt, null in zip(prompts, nulls, strict=True)
        ]
        return np.array(errors, np.float32)

    def _encode(self, image: Image.Image) -> ImageTokens:
        inputs = self._processor.image_processor(
            images=cut_to_middle(image.convert("RGB"), MAX_ELONGATION),
            input_data_format="channels_last",  # not guessed, as of an image of one pixel
            return_tensors="pt",
        )
        return self.tokens.encode(inputs.to(self.device, self.dtype))

    def _states(
        self, rows: Sequence[Row], encoded: Mapping[int, ImageTokens]
    ) -> list[torch.Tensor]:
        """Return the states that predict the scored tokens of each row, [n, D] each.

        Rows are padded on the right, which no earlier position attends to.
        """
        embedded = [
            torch.cat(
                [
                    self.tokens.embed_text(torch.tensor(prompt, device=self.device)),
                    self.tokens.embed(encoded[image]),
                ]
            )
            for image, prompt in rows
        ]
        padded = torch.nn.utils.rnn.pad_sequence(embedded, batch_first=True)
        states = self.tokens.network(inputs_embeds=padded, use_cache=False).last_hidden_state
        return [
            row[len(prompt) - 1 + encoded[image].scored]
            for row, (image, prompt) in zip(states, rows, strict=True)
        ]

    def _error(self, prompt: torch.Tensor, null: torch.Tensor | None, image: ImageTokens) -> float:
        """Return the error of an image, given the states [n, D] after a prompt and the null."""
        error = 0.0
        for start in range(0, len(image.codes), POSITIONS_AT_ONCE):
            part = slice(start, start + POSITIONS_AT_ONCE)
            codes = image.codes[part]
            logits = self.tokens.logits(prompt[part]).float()
            if null is not None:
                without = self.tokens.logits(null[part]).float()
                logits = without + self.guidance * (logits - without)
                error += _log_likelihood(without, codes) if self.relative else 0.0
            error -= _log_likelihood(logits, codes)
        return error


class LiveAutoregressive(Autoregressive):
    """A pipeline object of transformers with such a model and its processor, as it is.

    Raises UserError if the model is in training mode, altered by a hook, or of another kind.
    """

    def __init__(self, pipe: Any, *, guidance: float = 1.0, relative: bool = False) -> None:
        self.modules = {"model": pipe.model}
        kind = {kind.architecture: kind for kind in TOKEN_MODELS}.get(type(pipe.model).__name__)
        if kind is None:
            raise UserError(
                f"The pipeline's {type(pipe.model).__name__} does not generate images token by"
                f" token. Supported are {', '.join(kind.architecture for kind in TOKEN_MODELS)}."
            )
        check_evaluating(self.modules, "pipe")
        check_unaltered(self.modules, f"The pipeline {type(pipe).__name__}")
        self.guidance, self.relative = guidance, relative
        self.device, self.dtype = str(pipe.model.device), pipe.model.dtype
        self._processor, self._own = pipe.processor, kind(pipe.model, pipe.processor)

    @property
    @override
    def tokens(self) -> TokenModel:
        return self._own

    @property
    def label(self) -> str:
        """Name of the model in runs: that of its source or, if unknown, of its class."""
        source = getattr(self._own.model, "name_or_path", None)
        return Path(source).name if source else self._own.architecture

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of a run that are fixed by the pipeline."""
        return {"device": self.device, "dtype": str(self.dtype).removeprefix("torch.")}

    def content(self) -> InMemory:
        """Describe and hash the model and its processor. Every tensor is read."""
        chosen = {"guidance": self.guidance, "relative": self.relative}
        images = self._processor.image_processor
        facts = {**chosen, "prompt": self._own.wrapped(self._processor, "{}")}
        fingerprint = content_hash(
            {**self.modules, "tokenizer": self._processor.tokenizer},
            {**facts, "images": images.to_dict(), "class": type(images).__name__},
        )
        described = {"class": self._own.architecture, **facts}
        return InMemory(self.label, None, fingerprint, backbone=self, description=described)

    @staticmethod
    def check_weights(weights: Any, *, dtype: str, **parameters: Any) -> None:
        """Raise UserError if the weights are a name, and not a pipeline object."""
        if not isinstance(weights, InMemory):
            raise UserError(
                "Backbone 'tokens' is for a pipeline object, which only Python can pass:"
                " bench.run(DATASET, backbone=pipe). For a folder use --backbone FOLDER"
            )

    @staticmethod
    def weight_parameters(weights: InMemory, **parameters: Any) -> Mapping[str, Any]:
        """Return the model's class and how the pipeline is used."""
        return dict(weights.description)

    @staticmethod
    def memory(weights: Any, dtype: str, **parameters: Any) -> None:
        """Return None: the model is in memory already."""

    @staticmethod
    @override
    def token_counts(weights: Any, texts: Sequence[str]) -> tuple[list[int], int]:
        return _token_counts(weights.backbone.tokens, texts)

    @staticmethod
    def evaluation_flops(weights: Any, resolution: int | None = None) -> None:
        """Return None: operations are counted on folders."""


def _named(weights: Weights | None) -> Weights:
    if weights is None:
        raise UserError(
            "This backbone has no weights of its own. Name them with --weights: a folder or a Hub"
            " id."
        )
    return weights


def _kind(weights: Weights | None) -> type[TokenModel]:
    """Return how the model in a folder works. Raises UserError if it is of another kind."""
    names = _named(weights).read("config.json").get("architectures")
    kinds = {kind.architecture: kind for kind in TOKEN_MODELS}
    if not isinstance(names, list) or names[:1] not in [[name] for name in kinds]:
        raise _named(weights).error(
            "config.json", f"has architectures {names!r:.100}; expected one of {', '.join(kinds)}"
        )
    return kinds[names[0]]


def _processor(weights: Weights | None) -> Any:
    processor_cls = getattr(transformers, _kind(weights).processor_cls)
    # Never by torchvision, whose resizing differs: equal ids must mean equal numbers.
    return from_library(_named(weights), "", processor_cls, backend="pil")


def _empty(weights: Weights | None) -> TokenModel:
    """Return the model of a folder without its tensors. Raises UserError if that is impossible."""
    kind = _kind(weights)
    model = build_on_meta(_named(weights), HERE, getattr(transformers, kind.architecture))
    return kind(model, _processor(weights))


def _token_counts(model: TokenModel, texts: Sequence[str]) -> tuple[list[int], int]:
    wrapped = [model.wrapped(model.processor, text) for text in texts]
    counts = [len(model.processor.tokenizer(text).input_ids) for text in wrapped]
    positions: int = model.model.config.text_config.max_position_embeddings
    return counts, positions - model.least_tokens


def _log_likelihood(logits: torch.Tensor, codes: torch.Tensor) -> float:
    """Return Σ log p(code), given logits [n, V] and codes [n]."""
    chosen = torch.log_softmax(logits, dim=-1).gather(-1, codes[:, None])
    return float(chosen.double().sum())
