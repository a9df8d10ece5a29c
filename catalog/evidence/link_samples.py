"""What the what-if model starts from, read from the evidence: bytes, probes and samples per setting of the links.

What a link carries is fitted to latencies at several of its rates where the bytes were not recorded (`fit_links`).
"""

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog.evidence.loading import StoredDesigns
from catalog.evidence.queries import MEASUREMENT_COUNTS, Reader, fetch, fetch_named
from catalog.statistics.families import KNOWN_TIERS, client_tier, condition_chains
from catalog.statistics.input_draw import SampleDesign
from catalog.units import rate, setting_of

# So many rounds of deciding which link is the slower one settle, or never do.
_TURNS = 20


# Residuals beyond so many of their spread count less (Huber): a disturbed setting must not turn the line.
_HUBER = 1.345
# Steps of the fit on the logarithmic scale; two suffice where noise is small.
_STEPS = 8
# Known no better than this, however well it is measured: protocols add a little, and packets are whole.
_LEAST_SPREAD = 0.05


@dataclass(frozen=True)
class SharedBytes:
    """What other strategies say of the bytes of a link that carries the same for all of them.

    `log_bytes` is the median of the logarithms, `spread` how far it may be off.
    """

    log_bytes: float
    spread: float


@dataclass(frozen=True, eq=False)
class LinkFit:
    """Bytes by link, NaN where the rates of a link do not differ; `overlapping` tells whether links work at once.

    `noise` is how far latencies are from the fit, as a spread of logarithms.
    """

    base_s: float
    carried_bytes: NDArray[np.float64]
    overlapping: bool
    noise: float = 0.0

    def latency_s(self, bit_per_s: NDArray[np.float64]) -> float:
        """Return the latency at a rate of each link; that of a link with one rate is in `base_s`."""
        taken = np.nan_to_num(8 * self.carried_bytes / bit_per_s)
        return self.base_s + float(taken.max() if self.overlapping else taken.sum())


def shared_bytes(carried_bytes: Sequence[float]) -> SharedBytes | None:
    """Return what fits of other strategies say together; None where none of them says anything.

    Examples
    --------
    >>> round(math.exp(shared_bytes([90_000, 100_000, 110_000]).log_bytes))
    100000
    """
    logs = np.log([count for count in carried_bytes if count > 0])
    if not logs.size:
        return None
    # One alone says nothing of how far it is off.
    spread = float(np.std(logs, ddof=1)) / math.sqrt(logs.size) if logs.size > 1 else 1.0
    return SharedBytes(float(np.median(logs)), math.hypot(spread, _LEAST_SPREAD))


def fit_links(
    bit_per_s: NDArray[np.float64],
    latency_s: NDArray[np.float64],
    *,
    overlapping: bool | None = None,
    shared: Sequence[SharedBytes | None] = (),
) -> LinkFit | None:
    """Fit what each link carries.

    Parameters
    ----------
    bit_per_s : float array, shape (settings, links)
    latency_s : float array, shape (settings,)
        Above 0.
    overlapping : bool, optional
        Whether links work at once; decided by the latencies where it is not known.
    shared : sequence of SharedBytes or None, optional
        By link, what other strategies say of its bytes; this fit is drawn there as far as its own noise allows.

    Returns
    -------
    LinkFit or None
        None where no link has two rates, or there are fewer settings than unknowns.

    Notes
    -----
    Huber's loss of the error of the logarithm, without negative terms (so that a faster link is never slower), of

    .. math:: a + \\sum_i b_i / r_i \\quad \\text{or} \\quad a + \\max_i b_i / r_i

    Links of a relay that passes on while it receives overlap, those of one that stores first add up. Which of the two
    holds is what predicts each setting better from the others; with too few settings to tell, links overlap, as the
    launchers' do.

    Examples
    --------
    >>> rates = np.array([[1e6], [2e6], [4e6]])
    >>> fit_links(rates, 0.5 + 8e5 / rates[:, 0]).carried_bytes.round().tolist()
    [100000.0]
    """
    differs = np.ptp(bit_per_s, axis=0) > 0
    links = int(differs.sum())
    if not links or len(latency_s) < links + 1:
        return None
    per_byte = 8 / bit_per_s[:, differs]
    # A model of so many unknowns is judged by a setting that it was not fitted to.
    judged = links > 1 and len(latency_s) > links + 2
    if overlapping is None:
        overlapping = not judged or _left_out(per_byte, latency_s, True) <= _left_out(per_byte, latency_s, False)
    carried = np.full(differs.size, np.nan)
    own = [prior for prior, moves in zip(shared, differs, strict=True) if moves] if shared else []
    terms = _fitted(per_byte, latency_s, overlapping, own)
    base_s, *carried[differs] = terms
    return LinkFit(
        float(base_s), carried, overlapping, _noise(_residuals(per_byte, latency_s, terms, overlapping), links)
    )


