"""CLIP, SigLIP and DINOv2: embeddings of images and texts, cached on disk, and classifiers.

CLIP and SigLIP score images against texts by cosine similarity.

Images are prepared by an image processor of transformers, as the folder describes. Of its classes
the one that resizes with PIL is used, so that equal ids mean equal numbers.
"""

import re
import string
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache, partial
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPModel,
    CLIPTokenizer,
    Dinov2Model,
    PreTrainedTokenizerFast,
    Siglip2Model,
    SiglipModel,
    T5Tokenizer,
)
from typing_extensions import override

from bench.contracts.backbone import Classifier
from bench.inputs.weights import Weights
from bench_plugins.backbones._pipelines.runner import token_problem
from bench_plugins.backbones._weights.checkpoint import (
    HERE,
    check_headers,
    explained,
    load_model,
    named_weights,
)
from bench_plugins.backbones._weights.components import (
    TOKENIZER,
    TOKENIZER_SETTINGS,
    build_on_meta,
    check_class,
    tokenizer_of,
)
from bench_plugins.backbones._weights.counting import counted_operations, size
from bench_plugins.backbones._weights.embedding_cache import Rows, cache_key, cached_rows, image_key

EMBEDDING_VERSION = 1  # increase it if a change of the code changes embeddings
ENCODER_BATCH = 64  # texts


class Encoder:
    """Image and text embeddings of a model of one architecture, cached on disk.

    All files are validated at once; UserError is raised if they are missing, invalid or of another
    architecture. The network is loaded if an embedding is not cached.

    Attributes:
        model_type: class attribute; the architecture, as a config names it.
        model: class attribute; the class in transformers.
        processor_name: class attribute; it begins the name of the class that prepares images.
        size: number of bytes of the parameters.
        tokens: the tokenizer; None if the model does not embed texts.
    """

    model_type: ClassVar[str]
    model: ClassVar[Any]
    processor_name: ClassVar[str]

    def __init__(self, weights: Weights, device: str, dtype: str) -> None:
        self.weights = weights
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        empty: Any = build_on_meta(weights, HERE, self.model)
        check_headers(weights, HERE, empty.to(self.dtype))
        self.size, self.config = size(empty), empty.config
        self.processor = _image_processor(weights, self.processor_name, self.input_shape())
        with explained(weights, f"{HERE}/{TOKENIZER}", "cannot be loaded"):
            self.tokens = self.tokenizer()
        version = f"{type(self).__name__} {EMBEDDING_VERSION}"
        self._cached = partial(cached_rows, f"{version} {weights.fingerprint} {dtype}")

    def input_shape(self) -> tuple[int, ...]:
        """Return what the network requires of the last axes of its first argument."""
        return (int(self.config.vision_config.image_size),) * 2

    def tokenizer(self) -> Any:
        """Return the tokenizer; None if the model does not embed texts."""
        return None

    def clean(self, text: str) -> str:
        """Return a text as the tokenizer gets it: by default as it is."""
        return text

    def embed_images(self, *inputs: Tensor) -> Any:
        """Return the embeddings of images, [n, D], given what `prepare_images` returned."""
        return self.network.vision_model(*inputs).pooler_output

    def embed_texts(self, ids: Tensor, mask: Any) -> Any:
        """Return the embeddings of texts, [n, D], given their tokens and a mask of padding."""
        return self.network.text_model(input_ids=ids).pooler_output

    def operations(self) -> float | None:
        """Return the floating-point operations of the embedding of one image; None if unknown."""
        empty: Any = build_on_meta(self.weights, HERE, self.model)
        (pixels,) = prepare_images(self.processor, [Image.new("RGB", (64, 64))])
        inputs = torch.from_numpy(pixels).to("meta")
        return counted_operations(lambda: empty.vision_model(inputs))

    @property
    def limit(self) -> int:
        """Maximum number of tokens of a text."""
        return int(self.config.text_config.max_position_embeddings)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, with special tokens."""
        return [len(ids) for ids in self.tokens(self._cleaned(texts))["input_ids"]] if texts else []

    def _cleaned(self, texts: Sequence[str]) -> list[str]:
        """Clean texts. Raises UserError if one has a token that the model does not know."""
        cleaned = [self.clean(text) for text in texts]
        if problem := token_problem(self.tokens, cleaned, self.config.text_config.vocab_size):
            raise self.weights.error(TOKENIZER, problem)
        return cleaned

    @cached_property
    def network(self) -> Any:
        """The network. Reading it loads it."""
        return load_model(self.weights, HERE, self.model, self.dtype, self.device)

    def images(self, images: Sequence[Image.Image]) -> Rows:
        """Return the images' embeddings, normalised to length 1, float32 [n, D]."""
        keys = [image_key(image) for image in images]
        return self._cached(keys, lambda: self._images(images))

    def texts(self, texts: Sequence[str]) -> Rows:
        """Return the texts' embeddings, normalised to length 1, float32 [n, D]."""
        keys = [cache_key("text", text.encode()) for text in texts]
        starts = range(0, len(texts), ENCODER_BATCH)
        return self._cached(
            keys,
            lambda: np.concatenate([self._texts(texts[n : n + ENCODER_BATCH]) for n in starts]),
        )

    @cached_property
    def scale_and_bias(self) -> tuple[float, float]:
        """Scale and bias that turn a cosine similarity into a logit."""

        def compute() -> Rows:
            scale = self.network.logit_scale.float().exp().item()
            bias = getattr(self.network, "logit_bias", torch.zeros(1)).float().item()
            return np.array([[scale, bias]], np.float32)

        scale, bias = self._cached([cache_key("scale and bias", b"")], compute)[0].tolist()
        return scale, bias

    @torch.inference_mode()
    def _images(self, images: Sequence[Image.Image]) -> Rows:
        arrays = prepare_images(self.processor, images)
        pixels, *more = [torch.from_numpy(array).to(self.device) for array in arrays]
        return _unit(self.embed_images(pixels.to(self.dtype), *more))

    @torch.inference_mode()
    def _texts(self, texts: Sequence[str]) -> Rows:
        length = {"padding": "max_length", "max_length": self.limit, "truncation": True}
        tokens = self.tokens(self._cleaned(texts), return_tensors="pt", **length).to(self.device)
        return _unit(self.embed_texts(tokens["input_ids"], tokens.get("attention_mask")))


