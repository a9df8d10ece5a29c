"""The evidence as arrays, per declared strategy: what ranking and statistics start from, and of which environment."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from catalog.artifact_details import GraphSize, OutputDistance, graph_size, output_distance
from catalog.evidence.allowed import AccuracyDemand, with_marks
from catalog.evidence.queries import MEASUREMENT_COUNTS, Reader, exact_sum, fetch
from catalog.evidence.records import (
    AccuracyScores,
    ArtifactFile,
    Creation,
    EnvironmentRecord,
    FileBase,
    Period,
    RoundBase,
    RoundLook,
    RoundTestbed,
    SloName,
    StrategyBase,
)
from catalog.statistics.description import chance_remark
from catalog.statistics.families import condition_chains, operator_rank, placement_rank, tier_order
from catalog.statistics.input_draw import SampleDesign
from catalog.statistics.samples import Samples
from catalog.units import Setting, setting_of

# What an environment of rows from elsewhere has for a launcher.
ROWS_LAUNCHER = "imported"
# CPU of the window between warm-up and last sample, over the rounds that recorded it and their inferences alone.
_USE = f"""
WITH counted AS (
    SELECT m.id, m.latency_key, (SELECT COUNT(*) FROM sample s WHERE s.measurement_id = m.id) AS inferences
    FROM measurement m WHERE {MEASUREMENT_COUNTS}
)
SELECT c.latency_key, t.tier, MAX(t.memory_peak_bytes) AS cgroup_bytes, MAX(t.peak_rss_bytes) AS resident_bytes,
       {exact_sum("t.window_cpu_seconds")} AS cpu_s,
       SUM(CASE WHEN t.window_cpu_seconds IS NULL THEN 0 ELSE c.inferences END) AS inferences