def _residuals(
    per_byte: NDArray[np.float64], latency_s: NDArray[np.float64], terms: NDArray[np.float64], overlapping: bool
) -> NDArray[np.float64]:
    """Return the logarithm of measured over fitted."""
    taken = per_byte * terms[1:]
    fitted_s = terms[0] + (taken.max(axis=1) if overlapping else taken.sum(axis=1))
    residuals: NDArray[np.float64] = np.log(latency_s / np.maximum(fitted_s, _LEAST_S))
    return residuals


def _noise(residuals: NDArray[np.float64], links: int) -> float:
    """Return the spread of residuals: the median of their sizes, in units of a standard deviation."""
    spare = max(residuals.size - links - 1, 1)
    return max(1.4826 * float(np.median(np.abs(residuals))) * math.sqrt(residuals.size / spare), _LEAST_NOISE)


def _fitted(
    per_byte: NDArray[np.float64],
    latency_s: NDArray[np.float64],
    overlapping: bool,
    shared: Sequence[SharedBytes | None] = (),
) -> NDArray[np.float64]:
    """Return the seconds without links, then the bytes of each link."""
    terms = _solved(per_byte, latency_s, shared)
    if overlapping and per_byte.shape[1] > 1:
        slowest: Sequence[int] = ()
        for _ in range(_TURNS):
            taken = per_byte * terms[1:]
            again = taken.argmax(axis=1).tolist()
            if again == slowest:
                break
            slowest = again
            # Only the slower link of a setting takes time in it.
            alone = np.zeros_like(per_byte)
            rows = np.arange(len(per_byte))
            alone[rows, slowest] = per_byte[rows, slowest]
            terms = _solved(alone, latency_s, shared)
    return terms


def _solved(
    per_byte: NDArray[np.float64], latency_s: NDArray[np.float64], shared: Sequence[SharedBytes | None]
) -> NDArray[np.float64]:
    design = np.column_stack([np.ones(len(latency_s)), per_byte])
    # Relative errors first: near enough that the logarithm is as good as straight.
    terms = _least_squares(design / latency_s[:, None], np.ones(len(latency_s)))
    for _ in range(_STEPS):
        fitted_s = np.maximum(design @ terms, _LEAST_S)
        residuals = np.log(latency_s / fitted_s)
        noise = _noise(residuals, per_byte.shape[1])
        weight = np.sqrt(np.minimum(1.0, _HUBER * noise / np.maximum(np.abs(residuals), _LEAST_NOISE)))
        rows, targets = design / fitted_s[:, None] * weight[:, None], (1 + residuals) * weight
        for index, prior in enumerate(shared, 1):
            if prior is not None:
                # One more observation: the logarithm of the bytes, as precise beside the latencies as it is known.
                count = max(terms[index], _LEAST_SHARE * math.exp(prior.log_bytes))
                row = np.zeros(len(terms))
                row[index] = noise / prior.spread / count
                rows = np.vstack([rows, row])
                targets = np.append(targets, noise / prior.spread * (1 + prior.log_bytes - math.log(count)))
        before, terms = terms, _least_squares(rows, targets)
        if np.allclose(before, terms, rtol=1e-4, atol=0):
            break
    return terms


