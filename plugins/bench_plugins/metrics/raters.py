"""Agreement with raters, which are other runs or people."""

from typing import Any, ClassVar

import numpy as np

from bench.contracts.measuring import NO_ANSWER, Metric, MetricInput


class ErrorConsistency(Metric):
    """Cohen's kappa of being right on the same images (Geirhos et al., NeurIPS 2020).

    0 is expected of two independent raters with these accuracies; 1 means right and wrong on the
    same images. With several raters, it is the mean of their kappas, each on the rater's images.
    """

    spec: ClassVar[dict[str, Any]] = {
        "name": "error_consistency",
        "needs": ("prediction", "rater"),
        "range": (-1.0, 1.0),
        "unit": "number",
    }

    def value(self, data: MetricInput) -> float:
        """Return the mean of kappa over the raters for whom it is defined.

        It is undefined if the run and the rater are both right, or both wrong, on all images.
        """
        right = data.predictions == data.labels
        kappas = []
        for answers in data.raters.values():
            saw = answers != NO_ANSWER
            own, other = right[saw], (answers == data.labels)[saw]
            if not len(own):
                continue
            a, b = own.mean(), other.mean()
            chance = a * b + (1 - a) * (1 - b)
            if chance < 1:
                kappas.append((float((own == other).mean()) - chance) / (1 - chance))
        if not kappas:
            raise ValueError("the run and each rater are right on all images, or wrong on all")
        return float(np.mean(kappas))