FROM counted c JOIN tier_run t ON t.measurement_id = c.id
GROUP BY c.latency_key, t.tier
ORDER BY c.latency_key, t.tier
"""
# Failed attempts are INVALID as well, so that the verdict alone would count them.
_VERDICTS = """
SELECT latency_key, verdict, COUNT(*) FROM measurement WHERE status = 'complete' GROUP BY latency_key, verdict
ORDER BY latency_key, verdict
"""


def file_labels(files: Iterable[Any]) -> dict[int, str]:
    """Name imported files so that no two are called alike.

    Parameters
    ----------
    files : iterable of rows of `imported_file`
        All that are stored.

    Returns
    -------
    dict of int to str
        By the file's id: its name, with the start of its SHA-256 where another imported file has the same name.
    """
    stored = [file for file in files if file.id is not None]
    names = Counter(file.name for file in stored)
    return {
        file.id: with_marks(str(file.name) if names[file.name] == 1 else f"{file.name} (SHA-256 {file.sha256!s:.12}…)")
        for file in stored
        if file.id is not None
    }


@dataclass(frozen=True)
class TierUse:
    """A tier's share in a strategy, over the rounds that count.

    Attributes
    ----------
    memory_bytes : int or None
        The largest peak of any round: the cgroup's or the process's, whichever is larger. None where neither was
        recorded.
    cpu_s : float or None
        CPU seconds per inference, after warm-up.
    """

    memory_bytes: int | None
    cpu_s: float | None


def tier_use(reader: Reader) -> Mapping[str, Mapping[str, TierUse]]:
    """Load what every tier of every strategy used.

    Parameters
    ----------
    reader : Reader

    Returns
    -------
    mapping of latency key to mapping of tier name to TierUse
        Tiers that only relay are there too.
    """
    uses: dict[str, dict[str, TierUse]] = defaultdict(dict)
    for key, tier, cgroup_bytes, resident_bytes, cpu_s, inferences in fetch(reader, _USE):
        # Linux before 5.19 has no memory.peak, nor has the root cgroup: the first may be missing.
        peaks = [int(peak) for peak in (cgroup_bytes, resident_bytes) if peak is not None]
        # PostgreSQL sums whole numbers to decimals, which are read as floats.
        spent = float(cpu_s) / int(inferences) if cpu_s is not None and inferences else None
        uses[key][tier] = TierUse(max(peaks, default=None), spent)
    return uses


def verdict_counts(reader: Reader) -> Mapping[str, Mapping[str, int]]:
    """Count the completed rounds of each latency key that are VALID, DOUBTFUL and INVALID; repeated ones too."""
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for key, verdict, count in fetch(reader, _VERDICTS):
        counts[key][verdict] = count
    return counts


@dataclass(frozen=True, eq=False, kw_only=True)
class AccuracyEvidence(AccuracyScores):
    """An accuracy with its items.

    Attributes
    ----------
    metric : str
        `top1`, `miou` or `agreement`.
    accuracy_pct : float
        The primary metric, in percent.
    top1_pct, top5_pct, miou_pct : float or None
    provider : str
        The execution provider it was measured with.
    items : int
    item_ids : tuple of str
        In sorted order. For classification one entry per item; `top1` and `top5` are aligned with it.
    top1, top5 : bool array, shape (items,)
        Empty for segmentation.
    class_ids : int array, shape (classes,)
    intersection_px, union_px : int array, shape (items, classes)
        Segmentation only; zero where a class occurs in neither prediction nor truth.
    class_counts : mapping of class to int, or None
        Of how many items, or pixels, a class is the truth; None where that was not stored.
    """

    metric: str
    accuracy_pct: float
    item_ids: tuple[str, ...]
    top1: NDArray[np.bool_]
    top5: NDArray[np.bool_]
    class_ids: NDArray[np.int64]
    intersection_px: NDArray[np.int64]
    union_px: NDArray[np.int64]

    @property
    def remark(self) -> str | None:
        """Return why the figure says nothing, such as an accuracy at chance; None if it says something."""
        counts = self.class_counts
        if counts is None and self.class_ids.size == 1:  # no other class is in the truth or in the answers
            counts = {str(self.class_ids[0]): int(self.union_px.sum())}
        return chance_remark(self.metric, self.accuracy_pct, self.items, counts)


@dataclass(frozen=True, kw_only=True)
class Origin(FileBase):
    """The file that foreign evidence came from.

    `name` goes with the start of the SHA-256 where another imported file has the same one; ids grow with every import.
    """

    id: int


@dataclass(frozen=True, kw_only=True)
class EnvironmentEvidence(EnvironmentRecord, Creation):
    """Where the samples were measured; `origin` is None for evidence that was measured here, not imported."""

    id: int
    origin: Origin | None = None

    @property
    def provenance(self) -> str:
        """`measured` or `imported`."""
        return "measured" if self.origin is None else "imported"

    @property
    def setting(self) -> Setting | None:
        """The setting of a catalog that lists several values; None where it lists none."""
        return setting_of(self.details)

    @property
    def imported_from(self) -> str | None:
        """Return the name of the file that brought it; None for what was measured here."""
        return None if self.origin is None else self.origin.name

    @property
    def of_rows(self) -> bool:
        """Whether rows from elsewhere brought it, so that no fill can measure more of it."""
        return self.launcher == ROWS_LAUNCHER


@dataclass(frozen=True, kw_only=True)
class RoundEvidence(RoundBase, RoundLook, RoundTestbed, Period):
    """One round that counts."""

    samples: int


@dataclass(frozen=True, kw_only=True)
class SloEvidence(AccuracyDemand, SloName):
    """A target as declared at the last fill: seconds by percentile (90.0 for p90), percent."""

    latency_s: Mapping[float, float]


TargetT = TypeVar("TargetT")


def targets_of_subject(
    subject: str,
    targets: Mapping[str, TargetT],
    by_subject: Mapping[str, Mapping[str, TargetT]],
    *,
    measured_here: Callable[[str], bool],
) -> Mapping[str, TargetT]:
    """Return the targets of a subject by name.

    Parameters
    ----------
    subject : str
    targets : mapping of str to target
        All targets, each as it was declared last.
    by_subject : mapping of str to mapping
        Those of the catalogs that declare the subjects; a subject without any is not in it.
    measured_here : callable
        Whether a subject has evidence that was measured here.

    Returns
    -------
    mapping of str to target
        Its own where it has any. Else those that no catalog declares for its subjects, as targets of a single question
        are; for imported evidence also those of the catalogs here.

    Examples
    --------
    >>> by_subject = {"net": {"fast": 0.1}}
    >>> targets_of_subject("net", {"fast": 0.1, "mine": 1.0}, by_subject, measured_here=lambda subject: True)
    {'fast': 0.1}
    >>> targets_of_subject("plain", {"fast": 0.1, "mine": 1.0}, by_subject, measured_here=lambda subject: True)
    {'mine': 1.0}
    """
    if own := by_subject.get(subject):
        return own
    owners: dict[str, list[str]] = {}
    for owner, owned in by_subject.items():
        for name in owned:
            owners.setdefault(name, []).append(owner)
    local = measured_here(subject)
    return {
        name: target
        for name, target in targets.items()
        if name not in owners or (not local and any(map(measured_here, owners[name])))
    }


@dataclass(frozen=True, eq=False, kw_only=True)
class StrategyEvidence(StrategyBase):
    """A declared strategy and all that is known of it.

    Attributes
    ----------
    tiers : tuple of str
        Of the placement.
    status, reason : str
        `applicable`, or `inapplicable` and why.
    latency_s : float array, shape (samples,)
        In order of round and sequence; empty where nothing was measured.
    round, repetition : int array, shape (samples,)
    input_index : int array, shape (samples,)
        Into `input_ids`, which all strategies of a subject in an environment share: samples pair by it.
    design : SampleDesign or None
        What each sample stands for where rounds drew their inputs; None where rounds and inputs are crossed.
    sent_bytes_by_link : mapping of link name to int array, shape (samples,)
    rounds : tuple of RoundEvidence
        Complete and not INVALID, in order.
    inputs_select : str or None
        `systematic`, `random` or `largest`.
    accuracy : AccuracyEvidence or None
    reference : AccuracyEvidence or None
        Identity's, of the same subject and environment: on the same placement, else with the same provider.
    reference_placement : str or None
        Where the identity that `reference` belongs to is placed.
    size_bytes : int or None
    files : tuple of ArtifactFile
    tier_use : mapping of tier name to TierUse
        Of every tier of the route, relays included; empty where nothing was recorded.
    verdicts : mapping of verdict to int
        Completed rounds under the key, INVALID and repeated ones included.
    artifact_details : mapping
        What its passes say they did, what was shown of the files, how far their outputs are from identity's.
    origins : tuple of Origin
        Every file that brought its rounds or its accuracy; empty for what was measured here.
    tier_order : tuple of str
        The tiers of its environment from the client on; empty where it was not read from a database.
    client : str or None
        The tier where requests start; None where nothing says which it is.
    """

    tiers: tuple[str, ...]
    passes: tuple[Mapping[str, Any], ...]
    environment: EnvironmentEvidence
    rounds_declared: int
    latency_s: NDArray[np.float64]
    round: NDArray[np.int64]
    input_index: NDArray[np.int64]
    repetition: NDArray[np.int64]
    input_ids: tuple[str, ...]
    sent_bytes_by_link: Mapping[str, NDArray[np.int64]]
    rounds: tuple[RoundEvidence, ...]
    inputs_select: str | None
    conditions: Mapping[str, Any]
    accuracy: AccuracyEvidence | None
    reference: AccuracyEvidence | None
    reference_placement: str | None
    size_bytes: int | None
    files: tuple[ArtifactFile, ...]
    tier_use: Mapping[str, TierUse] = field(default_factory=dict)
    verdicts: Mapping[str, int] = field(default_factory=dict)
    artifact_details: Mapping[str, Any] = field(default_factory=dict)
    origins: tuple[Origin, ...] = ()
    tier_order: tuple[str, ...] = ()
    client: str | None = None
    design: SampleDesign | None = None

    @property
    def samples(self) -> Samples:
        """The samples as the statistics take them; raises ValueError where nothing was measured."""
        return Samples.from_arrays(self.latency_s, self.round, self.input_index, design=self.design, hosts=self.hosts)

    @property
    def hosts(self) -> Mapping[int, str] | None:
        """Return the testbed of each round where several of one class share them; None where one machine ran all."""
        hosts = {entry.round: entry.testbed for entry in self.rounds if entry.testbed is not None}
        several = len(set(hosts.values())) > 1 and len(hosts) == len({entry.round for entry in self.rounds})
        return hosts if several else None

    @property
    def output_distance(self) -> OutputDistance | None:
        """Return how far its outputs are from identity's; None where that was not measured."""
        return output_distance(self.artifact_details)

    @property
    def graph_size(self) -> GraphSize:
        """Parameters and nodes of the artifact; unknown in evidence from before they were counted."""
        return graph_size(self.artifact_details)

    @property
    def changes_outputs(self) -> bool:
        """Return whether it may answer otherwise than identity: all but identity and cuts shown to be bit-identical."""
        return changes_outputs(self.passes, self.artifact_details)

    @property
    def measured(self) -> bool:
        """Whether there is any latency."""
        return self.latency_s.size > 0

    @property
    def complete(self) -> bool:
        """Whether nothing is missing: all declared rounds and the accuracy, if the task has one; or it cannot apply."""
        if self.status == "inapplicable":
            return True
        judged = self.accuracy is not None or self.task == "any"
        # A race gives a strategy fewer rounds where more could change no answer.
        raced = any(row.error_share is not None for row in self.rounds)
        return self.measured and (raced or len(self.rounds) >= self.rounds_declared) and judged

    @property
    def bit_identical(self) -> bool:
        """Whether the accuracy is identity's own: of itself, and of parts shown to compute the same bit by bit."""
        # The same object: loading makes one per key, and equal figures under two keys are no proof.
        return self.accuracy is not None and self.accuracy is self.reference

    @property
    def drop_pp(self) -> float | None:
        """Accuracy lost against identity, in percentage points; negative is a gain, None is unknown.

        None for an agreement: an answer that differs from identity's need not be worse.
        """
        if self.accuracy is None or self.reference is None or self.accuracy.metric == "agreement":
            return None
        return self.reference.accuracy_pct - self.accuracy.accuracy_pct

    @property
    def sent_bytes(self) -> NDArray[np.int64]:
        """Bytes sent per sample, all links together."""
        total = np.zeros(self.latency_s.size, dtype=np.int64)
        for sent in self.sent_bytes_by_link.values():
            total += sent
        return total

    @property
    def verdict(self) -> str | None:
        """DOUBTFUL if any round is, VALID otherwise, None without rounds."""
        if not self.rounds:
            return None
        # INVALID ones are not among `rounds`.
        return "DOUBTFUL" if any(round_evidence.verdict == "DOUBTFUL" for round_evidence in self.rounds) else "VALID"


