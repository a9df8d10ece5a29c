"""A bundle from an answer: the very files that were measured, how to run them, what they promise, and a check."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Any

from catalog.evidence.loading import strategy_evidence
from catalog.evidence.lookups import input_orders, input_rules
from catalog.evidence.queries import Reader
from catalog.evidence.strategy_evidence import StrategyEvidence
from catalog.exchange.lineage import original_key
from catalog.keys import latency_key
from catalog.units import duration, size
from recommender.answer.wording import percentile_name
from recommender.schemas import RecommendationOut, RecommendRequest, RecommendResponse
from runner.artifacts.calibration import subject_calibration
from runner.artifacts.store import ArtifactStore, CachedArtifact, build_apart
from runner.bundles import run
from runner.bundles.manifest import (
    MANIFEST,
    README,
    SCRIPT,
    BundledFile,
    EvidenceEntry,
    Manifest,
    PartEntry,
    check_runs,
)
from runner.errors import BundleError
from runner.graph.writing import data_file
from runner.host import versions
from runner.measuring.keyed_strategy import artifact_key_of
from runner.measuring.tiers import PROVIDERS, onnxruntime_provider
from runner.operators.base import Pass
from runner.operators.registry import make_pass
from runner.subjects.dataset import Subject
from runner.workdir import file_sha256, new_directory, temporary
from tierserver.messages import Postprocess, Preprocess


@dataclass(frozen=True)
class MeasuredStrategy:
    """A strategy's evidence, the digest of identity's file, and the inputs that were sent, in their order.

    `rules` say how rounds drew their inputs, where they did.
    """

    row: StrategyEvidence
    identity_sha256: str | None
    inputs: tuple[tuple[str, ...], ...]
    rules: tuple[Mapping[str, object], ...] = ()

    @property
    def name(self) -> str:
        return f"{self.row.operator} on {self.row.placement}"

    @property
    def came_from(self) -> str:
        """The source of the evidence, for a message."""
        origin = self.row.environment.origin
        return "measured here" if origin is None else f"imported from {origin.name}"


def measured_strategy(
    reader: Reader, subject: str, operator: str, placement: str, environment: str
) -> MeasuredStrategy:
    """Read the evidence of an answer's recommendation."""
    rows = [row for row in strategy_evidence(reader, subject=subject) if row.environment.key == environment]
    row = next(row for row in rows if (row.operator, row.placement) == (operator, placement))
    # Without passes and in one piece: only then is the digest that of the model itself.
    identity = next((row.files for row in rows if not row.passes and len(row.files) == 1), ())
    return MeasuredStrategy(
        row,
        identity[0].sha256 if identity else None,
        input_orders(reader, row.latency_key),
        input_rules(reader, row.latency_key),
    )


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
    # Imported evidence has keys of its own; the cache of artifacts knows the original ones.
    cached = artifacts.find(original_key(measured.row.artifact_key))
    if cached is not None and _sha256(cached) == recorded:
        return cached
    if cached is not None:
        # Otherwise `build` would return the same files again.
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


# Of a latency's key, what the conditions of a measurement state; a codec only where it is not the usual one.
_OF_SUBJECT = {"artifact_key", "inputs_fingerprint", "input_ids", "preprocess", "postprocess"}
_CONDITIONS = signature(latency_key).parameters.keys() - {*_OF_SUBJECT, "codec"}


def settings_are_those_measured(measured: MeasuredStrategy, subject: Subject) -> bool:
    """Return whether pre- and post-processing are those of the measurement, by its content key."""
    row = measured.row
    # Conditions from elsewhere may lack what determines a key, or hold more: then nothing is shown.
    if not _CONDITIONS <= row.conditions.keys() <= _CONDITIONS | {"codec"}:
        return False
    return any(
        original_key(row.latency_key)
        == latency_key(
            artifact_key=original_key(row.artifact_key),
            inputs_fingerprint=subject.dataset.inputs_fingerprint(),
            input_ids=inputs,
            preprocess=subject.preprocess,
            postprocess=subject.postprocess,
            **dict(row.conditions),
        )
        for inputs in (*measured.rules, *map(list, measured.inputs))
    )


