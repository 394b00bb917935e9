"""What is asked for on a command line, in words: statistics and layers."""

from __future__ import annotations

from collections.abc import Sequence

from windeye.ops import (
    ColumnMean,
    ColumnSum,
    DistanceMass,
    Entropy,
    FutureInfluence,
    MaxWeight,
    MeanDistance,
    Participation,
    RowMass,
    SinkMass,
    Statistic,
    WindowedDistance,
)

STATISTICS: dict[str, tuple[type[Statistic], str]] = {
    "entropy": (Entropy, "spread over the keys, nats"),
    "participation": (Participation, "sum of squared weights; its inverse is the effective number of keys"),
    "max_weight": (MaxWeight, "weight of the heaviest key"),
    "mean_distance": (MeanDistance, "how far a query looks, tokens"),
    "windowed_distance": (WindowedDistance, "the same, cut off at 10 tokens (:window): WAAD"),
    "distance_mass": (DistanceMass, "weight on keys :low:high tokens back"),
    "sink_mass": (SinkMass, "weight on the first token (:count)"),
    "row_mass": (RowMass, "sum of a row: below 1 where learned sinks take a share"),
    "column_mean": (ColumnMean, "weight that a key receives, mean over the queries that see it"),
    "column_sum": (ColumnSum, "weight that a key receives"),
    "future_influence": (FutureInfluence, "weight that a key receives 10 to 100 tokens later (:low:high): FAI"),
}
"""By name: the statistic, and what it says. Numbers behind colons are its arguments."""

SHORT = {
    "waad": "windowed_distance",
    "fai": "future_influence",
    "self": "distance_mass:0:0",
    "previous": "distance_mass:1:1",
    "sink": "sink_mass",
    "received": "column_mean",
}
"""Short names, which are also those of the columns that they give."""

DEFAULT = ("entropy", "mean_distance", "waad", "fai", "sink", "previous", "self", "max_weight", "received")


def statistics_of(words: Sequence[str]) -> dict[str, Statistic]:
    """Statistics by the words that name them, such as "entropy", "waad", "distance_mass:0:8".

    Raises:
        ValueError: a word names none, or its numbers do not fit; lists what there is.

    Example:
        >>> statistics_of(["entropy", "waad:20", "previous"])
        {'entropy': Entropy(), 'waad:20': WindowedDistance(window=20), 'previous': DistanceMass(low=1, high=1)}
    """
    found = {}
    for word in words:
        name, *numbers = word.strip().split(":")
        full, *implied = SHORT.get(name, name).split(":")
        if full not in STATISTICS:
            raise ValueError(f"there is no statistic {word!r}; there are {', '.join((*SHORT, *STATISTICS))}")
        try:
            found[word.strip()] = STATISTICS[full][0](*map(int, numbers or implied))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{word!r} does not say a statistic: {STATISTICS[full][1]} ({error})") from None
    if not found:
        raise ValueError(f"no statistic is named; there are {', '.join((*SHORT, *STATISTICS))}")
    return found


def layers_of(text: str, count: int) -> tuple[int, ...]:
    """Layers such as "0-3,17" of a model that has ``count``, in order.

    Raises:
        ValueError: it names none, or layers that there are not.

    Example:
        >>> layers_of("17,0-2", 30)
        (0, 1, 2, 17)
    """
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"layers must be numbers and ranges such as 0-3,17, got {text!r}")
        chosen |= set(range(int(first), int(last if dash else first) + 1))
    if not chosen or max(chosen) >= count:
        raise ValueError(f"layers {text!r} are not all there: the model has layers 0 to {count - 1}")
    return tuple(sorted(chosen))
