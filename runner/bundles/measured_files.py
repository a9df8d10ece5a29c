"""The files that were measured: from the cache of artifacts, or built again and shown to be the same bytes."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlmodel import Session

from catalog.evidence import strategy_evidence
from catalog.evidence.keyed_evidence import input_orders
from catalog.evidence.strategy_evidence import StrategyEvidence
from catalog.exchange.lineage import original_key
from catalog.keys import latency_key
from runner.artifacts.calibration import subject_calibration
from runner.artifacts.store import ArtifactStore, CachedArtifact
from runner.errors import BundleError
from runner.measuring.keyed_strategy import artifact_key_of
from runner.operators import Pass, make_pass
from runner.sealed import file_sha256
from runner.subjects import Subject


@dataclass(frozen=True)
class MeasuredStrategy:
    """A strategy's evidence, the digest of identity's file, and the inputs that were sent, in their order."""

    row: StrategyEvidence
    identity_sha256: str | None
    inputs: tuple[tuple[str, ...], ...]

    @property
    def name(self) -> str:
        return f"{self.row.operator} on {self.row.placement}"

    @property
    def came_from(self) -> str:
        """The source of the evidence, for a message."""
        origin = self.row.environment.origin
        return "measured here" if origin is None else f"imported from {origin.name}"


def measured_strategy(
    session: Session, subject: str, operator: str, placement: str, environment: str
) -> MeasuredStrategy:
    """Read the evidence of an answer's recommendation."""
    rows = [row for row in strategy_evidence(session, subject=subject) if row.environment.key == environment]
    row = next(row for row in rows if (row.operator, row.placement) == (operator, placement))
    identity = next((row.files for row in rows if not row.passes and len(row.files) == 1), ())
    return MeasuredStrategy(row, identity[0].sha256 if identity else None, input_orders(session, row.latency_key))


def measured_artifact(
    measured: MeasuredStrategy, subject: Subject, artifacts: ArtifactStore, catalog: str
) -> CachedArtifact:
    """Return the artifact whose files have the SHA-256 of the measured ones.

    Raises
    ------
    BundleError
        When the evidence does not say which files were measured, or they can neither be found nor built again.
    """
    # Imported evidence may come without artifacts.
    recorded = {file.file: file.sha256 for file in measured.row.files}
    if not recorded:
        raise BundleError(
            f"the evidence of {measured.name} ({measured.came_from}) does not say which model files were measured, so "
            f"none can be handed over; measure it here (`runner fill-catalog`), or make files with `runner apply`"
        )
    cached = artifacts.find(original_key(measured.row.artifact_key))
    if cached is not None and _sha256(cached) == recorded:
        return cached
    if cached is not None:
        artifacts.discard(cached.key)
    subject.prepare()
    _check_model(measured, subject, catalog)
    built = _rebuilt(measured, subject, artifacts)
    different = [name for name, digest in recorded.items() if _sha256(built).get(name) != digest]
    if different:
        raise BundleError(
            f"{', '.join(different)} of {measured.name} ({measured.came_from}) cannot be built again bit by bit from "
            f"subject {subject.name} in {catalog}: it was measured with {_versions(measured)}. Use these versions, or "
            "measure what this machine builds: `runner fill-catalog`"
        )
    return built


def settings_are_those_measured(measured: MeasuredStrategy, subject: Subject) -> bool:
    """Return whether pre- and post-processing are those of the measurement, by its content key."""
    row = measured.row
    return any(
        original_key(row.latency_key)
        == latency_key(
            artifact_key=original_key(row.artifact_key),
            inputs_fingerprint=subject.dataset.inputs_fingerprint(),
            input_ids=list(inputs),
            preprocess=subject.preprocess,
            postprocess=subject.postprocess,
            **dict(row.conditions),
        )
        for inputs in measured.inputs
    )


def _check_model(measured: MeasuredStrategy, subject: Subject, catalog: str) -> None:
    """Refuse early, before anything is built, where the declared model is another one."""
    own = file_sha256(subject.model)
    same_key = artifact_key_of(subject, _passes(measured)) == original_key(measured.row.artifact_key)
    if same_key or measured.identity_sha256 in (None, own):
        return
    raise BundleError(
        f"subject {subject.name} in {catalog} is another model than the one measured ({measured.came_from}): "
        f"SHA-256 {own[:12]}…, measured {str(measured.identity_sha256)[:12]}…. Name the catalog it was measured with "
        "(-c FILE), or measure this model: `runner fill-catalog`"
    )


def _passes(measured: MeasuredStrategy) -> tuple[Pass, ...]:
    return tuple(make_pass(step["name"], step["options"]) for step in measured.row.passes)


def _rebuilt(measured: MeasuredStrategy, subject: Subject, artifacts: ArtifactStore) -> CachedArtifact:
    passes = _passes(measured)
    built = artifacts.build(
        artifact_key_of(subject, passes), model=subject.model, passes=passes, calibration=subject_calibration(subject)
    )
    if built.inapplicable:
        raise BundleError(f"{measured.name} cannot be built again from {subject.name}: {built.reason}")
    return built


def _sha256(artifact: CachedArtifact) -> Mapping[str, str]:
    """Return the digests of the files as they are on disk now, whatever the cache remembers."""
    return {file.file: file_sha256(artifact.directory / file.file) for file in artifact.files}


def _versions(measured: MeasuredStrategy) -> str:
    versions = measured.row.environment.details.get("versions", {})
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return listed or f"onnxruntime {measured.row.environment.onnxruntime}"
