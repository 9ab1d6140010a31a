"""Which classes of a confusion matrix a person is shown, where there are too many for all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ALL = 100  # classes of which all are drawn
MOST = 40  # classes that are drawn of more


def most_confused(matrix: NDArray[np.int64], most: int = MOST) -> NDArray[np.int64]:
    """Return the classes with the most frequent confusions, in label order.

    Pairs are taken from the most frequent one down until `most` classes are together; where there
    are too few mistakes, the first classes of the dataset fill the places.

    Args:
        matrix: int64 [true, predicted], counts.
        most: at most so many.

    Returns:
        int64 [≤ most], indices of classes.
    """
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    pairs = np.flatnonzero(wrong)
    pairs = pairs[
        np.argsort(-wrong.ravel()[pairs], kind="stable")[:most]
    ]  # each adds a class or two
    classes = np.stack(np.unravel_index(pairs, matrix.shape), axis=1).ravel()
    chosen = dict.fromkeys([*classes.tolist(), *range(len(matrix))])
    return np.sort(np.fromiter(chosen, np.int64)[:most])
