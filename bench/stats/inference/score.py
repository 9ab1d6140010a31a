"""Score tests and intervals of a mean over images whose values have a known range.

For a hypothetical mean, the variance of the observed one is that under the distribution that has
this mean and is most likely given the images; besides the observed values, it may have the ends of
their range. With single answers this is Wilson's interval, and for differences of two of them
Tango's (Statistics in Medicine 17, 1998). Images that all agree say little of those to come, and
the interval shows that, however many runs agree on each.

With `step`, a deviation is corrected for continuity by half of it, and for the skewness of that
distribution (Gart & Nam, Biometrics 44, 1988; Laud, Pharmaceutical Statistics 16, 2017), so that
intervals cover, and tests of equality err, at their level with few images as well
(`benchmarks/verdicts.py`).
"""

from dataclasses import dataclass

import numpy as np

from bench.contracts.strategy import Bools, Floats, Ints
from bench.machine.libraries import optimize
from bench.stats.inference.paired import Z95, bisected, skew_corrected

SAME_MEAN = 1e-12  # difference of means that is rounding
NEARLY = 1 - 1e-12  # of the largest tilt, at which the likelihood of the largest value is infinite


def unit_sums(values: Floats, clusters: Ints | None) -> tuple[Floats, Ints]:
    """Return the sum of `values` [runs, images] over each cluster, or image, and its size."""
    if clusters is None:
        return values, np.ones(values.shape[1], dtype=np.int64)
    _, member = np.unique(clusters, return_inverse=True)
    return np.stack([np.bincount(member, weights=row) for row in values]), np.bincount(member)


@dataclass(frozen=True)
class MeanScore:
    """The score test of a mean over images, or over clusters of them."""

    sums: Floats  # sum of the values of a unit, that is, an image or a cluster
    sizes: Floats  # its images, relative to those of the mean unit
    shares: Floats  # share of the units that have this sum and size
    units: int  # number of units
    ends: tuple[float, float]  # smallest and largest value of an image
    step: float  # size of a usual change of a unit's sum; 0 for no corrections

    @property
    def mean(self) -> float:
        """Mean over the images."""
        return float(self.shares @ self.sums)

    def z(self, mean: float) -> float:
        """Return the score of a hypothetical `mean`, positive if the observed one is larger."""
        deviation = self.mean - mean
        if abs(deviation) < SAME_MEAN:
            return 0.0
        side = -1.0 if deviation > 0 else 1.0  # of the hypothetical mean from the observed one
        residuals = side * (self.sums - mean * self.sizes)
        unseen = float(self.shares @ self.sizes**2)  # size of the unit of a random image
        most = max(unseen * side * (self.ends[side > 0] - mean), float(residuals.max()))
        if most <= 0:  # no distribution on the range has this mean, except for one of its ends
            return -side * np.inf

        def excess(tilt: float) -> float:
            return float(self.shares @ (residuals / (1 - tilt * residuals)))

        tilt = NEARLY / most
        if excess(tilt) > 0:
            tilt = optimize.brentq(excess, 0.0, tilt)
        likely = self.shares / (1 - tilt * residuals)
        rest = max(0.0, 1 - float(likely.sum()))  # probability of the end of the range
        square, cube = (float(likely @ residuals**k + rest * most**k) for k in (2, 3))
        error = float(np.sqrt(square / self.units))
        away = max(0.0, abs(deviation) - self.step / 2 / self.units) / error
        if self.step:
            away = float(skew_corrected(away, -cube / square**1.5 / self.units**0.5))
        return -side * away

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
    units' absolute sums, weighted by these; the largest one if no unit has any.
    """
    sums, sizes = unit_sums(values[None], clusters)
    rows, counts = np.unique(np.column_stack([sums[0], sizes]), axis=0, return_counts=True)
    images, size = len(values) / len(sizes), np.abs(sums).sum()  # images per unit
    step = float((sums**2).sum() / size) / images if size > 0 else max(map(abs, ends))
    return MeanScore(
        sums=rows[:, 0] / images,
        sizes=rows[:, 1] / images,
        shares=counts / len(sizes),
        units=len(sizes),
        ends=ends,
        step=step if corrected else 0.0,
    )
