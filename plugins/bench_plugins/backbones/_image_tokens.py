"""How models of image tokens in transformers read prompts and images, and predict tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from typing_extensions import override


@dataclass(frozen=True)
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

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor

    @staticmethod
    @abstractmethod
    def wrapped(processor: Any, text: str) -> str:
        """Return a prompt as the processor gets it to generate an image."""

    @property
    @abstractmethod
    def network(self) -> Any:
        """The language model without a head."""

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
    def embed(self, image: ImageTokens) -> torch.Tensor:
        """Return the embeddings of an image's tokens, [L, D]."""

    @abstractmethod
    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits of all tokens that an image can have, [n, V], of states [n, D]."""

    def embed_text(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of tokens of the vocabulary, [L, D]."""
        embedded: torch.Tensor = self.model.get_input_embeddings()(ids)
        return embedded


class Janus(TokenModel):
    """Janus and Janus-Pro, which have a head and embeddings of their own for image tokens."""

    architecture, processor_cls = "JanusForConditionalGeneration", "JanusProcessor"

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
    @override
    def network(self) -> Any:
        return self.model.model.language_model

    @property
    def least_tokens(self) -> int:
        """The number of tokens of every image."""
        return int(self.model.config.vq_config.num_patches) ** 2

    def encode(self, inputs: Any) -> ImageTokens:
        """Return the codes of the quantised image, row by row."""
        codes = self.model.model.vqmodel.encode(inputs.pixel_values, return_dict=True).image_tokens
        codes = codes.flatten()
        side = round(len(codes) ** 0.5)
        return ImageTokens(
            codes, torch.arange(len(codes), device=self.model.device), codes, (side, side)
        )

    def prompt(self, text: str, image: ImageTokens) -> tuple[int, ...]:
        """Return the tokens of the prompt, which end with the start of an image."""
        wrapped = self.wrapped(self.processor, text)
        return tuple(self.processor(text=[wrapped], generation_mode="image").input_ids[0])

    def null(self, prompt: tuple[int, ...], image: ImageTokens) -> tuple[int, ...]:
        """Return the prompt with padding in place of all but its first tokens' special ones."""
        config = self.model.generation_config
        kept = (config.bos_token_id, config.generation_kwargs["boi_token_id"])
        return tuple(token if token in kept else config.pad_token_id for token in prompt)

    @override
    def embed(self, image: ImageTokens) -> torch.Tensor:
        embedded: torch.Tensor = self.model.prepare_embeddings_for_image_generation(image.ids)
        return embedded

    @override
    def logits(self, states: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model.model.generation_head(states)
        return logits


class Emu3(TokenModel):
    """Emu3, whose vocabulary includes the codes of images.

    A row of codes ends with a token that the grid determines, so it is read and not scored, and the
    probabilities of codes are among codes alone, as when the model generates.
    """

    architecture, processor_cls = "Emu3ForConditionalGeneration", "Emu3Processor"

    @staticmethod
    def wrapped(processor: Any, text: str) -> str:
        """Return the prompt as it is: Emu3 has no template for generating images."""
        return text

    @property
    @override
    def network(self) -> Any:
        return self.model.model.text_model

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
        sizes = inputs.image_sizes
        (codes,) = self.model.model.vqmodel.encode(
            inputs.pixel_values, sizes, return_dict=True
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

    @override
    def embed(self, image: ImageTokens) -> torch.Tensor:
        return self.embed_text(image.ids)

    @override
    def logits(self, states: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(states, self.model.lm_head.weight[self._visual])


TOKEN_MODELS: tuple[type[TokenModel], ...] = (Janus, Emu3)
