"""Models that generate an image token by token, such as Janus and Emu3, as likelihoods.

The model's own codebook turns an image into tokens. The error of a prompt is their negative
log-likelihood in nats, −Σ log p(token | earlier tokens, prompt), found by one pass of the network
(teacher forcing, as A-VARC+, arXiv 2510.12060). The prompt's template, the special tokens and the
order of the tokens are those with which the model's own code generates images. Nothing is random.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image

from bench.contracts.backbone import Likelihood
from bench.errors import UserError
from bench.inputs.pixels import MAX_ELONGATION, cut_to_middle
from bench.inputs.weights import InMemory, Weights
from bench_plugins.backbones._token_models import TOKEN_MODELS, Grid, ImageTokens, Text, TokenModel
from bench_plugins.backbones._weights.checkpoint import (
    HERE,
    check_headers,
    from_library,
    load_model,
    named_weights,
)
from bench_plugins.backbones._weights.components import build_on_meta
from bench_plugins.backbones._weights.counting import counted_operations, size
from bench_plugins.backbones._weights.identity import altered_parts, content_hash
from bench_plugins.backbones.pipeline_live import LiveObject, check_live

GENERATION_CONFIG = "generation_config.json"
POSITIONS_AT_ONCE = 1024  # whose logits are in memory at a time


Row = tuple[ImageTokens, Text]  # an image, and what it is read after


class Autoregressive(Likelihood):
    """A model in the layout of transformers: `from_pretrained` of its class loads the folder.

    With a `guidance` other than 1, the logits are null + guidance · (prompt − null), as when the
    model generates; null is the prompt that its own code uses for this. With `relative`, the error
    is −log p(image | prompt) + log p(image), the latter from the null of the empty prompt: that
    matters where several images are compared for one text.

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
        self.weights = named_weights(weights)
        self.device, self.dtype = device, getattr(torch, dtype)
        self.guidance, self.relative = guidance, relative
        self._kind, self._processor = _kind(self.weights), _processor(self.weights)

    @cached_property
    def tokens(self) -> TokenModel:
        """The model. Reading it loads it."""
        model_cls = getattr(transformers, self._kind.architecture)
        model = load_model(self.weights, HERE, model_cls, self.dtype, self.device)
        return self._kind(model, self._processor)

    @staticmethod
    def check_weights(weights: Weights | None, *, dtype: str, **parameters: Any) -> None:
        """Validate the weights without reading tensors. Raises UserError if they are unusable."""
        named = named_weights(weights)
        check_headers(named, HERE, _empty(named).model.to(getattr(torch, dtype)))

    @staticmethod
    def memory(weights: Any, dtype: str, **parameters: Any) -> int | None:
        """Return the bytes of the model's parameters; None if they are in memory already."""
        if isinstance(weights, InMemory):
            return None
        return size(_empty(weights).model.to(getattr(torch, dtype)))

    @staticmethod
    def token_counts(weights: Any, texts: Sequence[str]) -> tuple[list[int], int] | None:
        """Return the number of tokens of each text, wrapped, and how many fit before an image."""
        empty = _empty(weights)
        wrapped = (empty.wrapped(empty.processor, text) for text in texts)
        counts = [len(empty.processor.tokenizer(text).input_ids) for text in wrapped]
        positions: int = empty.model.config.text_config.max_position_embeddings
        return counts, positions - empty.least_tokens

    @staticmethod
    def cell_flops(
        weights: Any,
        texts: Sequence[str],
        sizes: Sequence[tuple[int, int]],
        guidance: float = 1.0,
        relative: bool = False,
        **parameters: Any,
    ) -> float | None:
        """Return the mean operations of an evaluation, if all texts of an image are one batch."""
        empty = _empty(weights)
        network, head = _operations(empty)
        grids = Counter(_grid_of(empty, size) for size in sizes or [(1, 1)])
        total = 0.0
        for grid, images in grids.items():
            read, codes = empty.lengths(grid)
            questions = [empty.texts(text, grid, guidance != 1, relative) for text in texts]
            rows = {text for row in questions for text in row if text is not None}
            heads = len(questions) * (1 + (guidance != 1)) + relative
            longest = max(map(len, rows)) + read  # to which the rows of a batch are padded
            total += images * (len(rows) * network(longest) + heads * head(codes)) / len(questions)
        return total / grids.total()

    @torch.inference_mode()
    def evaluate(
        self, images: Sequence[Image.Image], texts: Sequence[str], draws: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return negative log-likelihoods in nats, float32 [B]; the draws are not read."""
        by_id = {id(image): image for image in images}  # all cells of an image have one object
        encoded = {key: self._encode(image) for key, image in by_id.items()}
        cells = [(encoded[id(image)], text) for image, text in zip(images, texts, strict=True)]
        questions = [
            (image, self.tokens.texts(text, image.grid, self.guidance != 1, self.relative))
            for image, text in cells
        ]
        rows = list(dict.fromkeys((image, text) for image, of in questions for text in of if text))
        states = dict(zip(rows, self._states(rows), strict=True))
        plain = dict.fromkeys((image, of.plain) for image, of in questions if of.plain)
        own = {image: self._error(states[image, text], None, image) for image, text in plain}
        errors = [
            self._error(
                states[image, prompt], None if guide is None else states[image, guide], image
            )
            - own.get(image, 0.0)
            for image, (prompt, guide, _) in questions
        ]
        return np.array(errors, np.float32)

    def _encode(self, image: Image.Image) -> ImageTokens:
        return self.tokens.encode(_pixels(self._processor, image).to(self.device, self.dtype))

    def _states(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Return the states that predict the scored tokens of each row, [n, D] each.

        Rows are padded on the right, which no earlier position attends to.
        """
        tokens, device = self.tokens, self.device
        images = {image: tokens.embed(image) for image in {image for image, _ in rows}}
        embedded = [
            torch.cat([tokens.embed_text(torch.tensor(prompt, device=device)), images[image]])
            for image, prompt in rows
        ]
        padded = torch.nn.utils.rnn.pad_sequence(embedded, batch_first=True)
        states = tokens.network(inputs_embeds=padded, use_cache=False).last_hidden_state
        return [
            row[len(prompt) - 1 + image.scored]
            for row, (image, prompt) in zip(states, rows, strict=True)
        ]

    def _error(self, prompt: torch.Tensor, guide: torch.Tensor | None, image: ImageTokens) -> float:
        """Return −log p of an image, given the states [n, D] after a prompt and its guide."""
        error = 0.0
        for start in range(0, len(image.codes), POSITIONS_AT_ONCE):
            part = slice(start, start + POSITIONS_AT_ONCE)
            codes = image.codes[part]
            logits = self.tokens.logits(prompt[part]).float()
            if guide is not None:
                without = self.tokens.logits(guide[part]).float()
                logits = without + self.guidance * (logits - without)
            error -= _log_likelihood(logits, codes)
        return error


class LiveAutoregressive(LiveObject, Autoregressive):
    """A pipeline object of transformers with such a model and its processor, as it is.

    Raises UserError if the model is in training mode, altered by a hook, or of another kind.
    """

    def __init__(self, pipe: Any, *, guidance: float = 1.0, relative: bool = False) -> None:
        self.named, self._processor = pipe.model, pipe.processor
        if (kind := TOKEN_MODELS.get(type(pipe.model).__name__)) is None:
            raise UserError(
                f"The pipeline's {type(pipe.model).__name__} does not generate images token by"
                f" token. Supported are {', '.join(TOKEN_MODELS)}."
            )
        check_live({"model": pipe.model})
        self.guidance, self.relative = guidance, relative
        self.device, self.dtype = str(pipe.model.device), pipe.model.dtype
        self.tokens = kind(pipe.model, pipe.processor)

    def content(self) -> InMemory:
        """Describe and hash the model and its processor. Every tensor is read."""
        images, prompt = self._processor.image_processor, self.tokens.wrapped(self._processor, "{}")
        facts = {"guidance": self.guidance, "relative": self.relative, "prompt": prompt}
        parts = {"model": self.named, "tokenizer": self._processor.tokenizer}
        fingerprint = content_hash(
            parts,
            {**facts, "images": images.to_dict(), "class": type(images).__name__},
            altered_parts(parts),
        )
        described = {"class": self.tokens.architecture, **facts}
        return InMemory(self.label, None, fingerprint, backbone=self, description=described)


def _kind(weights: Weights) -> type[TokenModel]:
    """Return how the model in a folder works. Raises UserError if it is of another kind."""
    names = weights.read("config.json").get("architectures")
    if not isinstance(names, list) or names[:1] not in [[name] for name in TOKEN_MODELS]:
        raise weights.error(
            "config.json",
            f"has architectures {names!r:.100}; expected one of {', '.join(TOKEN_MODELS)}",
        )
    return TOKEN_MODELS[names[0]]


def _processor(weights: Weights) -> Any:
    processor_cls = getattr(transformers, _kind(weights).processor_cls)
    # Never by torchvision, whose resizing differs: equal ids must mean equal numbers.
    return from_library(weights, "", processor_cls, backend="pil")


def _empty(weights: Weights | InMemory | None) -> TokenModel:
    """Return a model without its tensors. Raises UserError if a folder does not describe one."""
    if isinstance(weights, InMemory):
        own: TokenModel = weights.backbone.tokens
        with torch.device("meta"):
            model = type(own.model)(own.model.config)
        model.generation_config = own.model.generation_config
        return type(own)(model, own.processor)
    named = named_weights(weights)
    kind = _kind(named)
    model = build_on_meta(named, HERE, getattr(transformers, kind.architecture))
    if named.find(GENERATION_CONFIG):
        settings = named.read(GENERATION_CONFIG)
        model.generation_config = transformers.GenerationConfig.from_dict(settings)
    return kind(model, _processor(named))


def _pixels(processor: Any, image: Image.Image) -> Any:
    return processor.image_processor(
        images=cut_to_middle(image.convert("RGB"), MAX_ELONGATION),
        input_data_format="channels_last",  # not guessed, as of an image of one pixel
        return_tensors="pt",
    )


def _grid_of(model: TokenModel, size: tuple[int, int]) -> Grid:
    return model.grid(_pixels(model.processor, Image.new("RGB", size)))


def _operations(empty: TokenModel) -> tuple[Callable[[int], float], Callable[[int], float]]:
    """Return the operations of the network by its number of positions, and of the head by tokens.

    Those of a network are a polynomial of degree 2, as of attention; those of a head are linear.
    """
    width = empty.model.config.text_config.hidden_size

    def score(positions: int) -> None:
        inputs = torch.empty(1, positions, width, device="meta")
        # Without a mask of its own, the network looks at values, which a meta tensor has not.
        mask = torch.empty(1, 1, positions, positions, dtype=torch.bool, device="meta")
        empty.network(inputs_embeds=inputs, attention_mask=mask, use_cache=False)

    first, second, third = (counted_operations(partial(score, n)) for n in (8, 9, 10))
    slope, bend = second - first, third - 2 * second + first
    states = torch.empty(1, width, device="meta")
    of_token = counted_operations(lambda: empty.logits(states))
    return (
        lambda n: first + (n - 8) * slope + (n - 8) * (n - 9) / 2 * bend,
        lambda n: n * of_token,
    )


def _log_likelihood(logits: torch.Tensor, codes: torch.Tensor) -> float:
    """Return Σ log p(code), given logits [n, V] and codes [n]."""
    chosen = torch.log_softmax(logits, dim=-1).gather(-1, codes[:, None])
    return float(chosen.double().sum())
