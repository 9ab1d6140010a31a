"""The kinds of image and text encoders: CLIP, SigLIP and DINOv2, how each is stored and reads."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import transformers
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
)

from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import Part, first_line
from bench_plugins.backbones._configs import check_class
from bench_plugins.backbones._sentencepiece import load_pieces
from bench_plugins.backbones._tokenizer import clip_tokenizer

HERE = "."  # these models are one part, in the folder itself
TOKENIZER = "tokenizer.json"
PIECES = "spiece.model"  # of SigLIP's first generation
SETTINGS = "tokenizer_config.json"

# Older files also hold 0, 1, 2 …
_POSITIONS = tuple(f"{side}_model.embeddings.position_ids" for side in ("text", "vision"))
# What DINOv2's tensors are called on the Hub, and in transformers 5.
_DINO = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def _dino_name(name: str) -> str:
    for old, new in _DINO.items():
        name = name.replace(old, new)
    return name


@dataclass(frozen=True)
class Kind:
    """A kind of encoder.

    Attributes:
        model_type: what its config says.
        part: how it is built and stored.
        tokens: returns the tokenizer, for a kind that reads texts.
        written: what happens to a text before.
    """

    model_type: str
    part: Part
    tokens: Callable[[Weights, Any], Any] | None = None
    written: Callable[[str], str] = str


def _clip_tokens(weights: Weights, text: Any) -> Any:
    return clip_tokenizer(weights, HERE, text.max_position_embeddings, text.vocab_size)


@lru_cache(maxsize=4)
def _other_tokens(weights: Weights, positions: int, size: int) -> Any:
    """Return SigLIP's tokenizer, which pads to the length that the model was trained with."""
    config, path = weights.read(SETTINGS), weights.find(TOKENIZER)
    known = ("SiglipTokenizer", "Siglip2Tokenizer", "GemmaTokenizer", "GemmaTokenizerFast")
    check_class(weights, SETTINGS, config, "tokenizer_class", known)
    pad = config.get("pad_token")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    if path is None:
        return _pieces(weights, pad, positions, size)
    try:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(path),
            pad_token=pad,
            padding_side="right",
            model_max_length=positions,
        )
        largest = max(tokenizer.get_vocab().values())
        tokenizer("a", padding="max_length", max_length=positions, truncation=True)
    except Exception as error:  # whatever the libraries raise where the files make no sense
        raise weights.error(TOKENIZER, f"cannot be loaded: {first_line(error)}") from error
    if tokenizer.pad_token_id is None or largest >= size:
        raise weights.error(TOKENIZER, f"has tokens up to {largest}; the model knows {size}")
    return tokenizer


def _pieces(weights: Weights, pad: Any, positions: int, size: int) -> Any:
    """Return SigLIP's tokenizer where it is a SentencePiece model."""
    path = weights.find(PIECES)
    if path is None:
        raise weights.error(TOKENIZER, f"is not there, and no {PIECES} either")
    tokenizer = load_pieces(weights, PIECES, path, pad, positions)
    if len(tokenizer) > size:
        raise weights.error(PIECES, f"has {len(tokenizer)} tokens; the model knows {size}")
    return tokenizer


def _siglip_tokens(weights: Weights, text: Any) -> Any:
    return _other_tokens(weights, text.max_position_embeddings, text.vocab_size)


def canonical(text: str) -> str:
    """Return a text as SigLIP was trained on: lower case, without punctuation, single spaces."""
    bare = text.translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\s+", " ", bare).strip().lower()


CLIP = Kind(
    "clip",
    Part(
        HERE,
        "model",
        lambda config: CLIPModel(CLIPConfig.from_dict(dict(config))),
        unused=_POSITIONS,
    ),
    _clip_tokens,
)
_SIGLIP_PART = Part(
    HERE,
    "model",
    lambda config: SiglipModel(SiglipConfig.from_dict(dict(config))),
    unused=_POSITIONS,
)
SIGLIP = Kind("siglip", _SIGLIP_PART, _siglip_tokens, canonical)
# The second generation keeps punctuation (Tschannen et al., 2025).
SIGLIP2 = Kind("siglip", _SIGLIP_PART, _siglip_tokens, str.lower)
# Of any aspect ratio and resolution; classes of its own, which transformers has since 4.49.
NAFLEX = Kind(
    "siglip2",
    Part(
        HERE,
        "model",
        lambda config: transformers.Siglip2Model(
            transformers.Siglip2Config.from_dict(dict(config))
        ),
        unused=_POSITIONS,
    ),
    _siglip_tokens,
    str.lower,
)
DINOV2 = Kind(
    "dinov2",
    Part(
        HERE,
        "model",
        lambda config: Dinov2Model(Dinov2Config.from_dict(dict(config))),
        _dino_name,
    ),
)
KINDS = (CLIP, SIGLIP, NAFLEX, DINOV2)


def kind_of(weights: Weights) -> Kind:
    """Return the kind of encoder in a folder, for its image embeddings.

    Raises:
        UserError: it is none that is known.
    """
    config = weights.read("config.json")
    known = [kind.model_type for kind in KINDS]
    check_class(weights, "config.json", config, "model_type", known)
    return KINDS[known.index(config["model_type"])]


def second_siglip(weights: Weights) -> Kind:
    """Return the kind of a SigLIP 2: of a fixed resolution, or NaFlex, whichever its config says.

    Raises:
        UserError: there is no config.
    """
    naflex = weights.read("config.json").get("model_type") == NAFLEX.model_type
    return NAFLEX if naflex else SIGLIP2
