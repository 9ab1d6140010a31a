"""Models that generate an image token by token, such as Janus and Emu3, as likelihoods.

The model's own codebook turns an image into tokens. The error of a prompt is their negative
log-likelihood in nats, −Σ log p(token | earlier tokens, prompt), found by one pass of the network
(teacher forcing, as A-VARC+, arXiv 2510.12060). The prompt's template, the special tokens and the
order of the tokens are those with which the model's own code generates images. Nothing is random.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image

from bench.contracts.backbone import Likelihood
from bench.errors import UserError
from bench.inputs.pixels import MAX_ELONGATION, cut_to_middle
from bench.inputs.weights import InMemory, Weights
from bench_plugins.backbones._checkpoint import (
    HERE,
    check_headers,
    from_library,
    load_model,
    named_weights,
)
from bench_plugins.backbones._components import build_on_meta
from bench_plugins.backbones._counting import counted_operations, size
from bench_plugins.backbones.pipeline_live import LiveObject, check_live, content_hash

POSITIONS_AT_ONCE = 1024  # whose logits are in memory at a time
TEXT_TOKENS = 32  # of the prompt whose operations are counted


@dataclass(frozen=True, eq=False)
class ImageTokens:
    """The tokens of an image."""

    ids: torch.Tensor  # int64 [L], as the network reads them after the prompt
    scored: torch.Tensor  # int64 [n], positions in `ids` of those that the network chooses
    codes: torch.Tensor  # int64 [n], which of the possible tokens each of them is
    grid: tuple[int, int]  # rows and columns


class TokenModel(ABC):
    """How one architecture reads prompts and images, and predicts the tokens of images."""

    architecture: ClassVar[str]  # class of the model in transformers
    processor_cls: ClassVar[str]  # class of its processor
    network_name: ClassVar[str]  # of the language model inside, which has no head

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.network = getattr(model.model, self.network_name)

    @staticmethod
    def wrapped(processor: Any, text: str) -> str:
        """Return a prompt as the processor gets it to generate an image: by default as it is."""
        return text

    @property
    @abstractmethod
    def least_tokens(self) -> int:
        """The fewest tokens of an image."""

    @abstractmethod
    def encode(self, inputs: Any) -> ImageTokens:
        """Return the tokens of one image, given what the model's image processor returned."""

    @abstractmethod
    def prompt(self, text: str, image: ImageTokens) -> tuple[int, ...]:
        """Return the tokens up to the image's first."""

    @abstractmethod
    def null(self, prompt: tuple[int, ...], image: ImageTokens) -> tuple[int, ...]:
        """Return the tokens that stand for a prompt without content."""

    @abstractmethod
    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits of all tokens that an image can have, [n, V], of states [n, D]."""

    def embed(self, image: ImageTokens) -> torch.Tensor:
        """Return the embeddings of an image's tokens, [L, D]."""
        return self.embed_text(image.ids)

    def embed_text(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of tokens of the vocabulary, [L, D]."""
        embedded: torch.Tensor = self.model.get_input_embeddings()(ids)
        return embedded


class Janus(TokenModel):
    """Janus and Janus-Pro, which have a head and embeddings of their own for image tokens."""

    architecture, processor_cls = "JanusForConditionalGeneration", "JanusProcessor"
    network_name = "language_model"

    @staticmethod
    def wrapped(processor: Any, text: str) -> str:
        """Return the prompt in the model's chat template, if it has one."""
        if not processor.chat_template:
            return text
        content = [{"type": "text", "text": text}]
        messages = [{"role": "user", "content": content}]
        wrapped: str = processor.apply_chat_template(messages, add_generation_prompt=True)
        return wrapped

    @property
    def least_tokens(self) -> int:
        """The number of tokens of every image."""
        return int(self.model.config.vq_config.num_patches) ** 2

    def encode(self, inputs: Any) -> ImageTokens:
        """Return the codes of the quantised image, row by row."""
        codes = self.model.model.vqmodel.encode(inputs.pixel_values, return_dict=True).image_tokens
        codes = codes.flatten()
        side = round(len(codes) ** 0.5)
        places = torch.arange(len(codes), device=codes.device)
        return ImageTokens(codes, places, codes, (side, side))

    def prompt(self, text: str, image: ImageTokens) -> tuple[int, ...]:
        """Return the tokens of the prompt, which end with the start of an image."""
        wrapped = self.wrapped(self.processor, text)
        return tuple(self.processor(text=[wrapped], generation_mode="image").input_ids[0])

    def null(self, prompt: tuple[int, ...], image: ImageTokens) -> tuple[int, ...]:
        """Return the prompt with padding in place of all but its first tokens' special ones."""
        config = self.model.generation_config
        kept = (config.bos_token_id, config.generation_kwargs["boi_token_id"])
        return tuple(token if token in kept else config.pad_token_id for token in prompt)

    def embed(self, image: ImageTokens) -> torch.Tensor:
        """Return the generation embeddings of the codes, [L, D]."""
        embedded: torch.Tensor = self.model.prepare_embeddings_for_image_generation(image.ids)
        return embedded

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits of the generation head, [n, V]."""
        logits: torch.Tensor = self.model.model.generation_head(states)
        return logits


class Emu3(TokenModel):
    """Emu3, whose vocabulary includes the codes of images.

    A row of codes ends with a token that the grid determines, so it is read and not scored, and the
    probabilities of codes are among codes alone, as when the model generates. It has no
    template for generating images.
    """

    architecture, processor_cls = "Emu3ForConditionalGeneration", "Emu3Processor"
    network_name = "text_model"

    @cached_property
    def _visual(self) -> torch.Tensor:
        """The id of each code, int64 [V]."""
        ids: torch.Tensor = self.model.model.vocabulary_mapping.img2bpe_mapping_tensor
        return ids.to(self.model.device, torch.int64)

    @property
    def least_tokens(self) -> int:
        """The number of codes of the smallest image that the processor makes."""
        return int(self.processor.image_processor.min_pixels // self.processor.downsample_ratio**2)

    def encode(self, inputs: Any) -> ImageTokens:
        """Return the codes of the quantised image, row by row, each row with its end."""
        (codes,) = self.model.model.vqmodel.encode(
            inputs.pixel_values, inputs.image_sizes, return_dict=True
        ).image_tokens
        ids = self.model.model.vocabulary_mapping.convert_img2bpe(codes).long()
        places = torch.arange(ids.numel(), device=self.model.device).reshape(ids.shape)[:, :-1]
        return ImageTokens(
            ids.flatten(), places.flatten(), codes.flatten().long(), tuple(codes.shape)
        )

    def prompt(self, text: str, image: ImageTokens) -> tuple[int, ...]:
        """Return the tokens of the prompt, followed by the size of the image."""
        processor, (rows, columns) = self.processor, image.grid
        start = f"{processor.image_start_token}{rows}*{columns}{processor.fake_token_around_image}"
        return tuple(processor(text=[f"{text}{start}"]).input_ids[0])

    def null(self, prompt: tuple[int, ...], image: ImageTokens) -> tuple[int, ...]:
        """Return the tokens of the empty prompt."""
        return self.prompt("", image)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits of the codes, [n, V]."""
        return torch.nn.functional.linear(states, self.model.lm_head.weight[self._visual])


TOKEN_MODELS: Mapping[str, type[TokenModel]] = {kind.architecture: kind for kind in (Janus, Emu3)}

Row = tuple[ImageTokens, tuple[int, ...]]  # an image, and the tokens of a prompt


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
    def evaluation_flops(weights: Any, resolution: int | None = None) -> float | None:
        """Return the operations of scoring an image for one prompt, without its encoding."""
        empty = _empty(weights)
        length, width = empty.least_tokens, empty.model.config.text_config.hidden_size
        positions = TEXT_TOKENS + length
        inputs = torch.empty(1, positions, width, device="meta")
        # Without a mask of its own, the network looks at values, which a meta tensor has not.
        mask = torch.empty(1, 1, positions, positions, dtype=torch.bool, device="meta")

        def score() -> None:
            states = empty.network(inputs_embeds=inputs, attention_mask=mask, use_cache=False)
            empty.logits(states.last_hidden_state[0, :length])

        return counted_operations(score)

    @torch.inference_mode()
    def evaluate(
        self, images: Sequence[Image.Image], texts: Sequence[str], draws: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return negative log-likelihoods in nats, float32 [B]; the draws are not read."""
        by_id = {id(image): image for image in images}  # all cells of an image have one object
        encoded = {key: self._encode(image) for key, image in by_id.items()}
        prompts = [
            (tokens := encoded[id(image)], self.tokens.prompt(text, tokens))
            for image, text in zip(images, texts, strict=True)
        ]
        nulls = [(image, self.tokens.null(prompt, image)) for image, prompt in prompts]
        with_null = self.relative or self.guidance != 1
        rows = list(dict.fromkeys(prompts + nulls if with_null else prompts))
        states = dict(zip(rows, self._states(rows), strict=True))
        errors = [
            self._error(states[prompt], states[null] if with_null else None, prompt[0])
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

    def _states(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Return the states that predict the scored tokens of each row, [n, D] each.

        Rows are padded on the right, which no earlier position attends to.
        """
        tokens, device = self.tokens, self.device
        embedded = [
            torch.cat([tokens.embed_text(torch.tensor(prompt, device=device)), tokens.embed(image)])
            for image, prompt in rows
        ]
        padded = torch.nn.utils.rnn.pad_sequence(embedded, batch_first=True)
        states = tokens.network(inputs_embeds=padded, use_cache=False).last_hidden_state
        return [
            row[len(prompt) - 1 + image.scored]
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
        check_live(pipe, {"model": pipe.model})
        self.guidance, self.relative = guidance, relative
        self.device, self.dtype = str(pipe.model.device), pipe.model.dtype
        self.tokens = kind(pipe.model, pipe.processor)

    def content(self) -> InMemory:
        """Describe and hash the model and its processor. Every tensor is read."""
        images, prompt = self._processor.image_processor, self.tokens.wrapped(self._processor, "{}")
        facts = {"guidance": self.guidance, "relative": self.relative, "prompt": prompt}
        fingerprint = content_hash(
            {"model": self.named, "tokenizer": self._processor.tokenizer},
            {**facts, "images": images.to_dict(), "class": type(images).__name__},
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
            return type(own)(type(own.model)(own.model.config), own.processor)
    named = named_weights(weights)
    kind = _kind(named)
    model = build_on_meta(named, HERE, getattr(transformers, kind.architecture))
    return kind(model, _processor(named))


def _log_likelihood(logits: torch.Tensor, codes: torch.Tensor) -> float:
    """Return Σ log p(code), given logits [n, V] and codes [n]."""
    chosen = torch.log_softmax(logits, dim=-1).gather(-1, codes[:, None])
    return float(chosen.double().sum())
