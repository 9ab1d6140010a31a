"""A tokenizer that is only a SentencePiece model, read with that library itself.

transformers needs a second library for it, and says of neither that it is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import BatchEncoding

from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import first_line


class Pieces:
    """T5's and SigLIP's way with such a model: a text's pieces, then the end.

    Args:
        processor: of the library.
        end: the id after the last piece.
        pad: the id of padding.
        length: the most tokens of a text.
        extra: tokens that the encoder knows beside the pieces.
    """

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
    ) -> BatchEncoding:
        """Return token ids and their mask, as transformers' tokenizers do."""
        several = [texts] if isinstance(texts, str) else list(texts)
        most = max_length or self.model_max_length
        found = [self.processor.encode(text) for text in several]
        ids = [[*(one[: most - 1] if truncation else one), self.end] for one in found]
        spare = [most - len(one) if padding == "max_length" else 0 for one in ids]
        given = {
            "input_ids": [one + [self.pad_token_id] * n for one, n in zip(ids, spare, strict=True)],
            "attention_mask": [[1] * len(one) + [0] * n for one, n in zip(ids, spare, strict=True)],
        }
        if isinstance(texts, str) and return_tensors is None:
            given = {name: rows[0] for name, rows in given.items()}
        return BatchEncoding(given, tensor_type=return_tensors)


def load_pieces(
    weights: Weights, name: str, path: Path, pad: Any, length: int, extra: int = 0
) -> Pieces:
    """Return the tokenizer.

    Args:
        weights: the model.
        name: the file's, for messages.
        path: the file.
        pad: the text of the token of padding.
        length: the most tokens of a text.
        extra: tokens that the encoder knows beside the pieces.

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
