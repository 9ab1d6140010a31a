"""Baseline classifiers: chance, the most frequent class, and probes that learn from features."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.contracts.backbone import Classifier
from bench.errors import UserError
from bench.inputs.weights import Weights

IMAGES_PER_CALL = 32
PROBE_FOLDS = 5
# Inverse regularisation strengths C, from strong to weak for standardised features.
INVERSE_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
MAX_ITERATIONS = 1000
PIXEL_SIDE = 16  # 768 features; more take minutes to fit and are not more accurate
PIXELS = "pixels"  # value of the parameter `features`; any other names a model

Matrix = NDArray[np.float32]
Features = Callable[[Sequence[Image.Image]], Matrix]


def pixels(images: Sequence[Image.Image], side: int = PIXEL_SIDE) -> Matrix:
    """Return RGB values in [-1, 1] of centre crops, float32 [n, 3 · side · side]."""
    return np.stack([_square(image.convert("RGB"), side) for image in images])


def _square(image: Image.Image, side: int) -> Matrix:
    scale = side / min(image.size)
    width, height = (max(side, round(scale * length)) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(np.asarray(square, np.float32).ravel() / 127.5 - 1)


class Random(Classifier):
    """Uniform random guesses.

    Logits are derived from a hash of the image's pixels, the text and the seed, so they do not
    depend on the order of images or the batch size.
    """

    def __init__(self, weights: Weights | None, *, device: str, dtype: str, seed: int = 0) -> None:
        self.seed = seed

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Matrix:
        """Return logits in [0, 1), float32 [images, texts]."""
        return np.array(
            [[self._guess(image, text) for text in texts] for image in images], np.float32
        )

    def _guess(self, image: Image.Image, text: str) -> float:
        head = f"{self.seed} {image.mode} {image.size} {text} ".encode()
        number = hashlib.blake2b(head + image.tobytes(), digest_size=3).digest()
        return int.from_bytes(number, "big") / 2**24  # exact in float32


class Majority(Classifier):
    """Always predicts the most frequent class of the split that it was fitted on."""

    def __init__(self, weights: Weights | None, *, device: str, dtype: str) -> None:
        self.frequencies: dict[str, float] = {}

    def fit(self, images: Iterable[Image.Image], labels: Sequence[str]) -> Mapping[str, Any]:
        """Count the labels. The images are not read."""
        counts = Counter(labels)
        self.frequencies = {text: count / len(labels) for text, count in counts.items()}
        text, count = counts.most_common(1)[0]
        return {"images": len(labels), "majority": text, "share": count / len(labels)}

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Matrix:
        """Return log class frequencies, float32 [images, texts], the same for all images."""
        logs = np.log([self.frequencies[text] for text in texts])
        return np.tile(logs.astype(np.float32), (len(images), 1))


class _Learned(Classifier):
    """Base class of classifiers that learn from features of images. `fit` sets `texts`, sorted.

    The parameter `features` is `pixels`, with no weights, or anything else for a model; the
    attribute computes features. `resolution` is for pixels only; None for the default. Raises
    UserError if a parameter is missing or does not apply.
    """

    features: Features
    texts: list[str]

    def __init__(
        self,
        weights: Weights | None,
        *,
        device: str,
        dtype: str,
        features: str = "pixels",
        resolution: int | None = None,
    ) -> None:
        if features == PIXELS and weights is not None:
            raise UserError(
                "features=pixels needs no weights. Omit --weights, or use the image embeddings of"
                " that model with --set features=embedding"
            )
        if features == PIXELS:
            self.features = partial(pixels, side=resolution or PIXEL_SIDE)
            return
        if weights is None:
            raise UserError(
                f"features={features!r:.100} is not a known model, and --weights is not set. `bench"
                " list backbones linear-probe` lists the known ones."
            )
        if resolution is not None:
            raise UserError("--resolution applies to features=pixels only; a model has its own.")
        from bench_plugins.backbones.clip import encoder_of

        self.features = encoder_of(weights, device, dtype).images  # loads the model when called

    @classmethod
    def check_weights(cls, weights: Weights | None, *, dtype: str, **parameters: Any) -> None:
        """Check that the features can be computed, without reading tensors."""
        cls(weights, device="cpu", dtype=dtype, **parameters)

    def _read(
        self, images: Iterable[Image.Image], labels: Sequence[str]
    ) -> tuple[Matrix, NDArray[np.int64]]:
        """Return the features, [n, D], and the class indices, [n], of all images. Sets `texts`."""
        self.texts = sorted(set(labels))
        index = {text: n for n, text in enumerate(self.texts)}
        source = iter(images)
        batches = iter(lambda: list(islice(source, IMAGES_PER_CALL)), [])
        rows = np.concatenate([self.features(batch) for batch in batches])
        return rows, np.array([index[label] for label in labels])

    def _columns(self, texts: Sequence[str]) -> list[int]:
        place = {text: n for n, text in enumerate(self.texts)}
        return [place[text] for text in texts]


class NearestMean(_Learned):
    """Predicts the class whose mean features are nearest in squared distance."""

    def fit(self, images: Iterable[Image.Image], labels: Sequence[str]) -> Mapping[str, Any]:
        """Compute the mean of each class's features."""
        features, index = self._read(images, labels)
        rows = [features[index == n].mean(axis=0, dtype=np.float64) for n in range(len(self.texts))]
        self.means = np.stack(rows)
        return {"images": len(features), "features": int(features.shape[1])}

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Matrix:
        """Return negative mean squared distances, float32 [images, texts]."""
        means = self.means[self._columns(texts)]
        rows = self.features(images).astype(np.float64)
        distances = [((means - row) ** 2).mean(axis=1) for row in rows]
        return np.asarray(-np.stack(distances), np.float32)


