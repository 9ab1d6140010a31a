"""Parts that pipelines of several families have: tokenizers, text configs, autoencoders."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
import transformers

CHARACTERS = [chr(code) for code in range(97, 123)] + list("-:.,'()>")


def save_clip_tokenizer(folder: Path) -> transformers.CLIPTokenizer:
    """Save a byte-level tokenizer without merges: one token a character."""
    folder.mkdir(parents=True)
    characters = [chr(code) for code in range(33, 127)]
    words = characters + [f"{c}</w>" for c in characters] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    tokenizer.save_pretrained(folder)
    return tokenizer


def clip_config(tokenizer: transformers.CLIPTokenizer, **shape: Any) -> transformers.CLIPTextConfig:
    """Return the config of a CLIP text encoder that knows the tokenizer's tokens and no others."""
    return transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **shape,
    )


def t5_tokenizer(size: int = 0) -> transformers.T5TokenizerFast:
    """Return a tokenizer that makes a token of a character, with `size` tokens at the least."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(character, -3.0) for character in CHARACTERS]
    pieces += [(f"▁unused{number}", -20.0) for number in range(size - len(pieces))]
    spoken = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=2))
    spoken.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    spoken.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    # Of an object, which every version of transformers takes.
    return transformers.T5TokenizerFast(tokenizer_object=spoken, extra_ids=0, model_max_length=512)


def kl_config(widths: Sequence[int], channels: int = 4, **config: Any) -> dict[str, Any]:
    """Return the config of an autoencoder that halves the picture's sides at all widths but one."""
    return {
        "block_out_channels": tuple(widths),
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "latent_channels": channels,
        **config,
    }