def in_canonical_order(evidence: Iterable[StrategyEvidence]) -> list[StrategyEvidence]:
    """Sort strategies of one environment by operator and placement, whatever order they were declared in."""
    listed = list(evidence)
    order = common_tier_order(listed)
    return sorted(listed, key=lambda row: (operator_rank(row.operator, row.passes), placement_rank(row.tiers, order)))


def common_tier_order(evidence: Sequence[StrategyEvidence]) -> tuple[str, ...]:
    """Return the tiers of an environment from the client on."""
    return tier_order(
        [row.tiers for row in evidence],
        [row.tier_order for row in evidence]
        # The measured routes too: a placement does not name the tiers that only relay.
        + [chain for row in evidence for chain in condition_chains(row.conditions)],
    )


def changes_outputs(passes: Sequence[Mapping[str, Any]], details: Mapping[str, Any]) -> bool:
    """Return whether an artifact may answer otherwise than the model it was made from.

    Examples
    --------
    >>> cut = [{"name": "partition"}]
    >>> changes_outputs([], {}), changes_outputs(cut, {}), changes_outputs([{"name": "static_ptq"}], {})
    (False, True, True)
    >>> changes_outputs(cut, {"proof": {"composition": {"bit_identical": True}}})
    False
    """
    if not passes:
        return False
    # A cut alone is meant to change nothing, so it alone can be shown not to.
    if any(step.get("name") != "partition" for step in passes):
        return True
    proof = details.get("proof")
    composition = proof.get("composition") if isinstance(proof, Mapping) else None
    # `is True`: another program may have written anything here, and only a true one is a proof.
    return not (isinstance(composition, Mapping) and composition.get("bit_identical") is True)


