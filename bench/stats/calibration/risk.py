"""Risk control: settings shown to keep a risk, and conformal quantiles.

The *risk* of a setting is the share of decisions that differ from those of the full sweep, called
disagreements here. Whether a setting keeps it is tested on images that were swept as well.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import ceil, floor, inf, log, log1p

import numpy as np

from bench.contracts.strategy import Floats
from bench.machine.libraries import stats
from bench.store.calibrations import CalibratedSetting, Calibration
from bench.store.formats.documents import RiskChoice

RISKS = (0.1, 0.05, 0.02, 0.01)  # for which settings are shown
LEVEL = 0.95  # confidence level of a bound, over the random choice of the images
# Risk of a setting that is assumed when a sweep is planned. It is lower for the safest settings,
# which differ on 0 of 168 images of UC Merced, and on 0 of 502 of clothes.
PLANNED_SHARE = 0.005


def images_needed(
    risk: float, disagreements: int = 0, level: float = LEVEL, of: int | None = None
) -> int:
    """Return the smallest number of images that show `risk` to be kept (299 for 1 % and 0).

    Fewer are needed if they are drawn without replacement from the `of` images of a split; the
    result is `of` if no smaller number is enough.
    """
    if of is not None:
        return bisect_left(range(of), True, key=lambda n: keeps(disagreements, n, risk, level, of))
    n = ceil(log(1 - level) / log1p(-risk))  # enough if there are no disagreements
    while not keeps(disagreements, n, risk, level):
        n += 1
    return n


def keeps(
    disagreements: int, n: int, risk: float, level: float = LEVEL, of: int | None = None
) -> bool:
    """Return whether disagreements on n images show that the true share is at most `risk`.

    They do if the one-sided upper limit of Clopper & Pearson (Biometrika 26, 1934) is at most
    `risk`: under any larger share, at most as many disagreements have a probability of at most 1 -
    level.

    With `of`, the n images were drawn uniformly and without replacement from `of` images, and the
    share is that of these images. The probability is then hypergeometric, under the smallest number
    of disagreements that exceeds the risk, floor(risk * of) + 1.
    """
    if of is None:
        tail = stats.binom.cdf(disagreements, n, risk)
    else:
        tail = stats.hypergeom.cdf(disagreements, of, most_differing(risk, of) + 1, n)
    return bool(tail <= 1 - level + 1e-12)


def most_differing(risk: float, of: int) -> int:
    """Return the largest number of disagreements among `of` images that keeps `risk`."""
    return floor(risk * of + 1e-9)


@dataclass(frozen=True)
class SweepSize:
    """Size of a calibration sweep, after which the other images are raced."""

    images: int  # number of images to sweep
    allowed: int  # largest number of disagreements among them with which a setting passes
    passes: float  # probability that a setting with a risk of `PLANNED_SHARE` passes
    cost: float  # expected cost of all images, the sweep included


def choose_sweep(of: int, risk: float, full: float, race: float, otherwise: float) -> SweepSize:
    """Return the calibration sweep with the least expected total cost.

    A larger sweep allows more disagreements, so that a setting passes more often. For each allowed
    number c, the smallest sufficient sweep is considered; the other images are raced if there are
    at most c disagreements. For planning only, images are assumed to disagree independently with
    probability `PLANNED_SHARE`. Costs per image are `full` for a sweep, `race` for a race, and
    `otherwise` for the strategy used if no setting passes; `of` is the size of the split.
    """
    sizes: list[SweepSize] = []
    for allowed in range(most_differing(risk, of) + 1):
        images = images_needed(risk, allowed, of=of)
        if sizes and images * full >= min(size.cost for size in sizes):
            break  # this sweep alone costs more than the best plan, and larger ones cost even more
        passes = float(stats.binom.cdf(allowed, images, PLANNED_SHARE))
        rest = passes * race + (1 - passes) * otherwise
        sizes.append(SweepSize(images, allowed, passes, images * full + (of - images) * rest))
    return min(sizes, key=lambda size: size.cost)


def upper_limit(disagreements: int, n: int, level: float = LEVEL) -> float:
    """Return the one-sided Clopper-Pearson upper limit of the share of disagreements."""
    if disagreements >= n:
        return 1.0
    return float(stats.beta.ppf(level, disagreements + 1, n - disagreements))


def passing(
    disagreements: Sequence[int], n: int, risk: float, level: float = LEVEL, of: int | None = None
) -> list[int]:
    """Return the indices of the settings that keep a risk, in a sequence fixed beforehand.

    Fixed-sequence testing, as in "Learn then Test" (Angelopoulos, Bates, Candès, Jordan & Lei,
    arXiv 2110.01052): the settings are tested in their order, safest first, each at the whole
    level, up to the first that fails. The probability that any of those before it exceeds the risk
    is then at most 1 - level. So the cheapest of them may be chosen by its cost on the same images,
    and the choice does not weaken the bound. The order must not depend on these images.
    `disagreements` are the numbers of each setting on the same `n` images; `of` is as for `keeps`.
    """
    passes = [keeps(count, n, risk, level, of) for count in disagreements]
    return list(takewhile(passes.__getitem__, range(len(passes))))


def cheapest(calibration: Calibration, risk: float) -> CalibratedSetting | None:
    """Return the cheapest setting that passed the test of a risk; None if none did."""
    counts = [setting.disagreements or 0 for setting in calibration.settings]
    safe = passing(counts, calibration.images, risk, calibration.level, calibration.of)
    settings = [calibration.settings[place] for place in safe]
    return min(settings, key=lambda setting: setting.cost, default=None)


def risk_choices(calibration: Calibration) -> list[RiskChoice]:
    """Return the parameters chosen for each of `RISKS`, or the images needed if none passed."""
    chosen: list[RiskChoice] = []
    if not calibration.settings:
        return chosen
    for risk in RISKS:
        best = cheapest(calibration, risk)
        if best is None:
            chosen.append(RiskChoice(risk=risk, images_needed=fewest_images(calibration, risk)))
        else:
            params = {name: best.strategy.params[name] for name in calibration.chosen}
            chosen.append(
                RiskChoice(risk=risk, params=params, evaluation_equivalents_per_image=best.cost)
            )
    return chosen


def fewest_images(calibration: Calibration, risk: float) -> int:
    """Return how many images the test needs to pass with the safest setting's disagreements."""
    fewest = calibration.settings[0].disagreements or 0
    return images_needed(risk, fewest, calibration.level, calibration.of)


def distances(scores: Floats) -> Floats:
    """Return the distance of each prompt's score from the lowest, in standard deviations.

    The unit makes images of different contrast comparable. Equal `scores`, float64 [P], give 0.
    """
    above, spread = scores - scores.min(), scores.std()
    return np.asarray(above / spread if spread > 0 else np.zeros_like(above))


def conformal_quantile(values: Floats, risk: float) -> float:
    """Return a bound that a new value exceeds with a probability of at most `risk`.

    It is the ceil((n + 1)(1 - risk))-th smallest of the n values, as in split conformal prediction
    (Vovk, Gammerman & Shafer, *Algorithmic Learning in a Random World*, 2005; Lei et al., JASA 113,
    2018), or infinite if n is below 1 / risk - 1. The values and the new one must be exchangeable,
    and the probability is over all of them.
    """
    rank = ceil((len(values) + 1) * (1 - risk))
    return float(np.sort(values)[rank - 1]) if rank <= len(values) else inf
