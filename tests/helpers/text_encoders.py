"""Small text encoders of transformers' classes, and tokenizers of characters for them."""

from typing import Any

import tokenizers
import transformers
from helpers.parts import t5_tokenizer

WIDTH = 32  # of the networks and encoders
DECODER = {
    "vocab_size": 104,
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
TEMPLATE = (
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}"
    "{% else %}{{ m.content[0].text }}{% endif %}:{% endfor %}"
)


def tokenizer(padding_side: str = "right") -> Any:
    """Return a tokenizer that makes a token of a character, with a template for chats."""
    pieces = ["<pad>", "<s>", "</s>", "<unk>", "\n", *map(chr, range(32, 127))]
    characters = tokenizers.Tokenizer(
        tokenizers.models.BPE({piece: n for n, piece in enumerate(pieces)}, [], unk_token="<unk>")
    )
    characters.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=characters,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="</s>",
        model_max_length=1024,
        padding_side=padding_side,
        chat_template=TEMPLATE,
    )


def decoder(config: Any, model: Any, **more: Any) -> Any:
    """Return a small decoder of a class of transformers."""
    return model(config(**DECODER, pad_token_id=0, **more))


def umt5() -> Any:
    """Return a UMT5 encoder and a tokenizer."""
    words = t5_tokenizer()
    config = transformers.UMT5Config(
        vocab_size=len(words) + 5, d_model=WIDTH, d_kv=16, d_ff=WIDTH, num_layers=2, num_heads=2
    )
    return transformers.UMT5EncoderModel(config), words


def glm_tokenizer() -> Any:
    """Return a tokenizer whose answers have positions, as GLM's do."""
    words = tokenizer("left")

    def encode(texts: Any, **how: Any) -> Any:
        encoded = words(texts, **how)
        encoded["position_ids"] = (encoded["attention_mask"].cumsum(1) - 1).clamp(min=0)
        return encoded

    return encode