class ClipEncoder(Encoder):
    """CLIP."""

    model_type, model, processor_name = "clip", CLIPModel, "CLIP"

    @override
    def tokenizer(self) -> Any:
        return tokenizer_of(self.weights, HERE, CLIPTokenizer)

    @override
    def embed_images(self, *inputs: Tensor) -> Any:
        return self.network.visual_projection(super().embed_images(*inputs))

    @override
    def embed_texts(self, ids: Tensor, mask: Any) -> Any:
        pooled = self.network.text_model(input_ids=ids, attention_mask=mask).pooler_output
        return self.network.text_projection(pooled)


class SiglipEncoder(Encoder):
    """SigLIP, with texts in the format of its training: lower case and no punctuation."""

    model_type, model, processor_name = "siglip", SiglipModel, "Siglip"

    @override
    def clean(self, text: str) -> str:
        words = text.translate(str.maketrans("", "", string.punctuation))
        return re.sub(r"\s+", " ", words).strip().lower()

    @override
    def tokenizer(self) -> Any:
        """Return the tokenizer. The model was trained to pad texts to `limit` tokens."""
        config, file = self.weights.read(TOKENIZER_SETTINGS), self.weights.find(TOKENIZER)
        pad = config.get("pad_token")
        settings = {"padding_side": "right", "model_max_length": self.limit}
        if file:
            tokenizer: Any = PreTrainedTokenizerFast(tokenizer_file=str(file), **settings)
        else:  # the class of T5 reads SentencePiece's files with every version of transformers
            settings |= {"extra_ids": 0, "pad_token": "</s>"}
            tokenizer = tokenizer_of(self.weights, HERE, T5Tokenizer, **settings)
        pad = pad.get("content") if isinstance(pad, Mapping) else pad
        if pad not in tokenizer.get_vocab():
            raise self.weights.error(TOKENIZER, f"lacks the padding token {pad!r:.40}")
        tokenizer.pad_token = pad
        return tokenizer