class Gaussian(_Learned):
    """A normal distribution of features for each class, all with one shrunk covariance.

    It is linear discriminant analysis with equal priors. The covariance within classes is shrunk as
    Ledoit and Wolf (2004) do, by scikit-learn.
    """

    def fit(self, images: Iterable[Image.Image], labels: Sequence[str]) -> Mapping[str, Any]:
        """Estimate the mean of each class, and the covariance within classes.

        Raises UserError if no class has images with different features.
        """
        import sklearn
        from sklearn.covariance import LedoitWolf

        read, index = self._read(images, labels)
        rows = read.astype(np.float64)
        means = np.stack([rows[index == n].mean(axis=0) for n in range(len(self.texts))])
        within = rows - means[index]
        if not within.any():
            raise UserError(
                "backbone gaussian: no class has two images with different features, so there is no"
                " covariance to estimate. nearest-mean needs one image of each class."
            )
        estimate = LedoitWolf(assume_centered=True).fit(within)
        self.weights = np.linalg.solve(estimate.covariance_, means.T).T
        self.bias = -(self.weights * means).sum(axis=1) / 2
        return {
            "images": len(rows),
            "features": int(rows.shape[1]),
            "shrinkage": round(float(estimate.shrinkage_), 6),
            "scikit-learn": sklearn.__version__,
        }

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Matrix:
        """Return log-probabilities up to a constant per image, float32 [images, texts]."""
        rows = self.features(images).astype(np.float64)
        # Row by row, because the rounding of a matrix product depends on the number of rows.
        logits = np.stack([self.weights @ row + self.bias for row in rows])
        return logits[:, self._columns(texts)].astype(np.float32)


