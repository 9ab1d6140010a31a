"""Small autoregressive models with random weights, saved as their authors save them."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    Emu3Config,
    Emu3ForConditionalGeneration,
    Emu3ImageProcessor,
    Emu3Processor,
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = (
    *("a", "photo", "of", "cat", "dog", "drawing", "an", "owl", "in", "tree", "red", "square"),
    *("the", "my", "small", "old", "at", "night", "fir", "kitten"),
    *("handwritten", "digit", *DIGITS),
)
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
TEXT = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "max_position_embeddings": 1024,
}
CODES = 32  # in the codebook of images
TEMPLATE = "{% for message in messages %}User: {{ message['content'][0]['text'] }} .{% endfor %}"


def save_janus(folder: Path, template: str | None = TEMPLATE) -> Path:
    """Save a Janus with images of 4 × 4 tokens."""
    return save(*janus(template=template), folder)


def janus(side: int = 4, template: str | None = TEMPLATE, **sizes: int) -> tuple[Any, Any]:
    """Return a Janus of `side` × `side` tokens, 4 or 8, and its processor.

    `sizes` are those of its language model, where they are not the smallest.
    """
    text_sizes = {**TEXT, **sizes}
    tokenizer = _tokenizer(
        ["<pad>", "<s>", "</s>", "<unk>", "<image>", "<boi>", "<eoi>"],
        {"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>"},
        bos=True,
    )
    vision = {
        **TEXT,
        "image_size": 16,
        "patch_size": 16 // side,
        "projection_dim": text_sizes["hidden_size"],
        "num_image_tokens": side**2,
    }
    codebook = {
        "embed_dim": 8,
        "num_embeddings": CODES,
        "latent_channels": 32,
        "base_channels": 32,
        "channel_multiplier": [1, 1, 1] if side == 4 else [1, 1],
        "num_res_blocks": 1,
        "projection_dim": text_sizes["hidden_size"],
        "image_token_embed_dim": text_sizes["hidden_size"],
    }
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in _SPECIAL.items()}
    text = {**text_sizes, "vocab_size": len(tokenizer), **ids}
    config = JanusConfig(
        text_config={"model_type": "llama", **text},
        vision_config=vision,
        vq_config=codebook,
        image_token_id=tokenizer.image_token_id,
    )
    torch.manual_seed(0)
    model = JanusForConditionalGeneration(config)
    boi = tokenizer.convert_tokens_to_ids("<boi>")
    model.generation_config = GenerationConfig(**ids, generation_kwargs={"boi_token_id": boi})
    processor = JanusProcessor(
        JanusImageProcessorPil(size={"height": 16, "width": 16}, min_size=4, **HALF),
        tokenizer,
        chat_template=template,
        num_image_tokens=side**2,
    )
    return model, processor


def save_emu3(folder: Path) -> Path:
    """Save an Emu3 with square images of 4 × 4 tokens or more."""
    return save(*emu3(), folder)


def emu3(side: int = 4, **sizes: int) -> tuple[Any, Any]:
    """Return an Emu3, whose codebook is a part of its vocabulary, and its processor.

    Square images have `side` × `side` tokens or more; `sizes` as for `janus`.
    """
    visual = [f"<|visual token {code:06d}|>" for code in range(CODES)]
    named = {
        "image_token": "<image>",
        "boi_token": "<|image start|>",
        "eoi_token": "<|image end|>",
        "image_wrapper_token": "<|image token|>",
        "eof_token": "<|extra_201|>",
    }
    digits = [*map(str, range(10)), "*"]
    tokenizer = _tokenizer(
        ["<pad>", "<s>", "</s>", "<unk>", *named.values(), "<|extra_200|>", *visual, *digits], named
    )
    config = Emu3Config(
        vq_config={
            "codebook_size": CODES,
            "embed_dim": 4,
            "latent_channels": 4,
            "base_channels": 32,
            "channel_multiplier": [1, 1, 1, 1],  # an eighth of the side, as the processor expects
            "num_res_blocks": 1,
            "attn_resolutions": [4],
            "hidden_size": 32,
            "num_attention_heads": 1,
            "temporal_downsample_factor": 1,
        },
        text_config={
            **{**TEXT, **sizes},
            "vocab_size": len(tokenizer),
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        vocabulary_map=tokenizer.get_vocab(),
    )
    torch.manual_seed(0)
    model = Emu3ForConditionalGeneration(config)
    pixels = {"min_pixels": (8 * side) ** 2, "max_pixels": 4096}
    images = Emu3ImageProcessor(**pixels, spatial_factor=8, **HALF)
    return model, Emu3Processor(images, tokenizer)


_SPECIAL = {"bos_token_id": "<s>", "pad_token_id": "<pad>", "eos_token_id": "</s>"}


def _tokenizer(
    special: list[str], named: dict[str, str], bos: bool = False
) -> PreTrainedTokenizerFast:
    """Return a tokenizer of a few words, with named special tokens."""
    words = [*special, *WORDS, "User", "Picture", ":", "."]
    vocabulary = {word: n for n, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    if bos:
        first = [("<s>", vocabulary["<s>"])]
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A", None, first)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens=named,
    )


def save(model: Any, processor: Any, folder: Path, noise: float = 0.1) -> Path:
    """Save a model, by default with every tensor random: a fresh one has zeros in many places."""
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(torch.randn_like(tensor) * noise)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
