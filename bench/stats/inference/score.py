"""Score tests and intervals of a mean over images whose values have a known range.

A hypothetical mean is tested with the variance that values have if it is true: that of the most
likely distribution with this mean, on the observed values and the two ends of the range (empirical
likelihood). With single answers the interval is Wilson's, and for differences of two of them
Tango's (Statistics in Medicine 17, 1998). If all images agree, the interval is still wide, and not
narrower if several runs agree on each.

With `usual_change`, a deviation is corrected for continuity by half of it, and for the skewness of
that distribution (Gart & Nam, Biometrics 44, 1988; Laud, Pharmaceutical Statistics 16, 2017), so
that intervals cover, and tests of equality err, at their level with few images as well
(`benchmarks/verdicts.py`).
"""

from dataclasses import dataclass

import numpy as np

from bench.contracts.strategy import Bools, Floats, Ints
from bench.machine.libraries import optimize
from bench.stats.inference.paired import Z95, bisected, skew_corrected

SAME_MEAN = 1e-12  # difference of means that is rounding
BELOW_POLE = 1 - 1e-12  # of the tilt that makes the probability at the largest residual infinite


def unit_sums(values: Floats, clusters: Ints | None) -> tuple[Floats, Ints]:
    """Return sums of `values` [runs, images] over units, and each unit's number of images.

    A unit is a cluster, or a single image where there are no clusters.
    """
    if clusters is None:
        return values, np.ones(values.shape[1], dtype=np.int64)
    _, member = np.unique(clusters, return_inverse=True)
    return np.stack([np.bincount(member, weights=row) for row in values]), np.bincount(member)


@dataclass(frozen=True)
class MeanScore:
    """The score test of a mean over images, or over clusters of them."""

    sums: Floats  # sum of a unit's values, divided by the number of images of the mean unit
    sizes: Floats  # number of a unit's images, divided by the same
    shares: Floats  # share of the units that have this sum and size
    units: int  # number of units
    ends: tuple[float, float]  # smallest and largest value of an image
    usual_change: float  # size of a usual change of one of `sums`; 0 for no corrections

    @property
    def mean(self) -> float:
        """Mean over the images."""
        return float(self.shares @ self.sums)

    def z(self, mean: float) -> float:
        """Return the score of a hypothetical `mean`, positive if the observed one is larger.

        Residuals r are positive on the side of `mean` that is away from the observed mean. The most
        likely distribution whose mean residual is 0 has the probability share / (1 - tilt r) at
        each observed r, with tilt > 0, and what is missing to 1 at the largest possible r.
        """
        deviation = self.mean - mean
        if abs(deviation) < SAME_MEAN:
            return 0.0
        sign, far_end = (1.0, self.ends[0]) if deviation > 0 else (-1.0, self.ends[1])
        residuals = sign * (mean * self.sizes - self.sums)
        # The expected size of the unit of a random image.
        size_of_unseen = float(self.shares @ self.sizes**2)
        largest = max(size_of_unseen * sign * (mean - far_end), float(residuals.max()))
        if largest <= 0:  # only a distribution with all images at `far_end` has this mean
            return sign * np.inf

        def mean_residual(tilt: float) -> float:
            return float(self.shares @ (residuals / (1 - tilt * residuals)))

        tilt = BELOW_POLE / largest
        if mean_residual(tilt) > 0:
            tilt = optimize.brentq(mean_residual, 0.0, tilt)
        likely = self.shares / (1 - tilt * residuals)
        at_largest = max(0.0, 1 - float(likely.sum()))
        variance, third = (float(likely @ residuals**k + at_largest * largest**k) for k in (2, 3))
        error = float(np.sqrt(variance / self.units))
        away = max(0.0, abs(deviation) - self.usual_change / 2 / self.units) / error
        if self.usual_change:  # residuals point the other way than the observed mean: a minus
            away = float(skew_corrected(away, -third / variance**1.5 / self.units**0.5))
        return sign * away

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval: all means that a two-sided test does not reject at 5 %."""

        def rejected(means: Floats) -> Bools:
            return np.array([abs(self.z(mean)) > Z95 for mean in means])

        low, high = bisected(rejected, np.full(2, self.mean), np.array(self.ends)).tolist()
        return low, high


def mean_score(
    values: Floats, clusters: Ints | None, ends: tuple[float, float], corrected: bool = False
) -> MeanScore:
    """Return the score test of the mean of `values`, float64 [n], of images with these `ends`.

    It is `corrected` for continuity and skewness by the size of a usual change: the mean of the
    units' absolute sums, weighted by these, or the largest possible value if all sums are 0.
    """
    sums, sizes = unit_sums(values[None], clusters)
    units, total = len(sizes), np.abs(sums).sum()
    images_per_unit = len(values) / units
    change = float((sums**2).sum() / total) / images_per_unit if total > 0 else max(map(abs, ends))
    distinct, counts = np.unique(np.column_stack([sums[0], sizes]), axis=0, return_counts=True)
    return MeanScore(
        sums=distinct[:, 0] / images_per_unit,
        sizes=distinct[:, 1] / images_per_unit,
        shares=counts / units,
        units=units,
        ends=ends,
        usual_change=change if corrected else 0.0,
    )