class Siglip2Encoder(SiglipEncoder):
    """SigLIP 2 of a fixed resolution, which keeps punctuation (Tschannen et al., 2025).

    Its configuration names SigLIP's architecture. So it is not among `ENCODERS`: the backbone
    chooses it.
    """

    @override
    def clean(self, text: str) -> str:
        return text.lower()


class NaflexEncoder(Siglip2Encoder):
    """SigLIP 2 for images of any aspect ratio and resolution, which has its own class."""

    model_type, model, processor_name = "siglip2", Siglip2Model, "Siglip2"

    @override
    def input_shape(self) -> tuple[int, ...]:
        return (3 * int(self.config.vision_config.patch_size) ** 2,)

    @override
    def operations(self) -> float | None:
        return None  # its network reads the numbers of patches, which meta tensors have not


class Dinov2Encoder(Encoder):
    """DINOv2, which embeds images alone, and interpolates its positions to any size."""

    model_type, model, processor_name = "dinov2", Dinov2Model, "Bit"

    @override
    def input_shape(self) -> tuple[int, ...]:
        return ()

    @override
    def embed_images(self, *inputs: Tensor) -> Any:
        return self.network(*inputs).pooler_output


ENCODERS = (ClipEncoder, SiglipEncoder, NaflexEncoder, Dinov2Encoder)


def encoder_of(
    weights: Weights, device: str, dtype: str, encoders: Sequence[type[Encoder]] = ENCODERS
) -> Encoder:
    """Return the encoder of a folder's model. Raises UserError if it is not one of `encoders`."""
    config = weights.read("config.json")
    by_type = {encoder.model_type: encoder for encoder in encoders}
    check_class(weights, "config.json", config, "model_type", [*by_type])
    return by_type[config["model_type"]](weights, device, dtype)


def _unit(rows: Tensor) -> Rows:
    """Return rows normalised to length 1, float32 [n, D]."""
    values = rows.float()
    return np.asarray((values / values.norm(dim=-1, keepdim=True)).cpu().numpy(), np.float32)


PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"  # newer transformers write all preprocessing to this file
PROCESSOR_KEY = "image_processor"  # its key for images
SIZES = ("size", "crop_size", "patch_size", "max_num_patches")
MAX_SIZE = 4096  # pixels or patches
ARGUMENTS = ("pixel_values", "pixel_attention_mask", "spatial_shapes")  # of the vision network


def prepare_images(processor: Any, images: Sequence[Image.Image]) -> tuple[NDArray[Any], ...]:
    """Return the arguments of the vision network: pixel values, float32 [n, 3, H, W].

    Those of NaFlex, which keeps the aspect ratio, are patches, float32 [n, L, D], a mask with 0 for
    padding, [n, L], and the numbers of patches down and across, [n, 2].
    """
    rgb = [image.convert("RGB") for image in images]
    # Which axis has the colours would be guessed, wrongly for an image of one pixel.
    prepared = processor(rgb, input_data_format="channels_last")
    return tuple(np.stack(prepared[name]) for name in ARGUMENTS if name in prepared)


def _image_processor(weights: Weights, kind: str, shape: tuple[int, ...]) -> Any:
    """Return the image processor of class `kind` that a folder describes.

    `shape` has the last axes of the network's first argument: (H, W) of an image, (D,) of patches,
    () if any will do. Raises UserError if
    the preprocessing is incomplete, fails for an image, or does not fit.
    """
    name, config = _read(weights)
    sizes = re.findall(r"-?\d+", str([config.get(key) for key in SIZES]))
    if wrong := [number for number in sizes if not 1 <= int(number) <= MAX_SIZE]:
        raise weights.error(name, f"has a size of {wrong[0]:.40}; expected 1 to {MAX_SIZE:,}")
    processor_cls = getattr(transformers, f"{kind}ImageProcessorPil", None)
    processor_cls = processor_cls or getattr(transformers, f"{kind}ImageProcessor")
    with explained(weights, name, "cannot be used"), np.errstate(all="ignore"):  # checked below
        processor = processor_cls.from_dict(dict(config))
        values, *_ = prepare_images(processor, [Image.new("RGB", (64, 48))])
    if values.shape[values.ndim - len(shape) :] != shape:
        raise weights.error(
            name, f"prepares images as {values.shape[1:]}; the network requires {shape}"
        )
    if not np.isfinite(values).all():
        raise weights.error(name, "makes values that are not finite")
    return processor