@dataclass(frozen=True)
class EnvironmentStanding:
    """What decides between environments; `finished_at` is the end of the latest round."""

    key: str
    id: int
    imported: bool
    measured: bool
    complete: bool
    finished_at: str


def environment_standing(strategies: Sequence[StrategyEvidence]) -> EnvironmentStanding:
    """Return the standing of the environment that the strategies share; `complete` is said of all of them."""
    environment = strategies[0].environment
    finished = [round_evidence.finished_at for strategy in strategies for round_evidence in strategy.rounds]
    measured = any(strategy.measured for strategy in strategies)
    return EnvironmentStanding(
        key=environment.key,
        id=environment.id,
        imported=environment.origin is not None,
        measured=measured,
        complete=measured and all(strategy.complete for strategy in strategies),
        # Stored moments are UTC in one spelling, so that text compares as time does.
        finished_at=max(finished, default=environment.created_at),
    )


def preferred_environment(
    standings: Sequence[EnvironmentStanding], keys: Collection[str] | None = None
) -> EnvironmentStanding:
    """Choose the environment to answer from.

    Parameters
    ----------
    standings : sequence of EnvironmentStanding
        At least one.
    keys : collection of str, optional
        Of all environments with evidence, where `standings` are only some of them.

    Returns
    -------
    EnvironmentStanding
        A complete environment before one with any evidence before one without; of equal ones, one that was measured
        here before an imported one, then the newest. An environment of a file that claims another one's key is chosen
        only where there is no other.

    Examples
    --------
    >>> old = EnvironmentStanding("a", 1, False, True, True, "2026-11-24T06:00:00.000+00:00")
    >>> new = EnvironmentStanding("b", 2, False, True, False, "2026-11-25T06:00:00.000+00:00")
    >>> preferred_environment([old, new]).key
    'a'
    """
    own_keys = {key.removeprefix("imported:") for key in keys or [standing.key for standing in standings]}
    first_claims = [standing for standing in standings if not claims_another(standing.key, own_keys)]
    return max(
        first_claims or standings,
        key=lambda standing: (
            standing.complete,
            standing.measured,
            not standing.imported,
            standing.finished_at,
            # Of equal moments, the one that was stored last.
            standing.id,
        ),
    )


def claims_another(key: str, keys: Collection[str]) -> bool:
    """Tell whether an environment's file claims the key of another environment, and was kept apart from it.

    Parameters
    ----------
    key : str
        As stored.
    keys : collection of str
        Of all environments in question, without the prefix of imported ones.

    Examples
    --------
    >>> claims_another("imported:ab12.3fa9c1d2e4b5", {"ab12", "ab12.3fa9c1d2e4b5"})
    True
    """
    claimed, _, suffix = key.removeprefix("imported:").rpartition(".")
    return bool(suffix) and claimed in keys
