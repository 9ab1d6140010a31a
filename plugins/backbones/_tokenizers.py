"""Tokenizers of text encoders: complete, and the same under every version of transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import BatchEncoding, CLIPTokenizerFast, PreTrainedTokenizerFast

from bench.inputs.weights import Weights
from bench.machine.files import read_bytes
from bench_plugins.backbones._checkpoint import first_line
from bench_plugins.backbones._configs import check_class, is_whole

SPARE = 127  # most rows of an embedding without a token: sizes are multiples of 128
TOKENIZER = "tokenizer.json"
TOKENIZER_SETTINGS = "tokenizer_config.json"
SENTENCEPIECE_FILE = "spiece.model"
# The class that is backed by the tokenizers library in transformers 4 and 5 alike.
CLIP_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
CLIP_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


@lru_cache(maxsize=8)
def clip_tokenizer(weights: Weights, part: str, positions: Any, size: Any) -> Any:
    """Return CLIP's tokenizer in a folder, for a text encoder of `positions` and `size` tokens.

    Raises:
        UserError: it is of another kind, cut, or longer or larger than the text encoder.
    """
    name = f"{part}/tokenizer_config.json"
    config = weights.read(name)
    check_class(weights, name, config, "tokenizer_class", CLIP_TOKENIZERS)
    length = config.get("model_max_length")
    if not is_whole(length) or not is_whole(positions) or not 3 <= length <= positions:
        raise weights.error(
            name,
            f"has model_max_length {length!r:.100}; 3 to the text encoder's {positions!r:.100}"
            " positions are possible",
        )
    _check_own_files(weights, part, config)
    files = {file: weights.find(f"{part}/{file}") for file in CLIP_FILES}
    if not files["tokenizer.json"] and not (files["vocab.json"] and files["merges.txt"]):
        raise weights.error(f"{part}/", "has no vocab.json and merges.txt, and no tokenizer.json")
    tokenizer = _from_folder(weights, part, CLIPTokenizerFast, length)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    if sorted(vocabulary.values()) != list(range(size if is_whole(size) else -1)):
        raise weights.error(
            f"{part}/", f"has {len(vocabulary)} tokens; the text encoder knows {size!r:.100}"
        )
    _check_pieces(weights, part, tokenizer, model["merges"])
    _check_copies(weights, part, model)
    return tokenizer


def _check_own_files(weights: Weights, part: str, config: Mapping[str, Any]) -> None:
    """Refuse a config that names files, which could lie anywhere."""
    if named := [key for key in ("vocab_file", "merges_file", "tokenizer_file") if key in config]:
        name = f"{part}/{TOKENIZER_SETTINGS}"
        raise weights.error(name, f"names a {named[0]}; the files in {part}/ are used")


def _from_folder(weights: Weights, part: str, kind: Any, length: int) -> Any:
    folder = weights.folder(part)
    return _made(
        weights, f"{part}/", lambda: kind.from_pretrained(folder, local_files_only=True), length
    )


def _made(weights: Weights, where: str, make: Callable[[], Any], length: int) -> Any:
    """Return the tokenizer of `make`, after a trial; a UserError if its files make no sense."""
    try:
        tokenizer = make()
        tokenizer("a", padding="max_length", max_length=length, truncation=True)
    except Exception as error:  # whatever the libraries raise
        raise weights.error(where, f"cannot be loaded: {first_line(error)}") from error
    return tokenizer


def _check_pieces(weights: Weights, part: str, tokenizer: Any, merges: list[Any]) -> None:
    """Refuse a vocabulary whose longer tokens are not exactly those that the merges make."""
    made = {"".join(_pair(merge)) for merge in merges}
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    longer = {t for t in tokenizer.get_vocab() if len(t.removesuffix("</w>")) > 1} - special
    if made != longer:
        example = sorted(made ^ longer)[0]
        raise weights.error(
            f"{part}/",
            f"has merges that do not make its vocabulary: {len(made ^ longer)} tokens differ, such"
            f" as {example!r:.100}",
        )


def _check_copies(weights: Weights, part: str, model: dict[str, Any]) -> None:
    """Refuse files that contradict each other: versions of transformers read different ones."""
    name = f"{part}/vocab.json"
    if weights.find(name) and weights.read(name) != model["vocab"]:
        raise weights.error(f"{part}/", "has a vocab.json that is not its tokenizer.json's")
    if path := weights.find(f"{part}/merges.txt"):
        lines = read_bytes(path).decode("utf-8", "replace").split("\n")
        pairs = [line for line in lines if line and not line.startswith("#version")]
        if pairs != [" ".join(_pair(merge)) for merge in model["merges"]]:
            raise weights.error(f"{part}/", "has a merges.txt that is not its tokenizer.json's")


def _pair(merge: Any) -> list[str]:
    """Return the two pieces of a merge; newer versions write a list, older ones a line."""
    return merge.split(" ") if isinstance(merge, str) else merge


class Pieces:
    """A tokenizer of T5 or SigLIP: the SentencePiece pieces of a text, then the end token."""

    def __init__(self, processor: Any, end: int, pad: int, length: int, extra: int) -> None:
        self.processor, self.end, self.pad_token_id = processor, end, pad
        self.model_max_length, self.extra = length, extra

    def __len__(self) -> int:
        return int(self.processor.vocab_size()) + self.extra

    def __call__(
        self,
        texts: str | Sequence[str],
        padding: str | None = None,
        max_length: int | None = None,
        truncation: bool = False,
        padding_side: str = "right",
        return_tensors: str | None = None,
        **others: Any,
    ) -> BatchEncoding:
        """Return token ids and their mask, as transformers' tokenizers do."""
        several = [texts] if isinstance(texts, str) else list(texts)
        most = max_length or self.model_max_length
        pieces = [self.processor.encode(text) for text in several]
        ids = [[*(row[: most - 1] if truncation else row), self.end] for row in pieces]
        length = most if padding == "max_length" else max(map(len, ids)) if padding else 0
        spare = [max(0, length - len(row)) for row in ids]
        columns = {
            "input_ids": [row + [self.pad_token_id] * n for row, n in zip(ids, spare, strict=True)],
            "attention_mask": [[1] * len(row) + [0] * n for row, n in zip(ids, spare, strict=True)],
        }
        if isinstance(texts, str) and return_tensors is None:
            columns = {name: rows[0] for name, rows in columns.items()}
        return BatchEncoding(columns, tensor_type=return_tensors)

    def batch_decode(self, ids: Any) -> list[str]:
        """Return the texts of token ids, [n, L]."""
        return [str(self.processor.decode(row)) for row in torch.as_tensor(ids).tolist()]