class LinearProbe(_Learned):
    """Logistic regression on standardised features, with cross-validated L2 regularisation."""

    def __init__(self, weights: Weights | None, *, seed: int = 0, **settings: Any) -> None:
        super().__init__(weights, **settings)
        self.seed = seed

    def fit(self, images: Iterable[Image.Image], labels: Sequence[str]) -> Mapping[str, Any]:
        """Choose the regularisation by cross-validated accuracy, and fit on all images.

        Ties go to the stronger regularisation. If a class has a single image, cross-validation is
        impossible and the middle strength is used.
        """
        import sklearn

        rows, index = self._read(images, labels)
        self.mean = rows.mean(axis=0, dtype=np.float64)
        deviation = rows.std(axis=0, dtype=np.float64)
        self.scale = np.where(deviation > 1e-8, deviation, 1.0)
        values = self._standardised(rows)
        axes = _row_space(values)
        values = values @ axes
        folds = min(PROBE_FOLDS, int(np.bincount(index).min())) if len(self.texts) > 1 else 0
        accuracy = _cross_validate(values, index, folds, self.seed) if folds > 1 else {}
        chosen = INVERSE_STRENGTHS[len(INVERSE_STRENGTHS) // 2]
        chosen = max(accuracy, key=lambda c: (accuracy[c], -c), default=chosen)
        weights, self.bias, converged = _regress(values, index, chosen)
        self.weights = weights @ axes.T
        return {
            "images": len(rows),
            "features": int(rows.shape[1]),
            "scikit-learn": sklearn.__version__,
            "seed": self.seed,
            "folds": folds if accuracy else 0,
            "C": chosen,
            "accuracy_by_C": {f"{c:g}": round(a, 6) for c, a in accuracy.items()},
            "converged": converged,
        }

    def _standardised(self, rows: Matrix) -> NDArray[np.float64]:
        return np.asarray((rows.astype(np.float64) - self.mean) / self.scale)

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Matrix:
        """Return log-probabilities up to a constant per image, float32 [images, texts]."""
        rows = self._standardised(self.features(images))
        # Row by row, because the rounding of a matrix product depends on the number of rows.
        logits = np.stack([self.weights @ row + self.bias for row in rows])
        return logits[:, self._columns(texts)].astype(np.float32)


def _row_space(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an orthonormal basis of the row space, float64 [D, R], where R is the rank.

    A rotation does not change L2-regularised logits, and a lower rank takes less time: 256 instead
    of 768 for grey images, whose three channels are equal.
    """
    images, features = values.shape
    gram = values @ values.T if images < features else values.T @ values
    sizes, vectors = np.linalg.eigh(gram)
    nonzero = sizes > 1e-9 * max(sizes[-1], 1e-9)
    if not nonzero.any():
        return np.zeros((features, 1))
    vectors = vectors[:, nonzero]
    return np.asarray(
        values.T @ vectors / np.sqrt(sizes[nonzero]) if images < features else vectors
    )


def _regress(
    values: NDArray[np.float64], index: NDArray[np.int64], strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """Return weights, [classes, R], biases, [classes], and whether the fit converged."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if not index.any():  # a single class
        return np.zeros((1, values.shape[1])), np.zeros(1), True
    regression = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the result is recorded instead
        regression.fit(values, index)
    weights, bias = regression.coef_, regression.intercept_
    if len(weights) == 1:  # with two classes, scikit-learn has one row for the second
        weights, bias = np.concatenate([-weights, weights]) / 2, np.array([-1, 1]) * bias / 2
    return weights, bias, bool((regression.n_iter_ < MAX_ITERATIONS).all())


def _cross_validate(
    values: NDArray[np.float64], index: NDArray[np.int64], folds: int, seed: int
) -> dict[float, float]:
    """Return the accuracy on held-out folds by inverse regularisation strength."""
    from sklearn.model_selection import StratifiedKFold

    correct = dict.fromkeys(INVERSE_STRENGTHS, 0)
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(values, index)
    for learn, held_out in splits:
        for strength in INVERSE_STRENGTHS:
            weights, bias, _ = _regress(values[learn], index[learn], strength)
            predicted = (values[held_out] @ weights.T + bias).argmax(axis=1)
            correct[strength] += int((predicted == index[held_out]).sum())
    return {strength: count / len(index) for strength, count in correct.items()}
