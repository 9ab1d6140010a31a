"""How Janus and Emu3 read prompts and images, and predict the tokens of images.

The template, the special tokens and the order of the tokens are those with which each model's own
code generates images.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch

Grid = tuple[int, int]  # rows and columns of an image's codes
Text = tuple[int, ...]  # ids of the tokens up to the first of an image


class Texts(NamedTuple):
    """What an image is read after, to score it for one prompt."""

    prompt: Text
    guide: Text | None  # the null that guidance leads away from; None without guidance
    plain: Text | None  # the null after which the image has its own probability; None if unused


@dataclass(frozen=True, eq=False)
class ImageTokens:
    """The tokens of an image."""

    ids: torch.Tensor  # int64 [L], as the network reads them after the prompt
    scored: torch.Tensor  # int64 [n], positions in `ids` of those that the network chooses
    codes: torch.Tensor  # int64 [n], which of the possible tokens each of them is
    grid: Grid


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
    def grid(self, inputs: Any) -> Grid:
        """Return rows and columns of an image, given what the model's image processor returned."""

    def lengths(self, grid: Grid) -> tuple[int, int]:
        """Return how many tokens of an image are read, and how many of them are scored."""
        return grid[0] * grid[1], grid[0] * grid[1]

    @abstractmethod
    def encode(self, inputs: Any) -> ImageTokens:
        """Return the tokens of one image, given what the model's image processor returned."""

    @abstractmethod
    def prompt(self, text: str, grid: Grid) -> Text:
        """Return the tokens up to the first of an image."""

    @abstractmethod
    def null(self, prompt: Text, grid: Grid) -> Text:
        """Return the tokens that stand for a prompt without content when the model generates."""

    def texts(self, prompt: str, grid: Grid, guided: bool, relative: bool) -> Texts:
        """Return what an image is read after, to score it for a prompt.

        The image's own probability is that after the null of the empty prompt, not after `guide`:
        that may be as long as the prompt, and the image's own probability must not depend on it.
        """
        tokens = self.prompt(prompt, grid)
        guide = self.null(tokens, grid) if guided else None
        plain = self.null(self.prompt("", grid), grid) if relative else None
        return Texts(tokens, guide, plain)

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

    def grid(self, inputs: Any) -> Grid:
        """Return the rows and columns of every image."""
        side = int(self.model.config.vq_config.num_patches)
        return side, side

    def encode(self, inputs: Any) -> ImageTokens:
        """Return the codes of the quantised image, row by row."""
        codes = self.model.model.vqmodel.encode(inputs.pixel_values, return_dict=True).image_tokens
        codes = codes.flatten()
        places = torch.arange(len(codes), device=codes.device)
        return ImageTokens(codes, places, codes, self.grid(inputs))

    def prompt(self, text: str, grid: Grid) -> Text:
        """Return the tokens of the prompt, which end with the start of an image."""
        wrapped = self.wrapped(self.processor, text)
        return _ids(self.processor(text=[wrapped], generation_mode="image"))

    def null(self, prompt: Text, grid: Grid) -> Text:
        """Return the prompt with padding for all tokens but the starts of text and image."""
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

    def grid(self, inputs: Any) -> Grid:
        """Return the rows and columns of an image as the processor has resized it."""
        height, width = (int(side) for side in inputs.image_sizes[0])
        factor = self.processor.downsample_ratio
        return height // factor, width // factor

    def lengths(self, grid: Grid) -> tuple[int, int]:
        """Return the numbers of tokens with and without the ends of the rows."""
        rows, columns = grid
        return rows * (columns + 1), rows * columns

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

    def prompt(self, text: str, grid: Grid) -> Text:
        """Return the tokens of the prompt, followed by the size of the image."""
        processor, (rows, columns) = self.processor, grid
        start = f"{processor.image_start_token}{rows}*{columns}{processor.fake_token_around_image}"
        return _ids(processor(text=[f"{text}{start}"]))

    def null(self, prompt: Text, grid: Grid) -> Text:
        """Return the tokens of the empty prompt."""
        return self.prompt("", grid)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits of the codes, [n, V]."""
        return torch.nn.functional.linear(states, self.model.lm_head.weight[self._visual])


TOKEN_MODELS: Mapping[str, type[TokenModel]] = {kind.architecture: kind for kind in (Janus, Emu3)}


def _ids(processed: Any) -> Text:
    """Return the tokens of one text as numbers: processors return lists or tensors."""
    return tuple(map(int, processed.input_ids[0]))
