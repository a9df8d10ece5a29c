"""The designs of stored rounds: what each sample of a round that drew its inputs stands for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.evidence.queries import Reader, fetch, fetch_stored
from catalog.statistics.input_draw import SampleDesign

_SIZES = "SELECT input_id, size FROM pool_input WHERE pool_id IN (SELECT id FROM input_pool WHERE key = :key)"


@dataclass(frozen=True, eq=False)
class StoredSizes:
    """The sizes of a pool's inputs, by id and all of them ascending."""

    by_id: Mapping[str, int]
    ascending: NDArray[np.float64]


# Of one sample: the id of its measurement, its input, and its stratum.
DesignedSample = tuple[int, str, str | None]


class StoredDesigns:
    """The designs of all measurements, read when the first one that has any is needed."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._sizes: dict[str, StoredSizes] = {}

    def of(self, samples: Sequence[DesignedSample]) -> SampleDesign | None:
        """Return the design of the samples of one latency key; None where rounds and inputs are crossed.

        Parameters
        ----------
        samples : sequence of (measurement id, input id, stratum)

        Returns
        -------
        SampleDesign or None
            The size is None where a pool lacks one of the inputs.
        """
        drawn = [(measurement, stratum) for measurement, _, stratum in samples if stratum is not None]
        # A design is in the key: if one sample has no stratum, none has.
        if not samples or len(drawn) < len(samples):
            return None
        counts = Counter(drawn)
        pool_inputs = {place: self._strata.get(place[0], {}).get(place[1], {}).get("pool", 0) for place in counts}
        # Evidence from elsewhere may say that a stratum is empty, or have a round of certain inputs alone, which has no
        # level of its own: such a design describes nothing.
        drawing = {measurement for measurement, stratum in counts if stratum != "certainty"}
        if not all(pool_inputs.values()) or any(measurement not in drawing for measurement, _ in counts):
            return None
        # The samples of a stratum share what it stands for, repetitions included.
        weight = [pool_inputs[place] / counts[place] for place in drawn]
        certain = [stratum == "certainty" for _, _, stratum in samples]
        pools = {self._pool_key(measurement) for measurement, *_ in samples}
        # The rounds of one latency key have one pool: it is in the key. Evidence from elsewhere may break that.
        pool = self._pool_sizes(pools.pop()) if len(pools) == 1 else None
        sizes = [None if pool is None else pool.by_id.get(input_id) for _, input_id, _ in samples]
        known_sizes = [size for size in sizes if size is not None]
        sized = pool is not None and len(known_sizes) == len(sizes)
        return SampleDesign(
            np.array(weight, dtype=np.float64),
            np.array(certain, dtype=np.bool_),
            np.array(known_sizes, dtype=np.float64) if sized else None,
            pool.ascending if pool is not None and sized else None,
        )

    @cached_property
    def _measurements(self) -> Mapping[int, tuple[str, Mapping[str, Any]]]:
        """The pool's key and the protocol of each measurement that names a pool."""
        columns = ("id", "pool_key", "protocol")
        rows = fetch_stored(self._reader, "measurement", "WHERE pool_key IS NOT NULL", columns=columns)
        return {row.id: (row.pool_key, row.protocol or {}) for row in rows}

    @cached_property
    def _strata(self) -> Mapping[int, Mapping[str, Mapping[str, int]]]:
        return {measurement: protocol.get("strata", {}) for measurement, (_, protocol) in self._measurements.items()}

    def _pool_key(self, measurement: int) -> str:
        key, _ = self._measurements[measurement]
        return key

    def _pool_sizes(self, key: str) -> StoredSizes:
        if key not in self._sizes:
            rows = fetch(self._reader, _SIZES, key=key)
            by_id = {input_id: int(size) for input_id, size in rows}
            self._sizes[key] = StoredSizes(by_id, np.sort(np.array(list(by_id.values()), dtype=np.float64)))
        return self._sizes[key]
