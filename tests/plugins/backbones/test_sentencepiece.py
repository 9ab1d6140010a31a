"""Tokenizers that are only a SentencePiece model: as transformers reads them, or one clear line."""

import json
import shutil
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import transformers
from helpers.encoders import save_siglip
from helpers.refusals import refused

from bench.inputs.weights import resolve
from bench_plugins.backbones._weights.components import tokenizer_of
from bench_plugins.backbones.clip import Siglip

TEXTS = ["a photo of a cat", "an owl in a  tree, red", "dog " * 30, ""]


def save_pieces(path: Path, size: int = 40) -> None:
    """Train a small model, with T5's tokens: 0 pads, 1 ends, 2 is unknown."""
    library = pytest.importorskip("sentencepiece", reason="needs sentencepiece")
    made = BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS[:3], "the red square", "two cats and a dog"] * 9),
        model_writer=made,
        vocab_size=size,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=3,
    )
    path.write_bytes(made.getvalue())


def pipeline(folder: Path, pieces: Path | bytes) -> Path:
    """Write what the tokenizer of a pipeline with a T5 is read from."""
    (folder / "tokenizer").mkdir()
    (folder / "text_encoder").mkdir()
    (folder / "text_encoder/config.json").write_text(json.dumps({"vocab_size": 128}))
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 60, "model_max_length": 512}
    (folder / "tokenizer/tokenizer_config.json").write_text(json.dumps(config))
    content = pieces if isinstance(pieces, bytes) else pieces.read_bytes()
    (folder / "tokenizer/spiece.model").write_bytes(content)
    return folder


def test_t5_s_ids_are_those_of_transformers(tmp_path: Path) -> None:
    save_pieces(tmp_path / "spiece.model")
    pytest.importorskip("google.protobuf", reason="transformers needs protobuf")
    folder = pipeline(tmp_path, tmp_path / "spiece.model")
    theirs = transformers.T5TokenizerFast.from_pretrained(folder / "tokenizer")
    wanted = theirs(
        TEXTS, padding="max_length", max_length=12, truncation=True, return_tensors="pt"
    )
    ours = t5(folder)
    own = ours(TEXTS, padding="max_length", max_length=12, truncation=True, return_tensors="pt")
    assert own.input_ids.tolist() == wanted.input_ids.tolist()
    assert own.attention_mask.tolist() == wanted.attention_mask.tolist()
    assert ours(TEXTS).input_ids == theirs(TEXTS).input_ids


def t5(folder: Path) -> Any:
    return tokenizer_of(resolve(str(folder)), "tokenizer", transformers.T5Tokenizer)


def siglip(folder: Path, words: int = 0) -> Path:
    """Save a SigLIP without its tokenizer.json."""
    save_siglip(folder, words)
    (folder / "tokenizer.json").unlink()
    return folder


def test_siglip_s_texts_are_read_with_it(tmp_path: Path) -> None:
    pieces = tmp_path / "spiece.model"
    save_pieces(pieces)
    small, large = siglip(tmp_path / "small"), siglip(tmp_path / "large", words=60)
    for folder in (small, large):
        shutil.copy(pieces, folder)
    with refused("photo", 15):
        Siglip.token_counts(resolve(str(small)), TEXTS)
    weights = resolve(str(large))
    [count], most = Siglip.token_counts(weights, ["A photo, of a cat!"])
    made = Siglip(weights, device="cpu", dtype="float32")
    read = made.encoder.tokens
    assert read is not None and most == 16
    assert count == len(read("a photo of a cat").input_ids) > 3
    assert made.encoder.texts(["a cat", "a dog"]).shape == (2, 24)
    config = json.loads((large / "tokenizer_config.json").read_text())
    (large / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": "<none>"}))
    with refused("'<none>'"):
        Siglip.token_counts(resolve(str(large)), TEXTS)


@pytest.mark.parametrize("kind", ["t5", "siglip"])
def test_without_the_library_one_line_says_what_to_install(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    if kind == "t5":
        folder = pipeline(tmp_path, b"pieces")
    else:
        (siglip(tmp_path / "siglip") / "spiece.model").write_bytes(b"pieces")
        weights = resolve(str(tmp_path / "siglip"))
    with refused("spiece.model", "pip install sentencepiece protobuf") as error:
        t5(folder) if kind == "t5" else Siglip.token_counts(weights, TEXTS)
    assert "\n" not in str(error.value)