def _check_model(measured: MeasuredStrategy, subject: Subject, catalog: str) -> None:
    """Refuse early, before anything is built, where the declared model is another one."""
    own = file_sha256(subject.model)
    same_key = artifact_key_of(subject, _passes(measured)) == original_key(measured.row.artifact_key)
    # The key or the digest of identity's file shows that the model is the same; imports may lack the digest.
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
    key_of, calibration = partial(artifact_key_of, subject), subject_calibration(subject)
    built = build_apart(
        artifacts, key_of(passes), model=subject.model, passes=passes, calibration=calibration, key_of=key_of
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


def readme(manifest: Manifest) -> str:
    """Write the whole text, in Markdown."""
    return "\n".join(
        [
            f"# {manifest.subject}: {manifest.operator} on {manifest.placement}",
            "",
            manifest.summary,
            "",
            _promise(manifest),
            "",
            "| part | file | tier | provider | threads | size |",
            "|---|---|---|---|---|---|",
            *(_row(part) for part in manifest.parts),
            "",
            "## Run it",
            "",
            "```console",
            f"$ pip install {_requirements(manifest)}",
            *_commands(manifest),
            "```",
            "",
            f"`{SCRIPT}` is an example to build on: it reads `{MANIFEST}`, creates the sessions with the settings the "
            "measurement had, and contains pre- and post-processing. `python run.py --check` compares the files with "
            "their checksums.",
            "",
            *_warnings(manifest),
        ]
    )


def _row(part: PartEntry) -> str:
    cells = (part.part, part.file, part.tier, part.provider, part.threads, size(part.size_bytes))
    return f"| {' | '.join(map(str, cells))} |"


def _promise(manifest: Manifest) -> str:
    latency, evidence = manifest.answer["latency"], manifest.evidence
    interval = ""
    if latency["low_s"] is not None and latency["high_s"] is not None:
        interval = f" (95 % interval {duration(latency['low_s'])} to {duration(latency['high_s'])})"
    where = f"{evidence.cpu_model}, launcher {evidence.launcher}"
    where += "" if evidence.scale == "1" else f", emulated at {evidence.scale}"
    origin = "Predicted" if latency["predicted"] else "Measured"
    return (
        f"{origin} {percentile_name(latency['percentile'])}: {duration(latency['percentile_s'])}{interval}; "
        f"{manifest.conditions}; on {where}, until {evidence.measured_at}."
    )


def _requirements(manifest: Manifest) -> str:
    used = manifest.versions["bundled"]
    names = ["onnxruntime", "numpy", *(() if manifest.preprocess["kind"] == "tensors" else ("pillow",))]
    return " ".join(f"{name}=={used[name]}" for name in names)


def _commands(manifest: Manifest) -> list[str]:
    example = "inputs.npy" if manifest.preprocess["kind"] == "tensors" else "picture.jpg"
    lines = [f"$ python {SCRIPT} {example}"]
    if len(manifest.parts) > 1:
        for index, part in enumerate(manifest.parts):
            source = example if index == 0 else f"cut{index}.npz"
            output = f" -o cut{index + 1}.npz" if index + 1 < len(manifest.parts) else ""
            lines.append(f"$ python {SCRIPT} {source} --part {part.part}{output}    # on {part.tier}")
    return lines


def _warnings(manifest: Manifest) -> list[str]:
    if not manifest.warnings:
        return []
    return ["## To know", "", *(f"- {warning}" for warning in manifest.warnings), ""]


_UNPROVEN = (
    "pre- and post-processing are the catalog's; they are not shown to be those of the measurement (other inputs, "
    "settings or library versions)"
)


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question, its answer with a recommendation, and the evidence of the recommendation."""

    request: RecommendRequest
    answer: RecommendResponse
    best: RecommendationOut
    measured: MeasuredStrategy


def make_bundle(answered: AnsweredQuestion, subject: Subject, artifact: CachedArtifact, target: Path) -> Manifest:
    """Write a bundle into a new directory, which appears only when it is complete and was run.

    Parameters
    ----------
    answered
        The question and its recommendation.
    subject
        The model under study, for pre- and post-processing and one real input.
    artifact
        The measured files.
    target
        A directory that is absent or empty.

    Returns
    -------
    Manifest
        As written to `manifest.json`.

    Raises
    ------
    BundleError
        When something cannot be written, or the copied files do not give what the measured ones give.
    """
    with new_directory(target, error=BundleError) as staging:
        for file in artifact.files:
            shutil.copyfile(artifact.directory / file.file, staging / file.file)
        # A module of this package, so that its code is checked as all other code is.
        shutil.copyfile(run.__file__, staging / SCRIPT)
        # run.py reads the manifest, so a draft without the check and the final checksums is written first.
        draft = _manifest(answered, subject, artifact, staging)
        (staging / MANIFEST).write_text(draft.to_json(), encoding="utf-8")
        name, encoded = _real_input(answered.measured, subject)
        check = check_runs(staging, draft, artifact, name=name, encoded=encoded)
        checked = draft.model_copy(update={"check": check})
        # Written before the checksums, which cover it.
        (staging / README).write_text(readme(checked), encoding="utf-8")
        final = checked.model_copy(update={"files": list(_files(staging))})
        (staging / MANIFEST).write_text(final.to_json(), encoding="utf-8")
    return final


def _manifest(answered: AnsweredQuestion, subject: Subject, artifact: CachedArtifact, staging: Path) -> Manifest:
    row, answer = answered.measured.row, answered.answer
    proven = settings_are_those_measured(answered.measured, subject)
    return Manifest(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        subject=row.subject,
        task=row.task,
        operator=row.operator,
        passes=[dict(step) for step in row.passes],
        placement=row.placement,
        parts=list(_parts(answered.measured, artifact, staging)),
        links=[dict(link) for link in _mappings(row.conditions.get("links"))],
        codec=row.conditions.get("codec", "raw"),
        preprocess=asdict(Preprocess.from_json(subject.preprocess)),
        postprocess=asdict(Postprocess.from_json(subject.postprocess)),
        # Only the fields that were set, so that the question can be sent again as it stands.
        question=answered.request.model_dump(mode="json", exclude_unset=True),
        answer=answered.best.model_dump(mode="json"),
        summary=answer.summary,
        warnings=[*answer.warnings, *(() if proven else (_UNPROVEN,))],
        conditions=answer.conditions,
        evidence=_evidence(answered),
        versions={
            "measured": {"tierwise": row.environment.tierwise, **row.environment.details.get("versions", {})},
            "bundled": {"tierwise": version("tierwise"), **versions()},
        },
        files=list(_files(staging)),
    )


def _mappings(values: object) -> list[Mapping[str, Any]]:
    """Return the mappings of a list; what else evidence from elsewhere may hold there says nothing."""
    return [value for value in values if isinstance(value, Mapping)] if isinstance(values, list | tuple) else []


def tier_limits(conditions: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return by name how the tiers of a measurement ran; those alone of which all is known that a bundle states."""
    limits = {}
    for tier in _mappings(conditions.get("tiers")):
        stated = [tier.get(name) for name in ("cpus", "threads", "memory_bytes")]
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in stated)
        if numbers and isinstance(tier.get("name"), str) and tier.get("provider") in PROVIDERS:
            limits[tier["name"]] = tier
    return limits