# No latency is shorter, and no spread of logarithms smaller, than these guards against a division by zero.
_LEAST_S, _LEAST_NOISE = 1e-12, 1e-3
# Bytes that a step made zero come back from here.
_LEAST_SHARE = 0.01


def _least_squares(design: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve without negative terms."""
    # Imported where it is needed: it takes longer to import than most answers.
    from scipy.optimize import nnls

    # Columns of one size, or bytes of a fast link would vanish in the solver's tolerance.
    scale = np.maximum(np.abs(design).max(axis=0), 1e-300)
    solution: NDArray[np.float64] = nnls(design / scale, targets)[0] / scale
    return solution


def _left_out(per_byte: NDArray[np.float64], latency_s: NDArray[np.float64], overlapping: bool) -> float:
    """Return the mean square of the log error of each setting predicted from the others."""
    errors = []
    for index in range(len(latency_s)):
        others = np.arange(len(latency_s)) != index
        terms = _fitted(per_byte[others], latency_s[others], overlapping)
        errors.append(_residuals(per_byte[[index]], latency_s[[index]], terms, overlapping))
    return float(np.mean(np.square(errors)))


@dataclass(frozen=True)
class LinkRate:
    """Payload rates of a link, away from the client's tier (up) and back (down), in bits per second.

    Raises
    ------
    ValueError
        For a rate that is not finite and above zero.
    """

    up_bit_per_s: float
    down_bit_per_s: float

    def __post_init__(self) -> None:
        for name in ("up_bit_per_s", "down_bit_per_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is a finite rate above 0, such as 10e6 for 10 Mbit/s, got {value!r}")


@dataclass(frozen=True, eq=False)
class LinkedSamples:
    """Samples of one strategy at one setting of its links.

    Attributes
    ----------
    latency_s : float array, shape (samples,)
    round, input_index : int array, shape (samples,)
    sent_bytes, received_bytes : mapping of link name to int array, shape (samples,)
    declared : mapping of link name to LinkRate
        What the links were asked to be.
    probed : mapping of link name to LinkRate
        What they carried; a link without a probe is taken as declared.
    launcher : str
        `docker` and `process` emulate links, each in its way; anything else is a real link.
    evidence_id : str or None
        Under which the measurements can be fetched.
    design : SampleDesign or None
        What each sample stands for where rounds drew their inputs.
    real : mapping of link name to MeasuredRate
        Of the links that were measured and not shaped: what they carried upwards, and how much that varied.
    inferred : bool
        Whether the bytes are those that explain the latencies at several rates; of a link with one rate none are there.
    """

    latency_s: NDArray[np.float64]
    round: NDArray[np.int64]
    input_index: NDArray[np.int64]
    sent_bytes: Mapping[str, NDArray[np.int64]]
    received_bytes: Mapping[str, NDArray[np.int64]]
    declared: Mapping[str, LinkRate]
    probed: Mapping[str, LinkRate]
    launcher: str = "docker"
    evidence_id: str | None = None
    design: SampleDesign | None = None
    real: Mapping[str, "MeasuredRate"] = field(default_factory=dict)
    inferred: bool = False

    def rate(self, link: str) -> LinkRate | None:
        """Return the rate that counts: probed, else declared, else unknown."""
        return self.probed.get(link) or self.declared.get(link)


@dataclass(frozen=True)
class MeasuredRate:
    """What a real link carried: the median over its probes, the least and the most."""

    bit_per_s: float
    least_bit_per_s: float
    most_bit_per_s: float

    def __str__(self) -> str:
        return f"{rate(self.bit_per_s)} ({rate(self.least_bit_per_s)} to {rate(self.most_bit_per_s)})"


@dataclass(frozen=True, eq=False)
class LinkedStrategy:
    """A strategy with its evidence, the setting declared now first.

    `hops` are the requests of one inference in order, each with the links it flows through: a relay passes on while it
    receives, so the links of one hop work at the same time, and hops work one after the other. `missing` says what the
    evidence lacks, and is None where nothing is; `measured` is False where there is none at all. `loads` names by link
    what goes over it, alike for strategies that send the same, and `peers` are those of them whose bytes were not
    recorded either.
    """

    operator: str
    placement: str
    hops: tuple[tuple[str, ...], ...]
    evidence: tuple[LinkedSamples, ...]
    missing: str | None = None
    measured: bool = True
    loads: Mapping[str, str] = field(default_factory=dict)
    peers: "tuple[LinkedStrategy, ...]" = ()

    @property
    def inferred(self) -> bool:
        """Whether its bytes are those that explain its latencies."""
        return bool(self.evidence) and all(samples.inferred for samples in self.evidence)

    @property
    def links(self) -> tuple[str, ...]:
        """All links on its way."""
        return tuple(link for hop in self.hops for link in hop)


_STRATEGIES = """
SELECT operator, placement, tiers, latency_key, status, reason FROM strategy
WHERE declared AND subject = :subject AND environment_id = :environment ORDER BY id
"""
# Of all subjects: the tiers of an environment do not depend on the subject that is asked about.
_PLACEMENTS = "SELECT DISTINCT CAST(tiers AS TEXT) AS tiers FROM strategy WHERE environment_id = :environment"
_MEASUREMENTS = f"""
SELECT m.id, m.operator, m.placement, m.latency_key, m.round, m.conditions, m.protocol, m.pool_key, e.launcher
FROM measurement m JOIN environment e ON e.id = m.environment_id
WHERE m.subject = :subject AND m.environment_id IN ({{environments}})
  AND m.id IN (SELECT id FROM measurement WHERE {MEASUREMENT_COUNTS})
ORDER BY m.started_at, m.id
"""
_OF_SUBJECT = "(SELECT id FROM measurement WHERE subject = :subject AND environment_id IN ({environments}))"
_SAMPLES = f"""
SELECT measurement_id, id, input_id, latency_s, stratum FROM sample WHERE measurement_id IN {_OF_SUBJECT} ORDER BY 2
"""
_LINKS = f"""
SELECT l.sample_id, l.link, l.sent_bytes, l.received_bytes FROM sample_link l
JOIN sample s ON s.id = l.sample_id WHERE s.measurement_id IN {_OF_SUBJECT}
"""
_PROBES = f"""
SELECT measurement_id, link, direction, declared_bit_per_s, measured_bit_per_s FROM link_probe
WHERE measurement_id IN {_OF_SUBJECT}
"""
# Evidence of other links counts for a strategy only where it sent the same: another artifact sends other bytes.
_SAME_BYTES = 0.01


def linked_strategies(reader: Reader, subject: str, environment_id: int) -> tuple[LinkedStrategy, ...]:
    """Return every applicable declared strategy of a subject in an environment, with all settings of its links.

    Measurements under other links than those declared now are taken in where everything else is the same: tiers,
    protocol, inputs, and the bytes sent.
    """
    reading = _Reading(reader, {"subject": subject, "environment": environment_id})
    strategies = [reading.strategy(row) for row in reading.rows(_STRATEGIES) if row["status"] != "inapplicable"]
    inferred = [strategy for strategy in strategies if strategy.inferred]
    return tuple(
        replace(strategy, peers=tuple(peer for peer in inferred if peer is not strategy and _share(peer, strategy)))
        if strategy.inferred
        else strategy
        for strategy in strategies
    )


def _share(one: LinkedStrategy, other: LinkedStrategy) -> bool:
    """Tell whether two strategies send the same over a link."""
    return bool(one.loads.items() & other.loads.items())


def _settings_of(reader: Reader, environment_id: int) -> list[int]:
    """Return the environments that are settings of one: links and limits of tiers differ between them, nothing else."""
    rows = fetch(reader, "SELECT id, imported_file_id, details FROM environment")
    plain = {identity: (file_id, _json(details)) for identity, file_id, details in rows}
    keys = {
        # Settings of one file are those of one machine; another file may claim the same.
        identity: (file_id, details["plain_key"])
        for identity, (file_id, details) in plain.items()
        if isinstance(details, dict) and "plain_key" in details and setting_of(details) is not None
    }
    key = keys.get(environment_id)
    return [identity for identity, other in keys.items() if other == key] if key is not None else [environment_id]


class _Reading:
    """The rows of one subject and environment, fetched set-wise once."""

    def __init__(self, reader: Reader, values: Mapping[str, Any]) -> None:
        self._reader, self._values = reader, values
        # Numbers of rows, which may stand in a statement as they are.
        self._environments = ", ".join(map(str, _settings_of(reader, values["environment"])))
        self._measurements: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for row in self.rows(_MEASUREMENTS):
            row["conditions"], row["protocol"] = _json(row["conditions"]), _json(row["protocol"])
            self._measurements[row["operator"], row["placement"]].append(row)
        self._designs = StoredDesigns(reader)
        self._samples: dict[int, list[tuple[int, str, float, str | None]]] = defaultdict(list)
        for row in self.rows(_SAMPLES):
            sample = (row["id"], row["input_id"], row["latency_s"], row["stratum"])
            self._samples[row["measurement_id"]].append(sample)
        # One index for all strategies of the subject: comparisons pair by it.
        names = sorted({name for rows in self._samples.values() for _, name, *_ in rows})
        self._index = {name: index for index, name in enumerate(names)}
        self._bytes: dict[int, dict[str, tuple[int, int]]] = defaultdict(dict)
        for row in self.rows(_LINKS):
            self._bytes[row["sample_id"]][row["link"]] = (row["sent_bytes"], row["received_bytes"])
        self._probes: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for row in self.rows(_PROBES):
            self._probes[row["measurement_id"]].append(row)

    @cached_property
    def _client(self) -> str | None:
        """The tier where requests start; a strategy on it alone uses no link."""
        placements = [_json(row["tiers"]) for row in self.rows(_PLACEMENTS)]
        measurements = [row for rows in self._measurements.values() for row in rows]
        return client_tier(placements, [chain for row in measurements for chain in condition_chains(row["conditions"])])

    def rows(self, query: str) -> list[dict[str, Any]]:
        return fetch_named(self._reader, query.replace("{environments}", self._environments), **self._values)

    def strategy(self, declared: Mapping[str, Any]) -> LinkedStrategy:
        name = declared["operator"], declared["placement"]
        groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in self._measurements[name]:
            groups[row["latency_key"]].append(row)
        current = groups.pop(declared["latency_key"], [])
        if not current:
            reason = "nothing was measured yet; measure it with: runner fill-catalog"
            return LinkedStrategy(*name, (), (), reason, measured=False)
        tiers = _json(declared["tiers"])
        named = _names_in_order(current[0]["conditions"])
        # A table may say the rate of a link in every row, also of strategies that end before it.
        links = tuple(link for link in named if not _is_beyond(link, tiers))
        links = links if named else self._links_of(current)
        if not links and "links" not in current[0]["conditions"] and tiers != [self._client]:
            return LinkedStrategy(*name, (), (), "which links it uses was not recorded, as in imported latencies")
        hops = _hops(links, tiers, current[0]["conditions"])
        if hops is None:
            reason = f"which request uses which of its links ({', '.join(links)}) is not known"
            return LinkedStrategy(*name, (), (), reason)
        now = self._linked(current, links)
        # Without links no setting of them could differ.
        alike = [rows for rows in groups.values() if links and _alike(rows[0], current[0])]
        if now is None:
            inferred = self._inferred(name, hops, links, [current, *alike])
            return replace(inferred, loads=_loads(declared, links, current[0]["conditions"]))
        settings = [self._linked(rows, links) for rows in alike]
        others = [setting for setting in settings if setting and _same_bytes(setting, now)]
        return LinkedStrategy(*name, hops, (now, *others))

    def _inferred(
        self,
        name: tuple[str, str],
        hops: tuple[tuple[str, ...], ...],
        links: Sequence[str],
        groups: Sequence[Sequence[Mapping[str, Any]]],
    ) -> LinkedStrategy:
        """Return a strategy with the bytes that explain its latencies at several rates, or what it lacks for that."""
        settings = [setting for rows in groups if (setting := self._linked(rows, links, recorded=False)) is not None]
        rates = [[setting.rate(link) for link in links] for setting in settings]
        ups = np.array([[np.nan if rate is None else rate.up_bit_per_s for rate in setting] for setting in rates])
        fit = None
        if settings and np.isfinite(ups).all():
            fit = fit_links(ups, np.array([setting.latency_s.mean() for setting in settings]))
        if fit is None and len(settings) == 1 and np.isfinite(ups).all():
            # What uses none of the links that are asked for is measured, and `refusal` names those of one rate.
            return LinkedStrategy(*name, hops, tuple(replace(setting, inferred=True) for setting in settings))
        if fit is None:
            lacking = "the bytes on its links were not recorded with the samples, and no link was measured at two rates"
            return LinkedStrategy(*name, hops, (), lacking)
        if not fit.overlapping:
            # One link after the other is a request for each.
            hops = tuple((link,) for hop in hops for link in hop)
        return LinkedStrategy(*name, hops, tuple(_carrying(setting, links, fit) for setting in settings))

    def _links_of(self, rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        links = {link for row in rows for sample_id, *_ in self._samples[row["id"]] for link in self._bytes[sample_id]}
        return tuple(sorted(links))

    def _linked(
        self, rows: Sequence[Mapping[str, Any]], links: Sequence[str], *, recorded: bool = True
    ) -> LinkedSamples | None:
        """Return one setting of the links; None where bytes are missing, unless these need not be recorded."""
        # All rounds of one key, because its samples were taken at one setting of the links.
        flat = [(row["round"], *sample) for row in rows for sample in self._samples[row["id"]]]
        if not flat:
            return None
        if recorded and any(link not in self._bytes[sample_id] for _, sample_id, *_ in flat for link in links):
            return None
        carried = links if recorded else ()
        probes = [probe for row in rows for probe in self._probes[row["id"]]]
        probed = _rates(probes, "measured_bit_per_s")
        real = {link: _measured_rate(probes, link) for link in probed if link in _real(rows[0]["conditions"])}
        return LinkedSamples(
            latency_s=np.array([sample[3] for sample in flat], dtype=np.float64),
            round=np.array([sample[0] for sample in flat], dtype=np.int64),
            input_index=np.array([self._index[sample[2]] for sample in flat], dtype=np.int64),
            sent_bytes={link: np.array([self._bytes[sample[1]][link][0] for sample in flat]) for link in carried},
            received_bytes={link: np.array([self._bytes[sample[1]][link][1] for sample in flat]) for link in carried},
            # Conditions are in the key, so those of the first round are those of all. A real link has the rate that it
            # carries, and the declared one is only what its user expected.
            declared={
                **(_declared(rows[0]["conditions"]) or _rates(probes, "declared_bit_per_s")),
                **{link: probed[link] for link in real},
            },
            probed=probed,
            real=real,
            launcher=rows[0]["launcher"],
            evidence_id=rows[0]["latency_key"],
            design=self._designs.of(
                [(row["id"], sample[1], sample[3]) for row in rows for sample in self._samples[row["id"]]]
            ),
        )


def _carrying(setting: LinkedSamples, links: Sequence[str], fit: LinkFit) -> LinkedSamples:
    """Return a setting with the bytes of the fit, all of them on the way out: latencies do not tell the ways apart."""
    count = setting.latency_s.size
    carried = {link: number for link, number in zip(links, fit.carried_bytes, strict=True) if np.isfinite(number)}
    return replace(
        setting,
        sent_bytes={link: np.full(count, round(number), dtype=np.int64) for link, number in carried.items()},
        received_bytes={link: np.zeros(count, dtype=np.int64) for link in carried},
        inferred=True,
    )


def _json(value: Any) -> Any:
    """Parse JSON: plain SQL returns text from SQLite, and parsed values from a server's driver."""
    return json.loads(value) if isinstance(value, str) else value


def _names_in_order(conditions: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(link["name"]) for link in conditions.get("links") or ())


def _is_beyond(link: str, placement: Sequence[str]) -> bool:
    """Tell whether a link leads on from the last tier of a placement, by the order of the study's tiers."""
    tiers = [*placement, link.rpartition("-")[2]]
    places = [KNOWN_TIERS.index(tier) for tier in tiers if tier in KNOWN_TIERS]
    return len(places) == len(tiers) and max(places[:-1]) < places[-1]


def _declared(conditions: Mapping[str, Any]) -> dict[str, LinkRate]:
    return {
        link["name"]: LinkRate(link["up_bit_per_s"], link["down_bit_per_s"])
        for link in conditions.get("links") or ()
        if link.get("up_bit_per_s") and link.get("down_bit_per_s")
    }


def _real(conditions: Mapping[str, Any]) -> set[str]:
    """Return the links that were measured and not shaped."""
    return {str(link["name"]) for link in conditions.get("links") or () if link.get("real")}


def _measured_rate(probes: Sequence[Mapping[str, Any]], link: str) -> MeasuredRate:
    carried = [
        float(probe["measured_bit_per_s"]) for probe in probes if probe["link"] == link and probe["direction"] == "up"
    ]
    return MeasuredRate(float(np.median(carried)), min(carried), max(carried))


def _rates(probes: Sequence[Mapping[str, Any]], column: str) -> dict[str, LinkRate]:
    """Return the median over the probes, per link, where both directions were probed."""
    rates: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for probe in probes:
        if probe[column] > 0:
            rates[probe["link"]][probe["direction"]].append(probe[column])
    return {
        link: LinkRate(float(np.median(ways["up"])), float(np.median(ways["down"])))
        for link, ways in rates.items()
        if ways["up"] and ways["down"]
    }


def _hops(
    links: Sequence[str], placement: Sequence[str], conditions: Mapping[str, Any]
) -> tuple[tuple[str, ...], ...] | None:
    """Split the route's links where a part runs; None when the route is not known."""
    if not links:
        return ()
    route = condition_chains(conditions)[0]
    if len(route) != len(links) + 1 or any(tier not in route for tier in placement):
        # A single link is the single hop, whatever was recorded of the route.
        return (tuple(links),) if len(links) == 1 else None
    # A hop ends where a part runs; the tiers between two stops only relay.
    stops = [0, *(route.index(tier) for tier in placement)]
    return tuple(tuple(links[first:last]) for first, last in itertools.pairwise(stops) if last > first)


def _loads(declared: Mapping[str, Any], links: Sequence[str], conditions: Mapping[str, Any]) -> dict[str, str]:
    """Name what goes over each link: the input before the first part, then what the parts before it hand on.

    All operators that keep the model whole send the same input; what a cut sends is the operator's own.
    """
    placement = _json(declared["tiers"])
    route = [str(tier["name"]) for tier in conditions.get("tiers") or ()]
    if len(route) != len(links) + 1 or any(tier not in route for tier in placement):
        # Of an unknown way only this is known: a single part is sent nothing but the input.
        return dict.fromkeys(links, "input") if len(placement) == 1 else {}
    stops = [route.index(tier) for tier in placement]
    parts_before = [sum(stop <= position for stop in stops) for position in range(len(links))]
    return {
        link: "input" if not parts else f"{declared['operator']} after part {parts}"
        for link, parts in zip(links, parts_before, strict=True)
    }


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return the conditions without the rates of the links."""

    def rest(row: Mapping[str, Any]) -> Any:
        conditions = {name: value for name, value in row["conditions"].items() if name != "links"}
        protocol = row["protocol"]
        # Rounds that draw their inputs agree in the rule and the pool, each with inputs of its own.
        drawn = [row["pool_key"], *(protocol.get(name) for name in ("select", "inputs", "tail"))]
        inputs = drawn if protocol.get("select") else sorted(protocol.get("input_ids") or ())
        # Everything but the rates has to agree, the delay too: what-if questions change rates alone.
        kept = [
            {k: v for k, v in link.items() if "bit_per_s" not in k} for link in row["conditions"].get("links") or ()
        ]
        return conditions, kept, inputs

    return bool(rest(one) == rest(other))


def _same_bytes(one: LinkedSamples, other: LinkedSamples) -> bool:
    means = ((one.sent_bytes[link].mean(), other.sent_bytes[link].mean()) for link in one.sent_bytes)
    return all(abs(a - b) <= _SAME_BYTES * b for a, b in means)
