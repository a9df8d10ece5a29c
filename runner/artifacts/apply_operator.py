"""An operator applied to a model file, without tiers and evidence: files in, files and a manifest out."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from catalog.artifact_details import DISTANCE_DETAIL
from catalog.declaration import Catalog, PassSpec
from catalog.keys import artifact_key
from runner.artifacts.calibration import Calibration
from runner.artifacts.model_runs import ModelInputs
from runner.artifacts.store import NOT_VERIFIED, ArtifactStore, CachedArtifact, build_apart
from runner.errors import OperatorError
from runner.graph.model_digest import model_sha256
from runner.graph.model_file import data_files
from runner.host import versions
from runner.operators.base import Pass, PassRefusal
from runner.operators.registry import known_passes, make_pass, pass_versions
from runner.workdir import new_directory, refuse_existing

MANIFEST = "manifest.json"
_MANIFEST_VERSION = 1
_PIPELINE = TypeAdapter(tuple[PassSpec, ...])


@dataclass(frozen=True)
class Pipeline:
    """An operator by its name or its passes, with the file that declares it."""

    name: str
    specs: tuple[PassSpec, ...]
    declared_in: str | None

    def passes(self) -> tuple[Pass, ...]:
        """Build the passes; raise OperatorError for unknown ones and wrong options."""
        return tuple(make_pass(spec.name, spec.options) for spec in self.specs)


def parse_pipeline(text: str, catalog: Catalog | None) -> Pipeline:
    """Parse an operator's name, or passes as the catalog spells them.

    Parameters
    ----------
    text
        `quantized`, or passes between commas: `static_ptq, early_exit: {blocks: 3}`.
    catalog
        Where names are declared; a declared name comes before a pass of the same name.

    Returns
    -------
    Pipeline

    Raises
    ------
    OperatorError
        When it is neither, with the names that there are.

    Examples
    --------
    >>> [spec.name for spec in parse_pipeline("static_ptq, early_exit: {blocks: 3}", None).specs]
    ['static_ptq', 'early_exit']
    """
    if catalog is not None and text in catalog.operators:
        return Pipeline(text, catalog.operators[text], catalog.file.name)
    try:
        # Read as a YAML list, so that passes are spelled here as in a catalog.
        specs = _PIPELINE.validate_python(yaml.safe_load(f"[{text}]"))
    except (yaml.YAMLError, ValidationError) as error:
        raise OperatorError(
            f"{text!r} is neither an operator's name nor a list of passes; {_allowed(catalog)}"
        ) from error
    unknown = [spec.name for spec in specs if spec.name not in known_passes()]
    if unknown or not specs:
        raise OperatorError(f"unknown operator or pass {', '.join(unknown) or text!r}; {_allowed(catalog)}")
    return Pipeline(text, specs, None)


def _allowed(catalog: Catalog | None) -> str:
    declared = f"operators in {catalog.file.name}: {', '.join(catalog.operators)}; " if catalog else ""
    return f"{declared}passes: {', '.join(known_passes())}; with options: 'static_ptq, early_exit: {{blocks: 3}}'"


def apply_operator(
    pipeline: Pipeline, model: Path, target: Path, *, calibration: Calibration, store: ArtifactStore
) -> Mapping[str, Any]:
    """Build and verify what an operator makes of a model, and write it to a new directory.

    Parameters
    ----------
    pipeline
        What to apply.
    model
        An ONNX file.
    target
        A directory that is absent or empty; it appears only when everything in it is complete.
    calibration
        Inputs for passes and proofs.
    store
        The cache that builds and keeps artifacts.

    Returns
    -------
    mapping
        The manifest, as written to `manifest.json`.

    Raises
    ------
    PassRefusal
        When the model does not allow the operator.
    OperatorError
        When the model or the target is not what it should be, or a pass fails.
    """
    # Before the work, which may take minutes.
    refuse_existing(target, error=OperatorError)
    passes = pipeline.passes()
    artifact = _artifact(passes, model, calibration, store)
    # Before the target is made, so that a refusal leaves nothing behind.
    if artifact.reason is not None:
        raise PassRefusal(artifact.reason)
    manifest = _manifest(pipeline, passes, model, calibration, artifact)
    with new_directory(target, error=OperatorError) as staging:
        for file in artifact.files:
            # Copied rather than linked: the result stays whole when the cache is removed.
            shutil.copyfile(artifact.directory / file.file, staging / file.file)
        (staging / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def _artifact(passes: Sequence[Pass], model: Path, calibration: Calibration, store: ArtifactStore) -> CachedArtifact:
    model_digest, calibration_digest = _sha256(model), calibration.sha256

    def key_of(passes: Sequence[Pass]) -> str:
        return artifact_key(
            model_sha256=model_digest,
            passes=[{"name": step.name, "options": dict(step.options())} for step in passes],
            pass_versions=pass_versions(passes, model),
            # The prefix keeps these keys apart from those of a subject's dataset.
            calibration_fingerprint=f"files:{calibration_digest}",
            tools={name: versions()[name] for name in ("onnx", "onnxruntime")},
        )

    def inputs(count: int) -> Sequence[ModelInputs]:
        return calibration.arrays[:count]

    key = key_of(passes)
    return store.find(key) or build_apart(store, key, model=model, passes=passes, calibration=inputs, key_of=key_of)


def _manifest(
    pipeline: Pipeline, passes: Sequence[Pass], model: Path, calibration: Calibration, artifact: CachedArtifact
) -> Mapping[str, Any]:
    size_bytes = sum(file.stat().st_size for file in (model, *data_files(model)))
    used = max((step.calibration_samples for step in passes), default=0)
    return {
        "version": _MANIFEST_VERSION,
        "operator": pipeline.name,
        "declared_in": pipeline.declared_in,
        "passes": [{"name": step.name, "version": step.version, "options": dict(step.options())} for step in passes],
        "model": {"file": model.name, "sha256": _sha256(model), "size_bytes": size_bytes},
        "calibration": {"source": calibration.source, "samples": min(used, len(calibration.arrays))},
        "files": [asdict(file) for file in artifact.files],
        "size_bytes": artifact.size_bytes,
        "did": artifact.details.get("passes", []),
        "proof": artifact.details.get("proof", {}),
        **{name: artifact.details[name] for name in (DISTANCE_DETAIL, NOT_VERIFIED) if name in artifact.details},
        "tools": versions(),
    }


def _sha256(model: Path) -> str:
    try:
        return model_sha256(model)
    except OSError as error:
        raise OperatorError(f"{model} cannot be read: {error.strerror}") from error