def _parts(measured: MeasuredStrategy, artifact: CachedArtifact, staging: Path) -> Iterator[PartEntry]:
    """Yield the model files in order, each with its tier and that tier's settings."""
    row = measured.row
    recorded = {file.file: file.sha256 for file in row.files}
    limits = tier_limits(row.conditions)
    models = artifact.parts
    if len(models) != len(row.tiers) or not all(tier in limits for tier in row.tiers):
        raise BundleError(
            f"the evidence of {measured.name} ({measured.came_from}) does not say how its tiers ran: needed are "
            "threads and provider of each; measure it here: `runner fill-catalog`"
        )
    for model, tier in zip(models, row.tiers, strict=True):
        copied = staging / model.file
        if (digest := file_sha256(copied)) != recorded[model.file]:
            raise BundleError(f"{model.file} was changed while it was copied; run it again")
        data = data_file(copied)
        yield PartEntry(
            part=model.part,
            file=model.file,
            data=data.name if data.exists() else None,
            sha256=digest,
            size_bytes=model.size_bytes,
            tier=tier,
            provider=onnxruntime_provider(limits[tier]["provider"]),
            threads=limits[tier]["threads"],
            cpus=limits[tier]["cpus"],
            memory_bytes=limits[tier]["memory_bytes"],
        )


def _evidence(answered: AnsweredQuestion) -> EvidenceEntry:
    row, environment = answered.measured.row, answered.measured.row.environment
    return EvidenceEntry(
        strategy=f"{row.subject}:{row.operator}:{row.placement}",
        environment=environment.key,
        artifact=row.artifact_key,
        latency=row.latency_key,
        accuracy=row.accuracy_key if row.accuracy is not None else None,
        launcher=environment.launcher,
        scale=environment.scale,
        host=environment.host,
        cpu_model=environment.cpu_model,
        measured_at=max((evidence.finished_at for evidence in row.rounds), default=environment.created_at),
        imported_from=environment.origin.name if environment.origin is not None else None,
    )


def _files(staging: Path) -> Iterator[BundledFile]:
    for path in sorted(staging.iterdir()):
        # The manifest cannot hold its own checksum.
        if path.name != MANIFEST:
            yield BundledFile(file=path.name, sha256=file_sha256(path), size_bytes=path.stat().st_size)


def _real_input(measured: MeasuredStrategy, subject: Subject) -> tuple[str, bytes]:
    """Return an input that was measured, or the subject's first one where it has none of those any more."""
    pool = subject.dataset.input_ids()
    available = set(pool)
    name = next((input_id for inputs in measured.inputs for input_id in inputs if input_id in available), pool[0])
    with temporary() as scratch:
        subject.dataset.write_inputs(scratch, [name])
        return name, (scratch / name).read_bytes()