def load_pieces(
    weights: Weights, name: str, path: Path, pad: Any, length: int, extra: int = 0
) -> Pieces:
    """Return the tokenizer in a SentencePiece file, with its padding token `pad`.

    Raises:
        UserError: the library is not installed, or the file is no such model.
    """
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise weights.error(
            name,
            "is all there is of the tokenizer (no tokenizer.json), and reading it needs: pip"
            " install sentencepiece",
        ) from None
    try:
        processor = SentencePieceProcessor(model_file=str(path))
    except Exception as error:  # whatever the library raises where the file makes no sense
        raise weights.error(name, f"is no SentencePiece model: {first_line(error)}") from error
    padding = processor.piece_to_id(pad) if isinstance(pad, str) else -1
    if processor.eos_id() < 0 or padding < 0 or processor.id_to_piece(padding) != pad:
        raise weights.error(name, f"has no end token, or no token {pad!r:.40} for padding")
    return Pieces(processor, processor.eos_id(), padding, length, extra)


@lru_cache(maxsize=4)
def siglip_tokenizer(weights: Weights, positions: int, size: int) -> Any:
    """Return SigLIP's tokenizer, which pads to the length that the model was trained with."""
    config, path = weights.read(TOKENIZER_SETTINGS), weights.find(TOKENIZER)
    classes = ("SiglipTokenizer", "Siglip2Tokenizer", "GemmaTokenizer", "GemmaTokenizerFast")
    check_class(weights, TOKENIZER_SETTINGS, config, "tokenizer_class", classes)
    pad = config.get("pad_token")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    if path is None:
        return _siglip_pieces(weights, pad, positions, size)
    settings = {"pad_token": pad, "padding_side": "right", "model_max_length": positions}
    tokenizer = _made(
        weights,
        TOKENIZER,
        lambda: PreTrainedTokenizerFast(tokenizer_file=str(path), **settings),
        positions,
    )
    largest = max(tokenizer.get_vocab().values(), default=size)
    if tokenizer.pad_token_id is None or largest >= size:
        raise weights.error(TOKENIZER, f"has tokens up to {largest}; the model knows {size}")
    return tokenizer


def _siglip_pieces(weights: Weights, pad: Any, positions: int, size: int) -> Any:
    path = weights.find(SENTENCEPIECE_FILE)
    if path is None:
        raise weights.error(TOKENIZER, f"is not there, and no {SENTENCEPIECE_FILE} either")
    tokenizer = load_pieces(weights, SENTENCEPIECE_FILE, path, pad, positions)
    if len(tokenizer) > size:
        raise weights.error(
            SENTENCEPIECE_FILE, f"has {len(tokenizer)} tokens; the model knows {size}"
        )
    return tokenizer


def _pieces(weights: Weights, name: str, path: Path, config: Mapping[str, Any]) -> Any:
    extra, length = config.get("extra_ids", 100), config.get("model_max_length", 512)
    if not is_whole(extra) or not 0 <= extra <= 1000 or not is_whole(length) or length < 2:
        raise weights.error(name, "comes with a config whose extra_ids or model_max_length is odd")
    pad = config.get("pad_token", "<pad>")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    return load_pieces(weights, name, path, pad, length, extra)


@lru_cache(maxsize=4)
def other_tokenizer(weights: Weights, folder: str, encoder: str, kinds: tuple[str, ...]) -> Any:
    """Return T5's or Gemma's tokenizer in a folder, checked to fit its text encoder.

    Raises:
        UserError: it is of another kind, or its size is not the text encoder's.
    """
    name = f"{folder}/tokenizer_config.json"
    config = weights.read(name)
    check_class(weights, name, config, "tokenizer_class", kinds)
    _check_own_files(weights, folder, config)
    weights.find(f"{folder}/special_tokens_map.json")  # fetched from the Hub for the library
    whole = weights.find(f"{folder}/tokenizer.json")
    pieces = None if whole else weights.find(f"{folder}/{SENTENCEPIECE_FILE}")
    if pieces is not None:
        tokenizer: Any = _pieces(weights, f"{folder}/{SENTENCEPIECE_FILE}", pieces, config)
    elif whole is None:
        raise weights.error(f"{folder}/", f"has no tokenizer.json, and no {SENTENCEPIECE_FILE}")
    else:
        tokenizer = _from_folder(weights, folder, getattr(transformers, kinds[0]), 4)
    size = weights.read(f"{encoder}/config.json").get("vocab_size")
    if not is_whole(size) or not 0 <= size - len(tokenizer) <= SPARE:
        raise weights.error(
            f"{folder}/", f"has {len(tokenizer)} tokens; {encoder}/ knows {size!r:.100}"
        )
    return tokenizer