def _read(weights: Weights) -> tuple[str, Mapping[str, Any]]:
    if weights.find(PREPROCESSOR) or not weights.find(PROCESSOR):
        return PREPROCESSOR, weights.read(PREPROCESSOR)
    config = weights.read(PROCESSOR).get(PROCESSOR_KEY)
    if not isinstance(config, Mapping):
        raise weights.error(PROCESSOR, f"has no {PROCESSOR_KEY}, and there is no {PREPROCESSOR}")
    return PROCESSOR, config


class Clip(Classifier):
    """OpenAI's CLIP, and OpenCLIP's weights in transformers' layout."""

    encoders: ClassVar[tuple[type[Encoder], ...]] = (ClipEncoder,)

    def __init__(self, weights: Weights | None, *, device: str, dtype: str) -> None:
        self.encoder = self._read(weights, device, dtype)
        # All images of a run are scored against the same texts.
        self._embed_texts = lru_cache(1)(self.encoder.texts)
        self._embed_sets = lru_cache(1)(self._mean_embeddings)

    @classmethod
    def _read(cls, weights: Weights | None, device: str, dtype: str) -> Encoder:
        return encoder_of(named_weights(weights), device, dtype, cls.encoders)

    @classmethod
    @override
    def check_weights(cls, weights: Weights | None, *, dtype: str, **parameters: Any) -> None:
        cls._read(weights, "cpu", dtype)

    @classmethod
    @override
    def memory(cls, weights: Weights, dtype: str, **parameters: Any) -> int:
        return cls._read(weights, "cpu", dtype).size

    @classmethod
    def evaluation_flops(
        cls, weights: Weights | None, resolution: int | None = None
    ) -> float | None:
        """Return the operations of encoding one image; those of texts are shared by all images."""
        return cls._read(weights, "cpu", "float32").operations()

    @classmethod
    @override
    def token_counts(cls, weights: Weights | None, texts: Sequence[str]) -> tuple[list[int], int]:
        encoder = cls._read(weights, "cpu", "float32")
        return encoder.counts(texts), encoder.limit

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Rows:
        """Return logits, float32 [images, texts], equal to the model's `logits_per_image`."""
        return self._logits(images, self._embed_texts(tuple(texts)))

    def score_sets(self, images: Sequence[Image.Image], sets: Sequence[Sequence[str]]) -> Rows:
        """Return logits, float32 [images, sets].

        A set's embedding is the mean of its texts' embeddings, which have length 1, normalised to
        length 1.
        """
        return self._logits(images, self._embed_sets(tuple(map(tuple, sets))))

    def _mean_embeddings(self, sets: Sequence[Sequence[str]]) -> Rows:
        rows = self.encoder.texts([text for texts in sets for text in texts])
        ends = np.cumsum([0, *map(len, sets)])
        means = np.stack([rows[start:end].mean(axis=0) for start, end in pairwise(ends)])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        return np.asarray(means, np.float32)

    def _logits(self, images: Sequence[Image.Image], texts: Rows) -> Rows:
        scale, bias = self.encoder.scale_and_bias
        return np.asarray(self.encoder.images(images) @ texts.T * scale + bias, np.float32)


class Siglip(Clip):
    """SigLIP, whose logits have a bias. Texts are lowercased and lose their punctuation."""

    encoders = (SiglipEncoder,)


class Siglip2(Clip):
    """SigLIP 2, with a fixed resolution or NaFlex, which keeps an image's aspect ratio.

    Texts are lowercased.
    """

    encoders = (Siglip2Encoder, NaflexEncoder)
