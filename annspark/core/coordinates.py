"""Coordinates: how the numbers of the input become vectors that stay different in float32.

float32 keeps 24 bits of a number and ends at some 1e38, and squared lengths vanish if the length is below 1e-19.
Three things preserve the neighbors of the input all the same:
- Where vectors are far from the origin, their middle is subtracted in float64.  Distances stay the same.
- Where numbers are very large or very small, all are multiplied by one power of two.
- Where float32 would still round neighbors to equal vectors, vectors are shipped to the join in float64.
"""

from dataclasses import dataclass, replace

import numpy as np

from annspark.core.distance import FAR
from annspark.core.metric import METRICS, Metric, prepare
from annspark.core.vectors import Vectors, fits_float32, is_sparse, len_of, lengths_of, plain

# Lengths and distances, as powers of two:
_NORMAL = (-30.0, 30.0)  # typical lengths that need no factor: float32 holds squared distances some 10^10 times smaller
_LONGEST = 60.0  # the longest vector whose square float32 holds
_SHORTEST = -50.0  # the shortest typical vector of which float32 holds squared distances between neighbors
_PUBLISHED = (-110.0, 124.0)  # typical distances of which a column of type float holds all digits
# Errors:
_HALF_BIT = 2.0**-24  # error of rounding to float32, as a share of the number, at most
_SUMMED = 2.0**-20  # error of adding up a distance in float32, as a share of the distance, at most
_UNCLEAR = 1e-5  # error of a distance that is accepted, as a share of the distance
_FEW = 0.01  # share of users for whom a larger error is accepted
_NOISES = 16  # a distance up to this times the noise, the error of float64 at distance 0, may be that of equal vectors


class OutOfRange(ValueError):
    """The vectors' distances do not fit the published column; the message names a remedy."""


@dataclass(frozen=True)
class Coordinates:
    """How the numbers of the input become vectors.

    metric   : a key of METRICS
    origin   : float64 (dim,), subtracted in float64, for cosine from unit vectors; None where nothing is
    exponent : vectors are multiplied by 2**exponent
    double   : vectors are shipped to the join, and measured there, in float64
    """

    metric: str
    origin: np.ndarray | None = None
    exponent: int = 0
    double: bool = False

    @property
    def facts(self) -> Metric:
        """The record of the metric."""
        return METRICS[self.metric]

    def for_exact_search(self, vectors: Vectors) -> Vectors:
        """Return vectors in float64, as exact as the input, for exact distances."""
        return prepare(vectors, self.metric, exponent=self.exponent, kind=np.float64)

    def for_routing(self, vectors: Vectors) -> Vectors:
        """Return vectors in float32, for routing."""
        return prepare(vectors, self.metric, origin=self.origin, exponent=self.exponent)

    def for_join(self, vectors: Vectors) -> Vectors:
        """Return vectors for the join: in float32, or in float64 where float32 is not enough."""
        kind = np.float64 if self.double else np.float32
        return prepare(vectors, self.metric, origin=self.origin, exponent=self.exponent, kind=kind)

    def in_input_units(self, distances: np.ndarray) -> np.ndarray:
        """Return distances between such vectors in the units of the input, in their own precision."""
        if self.exponent == 0:
            return distances
        return np.ldexp(distances, -self.exponent * self.facts.scales)

    def in_join_units(self, distances: np.ndarray) -> np.ndarray:
        """Return distances in the units of the input as the join has them: the inverse of in_input_units."""
        return distances if self.exponent == 0 else np.ldexp(distances, self.exponent * self.facts.scales)

    def lost_of(self, vectors: Vectors) -> np.ndarray:
        """Return the error that rounding vectors for the join may make in a distance: float64 (n,), published units.

        For cosine that is the error of the euclidean distance between unit vectors.

        vectors : as the input has them
        """
        facts = self.facts
        exact = facts.binary or self.double or (self.origin is None and self.keeps(vectors))
        if exact and not facts.largest:
            return np.zeros(len_of(vectors))
        lengths = lengths_of(self.for_routing(vectors))
        sizes = lengths * float(np.median(lengths)) if facts.largest else lengths
        return self.in_input_units(_HALF_BIT * sizes)

    def need_double(self, vectors: Vectors, nearest: np.ndarray, noise: np.ndarray) -> bool:
        """Return whether rounding to float32 would make too large errors in the distances of neighbors.

        vectors : sampled ones, as the input has them
        nearest : float64 (n,), published distance of the exact k-th neighbor of each, inf where there is none
        noise   : float64 (n,), error of float64 at distance 0; distances of about that size are ignored, as they may be
                  those of equal vectors
        """
        if self.facts.binary or (self.origin is None and self.keeps(vectors)):
            return False
        lost, distance = self.lost_of(vectors), np.abs(nearest)
        if self.facts.unit:
            distance = np.sqrt(2 * distance)
        known = np.isfinite(distance) & (np.abs(nearest) > _NOISES * noise)
        return bool((lost[known] > _UNCLEAR * distance[known]).mean() > _FEW) if known.any() else False

    def join_limit(self, vectors: Vectors, radius: np.ndarray) -> np.ndarray:
        """Return the largest distances that a join may take for the given ones: float64 (n,).

        vectors : as the input has them
        radius  : float64 (n,), distances in published units
        """
        lost = 4 * self.lost_of(vectors)
        known = np.where(np.isfinite(radius), radius, 0)  # 0 times inf would be no number
        if self.facts.unit:
            lost = lost * (np.sqrt(2 * np.maximum(known, 0)) + lost)
        return np.where(np.isfinite(radius), known + _SUMMED * np.abs(known) + lost, radius)

    def holds(self, largest: float, numbers: int) -> bool:
        """Return whether float32 holds the squares of vectors of so many numbers, the largest of that size."""
        if self.facts.scales == 0 or largest == 0:
            return True
        length = float(np.log2(largest)) + np.log2(max(1, min(numbers, 2**20))) / 2 + self.exponent
        return bool(length <= _LONGEST)

    def keeps(self, vectors: Vectors) -> bool:
        """Return whether float32 holds these vectors to the last bit."""
        return not self.facts.unit and fits_float32(vectors)

    def in_double(self) -> "Coordinates":
        """Return the same coordinates with vectors joined in float64."""
        return replace(self, double=True)


def choose_coordinates(sample: Vectors, metric: str, largest: float, *, rounded: bool) -> Coordinates:
    """Return the coordinates for vectors like the sampled ones, whatever the order of the sample.

    sample  : vectors as the input has them, at least one
    largest : the largest number of all vectors, without its sign
    rounded : whether float32 does not hold all numbers of the input to the last bit

    Raises OutOfRange where distances would not fit a column of type float.
    """
    facts, sample = METRICS[metric], plain(sample)
    if facts.binary:
        return Coordinates(metric)
    around = prepare(sample, metric, kind=np.float64)
    origin = None
    if not is_sparse(sample) and facts.moves:
        middle = np.median(around, axis=0)
        # Rounding takes nothing from numbers that float32 holds, however large; unit vectors are always rounded.
        if (rounded or facts.unit) and _is_far(middle, around - middle):
            origin = middle
        around = around - middle if origin is not None else around
    if facts.scales == 0 or largest == 0:
        return Coordinates(metric, origin)
    # Lengths as powers of two, since their squares need not fit float64 either.
    size = int(np.frexp(largest)[1])
    lengths = lengths_of(prepare(around, metric, exponent=-size, kind=np.float64))
    numbers = np.diff(sample.indptr).max(initial=1) if is_sparse(sample) else sample.shape[1]
    longest = size + 1 + np.log2(max(1, numbers)) / 2
    typical = float(np.log2(np.median(lengths[lengths > 0]))) + size if (lengths > 0).any() else longest
    _require_range(facts, facts.scales * typical)
    centring = 0 if _NORMAL[0] <= typical <= _NORMAL[1] else -round(typical)
    exponent = min(centring, int(_LONGEST - longest)) if longest + centring > _LONGEST else centring
    if typical + exponent < _SHORTEST:
        raise OutOfRange(
            f"the largest number is {largest:.3g}, and most vectors are some {_power_of_ten(typical)} long: float32 "
            "cannot hold squared distances of both. Leave the largest out."
        )
    return Coordinates(metric, origin, exponent)


def _is_far(middle: np.ndarray, around: np.ndarray) -> bool:
    """Return whether vectors are so far from the origin that their numbers hold few digits of their differences.

    middle : float64 (dim,), the median of the vectors
    around : float64 (n, dim), the vectors less the middle
    """
    away = np.abs(middle).max(initial=0)
    if away == 0:
        return False
    spread = np.median(lengths_of(around / away))  # of numbers whose squares float64 holds
    return bool(lengths_of((middle / away)[None])[0] ** 2 > FAR * spread**2)


def _require_range(facts: Metric, typical: float) -> None:
    """Raise OutOfRange if a column of type float does not hold typical distances, or products, to all its digits.

    typical : as a power of two
    """
    low, high = _PUBLISHED
    if low <= typical <= high:
        return
    power = -round(typical / facts.scales)
    what = "inner products" if facts.largest else "distances"
    raise OutOfRange(
        f"{what} of these vectors are of the size of {_power_of_ten(typical)}, which the published column, of type "
        f"float, cannot hold. Multiply all vectors by 2**{power}: the neighbors stay the same."
    )


def _power_of_ten(power_of_two: float) -> str:
    return f"1e{round(power_of_two * np.log10(2))}"
