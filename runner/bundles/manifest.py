"""A bundle's `manifest.json`: everything needed to deploy one strategy, and where its numbers come from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runner.errors import BundleError

MANIFEST = "manifest.json"
SCRIPT = "run.py"
README = "README.md"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Entry):
    """One file of the bundle; its name has no directory."""

    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int


class PartEntry(FileEntry):
    """One model file in the order the parts run, the tier it is for, and how its session was made there."""

    part: str
    tier: str
    data: str | None = Field(description="The file of its external data, if it has any")
    provider: str = Field(description="ONNX Runtime's execution provider")
    threads: int = Field(description="Intra-op threads")
    cpus: float = Field(description="CPU quota of the tier when it was measured")
    memory_bytes: int = Field(description="Memory limit of the tier when it was measured")


class SessionEntry(_Entry):
    """What every session of a tier is made with."""

    graph_optimization_level: str = "ORT_ENABLE_ALL"
    inter_op_num_threads: int = 1
    config: dict[str, str] = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}


class EvidenceEntry(_Entry):
    """The ids under which what was measured can be fetched (GET /evidence/ID), and where it was."""

    strategy: str
    environment: str
    artifact: str
    latency: str
    accuracy: str | None
    launcher: str
    scale: str
    host: str
    cpu_model: str
    measured_at: str
    imported_from: str | None


class OutputEntry(_Entry):
    """One output of the check: what it was, bit by bit."""

    dtype: str
    shape: list[int]
    sha256: str


class CheckEntry(_Entry):
    """The one real input that ran through the bundle's `run.py`, and through the measured files as in a tier."""

    input: str
    input_sha256: str
    outputs: dict[str, OutputEntry]
    identical: Literal[True] = True
    onnxruntime: str


class Manifest(_Entry):
    """The whole file."""

    format: Literal["tierwise-bundle"] = "tierwise-bundle"
    version: Literal[1] = 1
    created_at: str
    subject: str
    task: str
    operator: str
    passes: list[dict[str, Any]]
    placement: str
    parts: list[PartEntry]
    session: SessionEntry = SessionEntry()
    links: list[dict[str, Any]] = Field(description="Of the route, as they were when it was measured")
    codec: str = Field(description="How tensors travelled between the tiers")
    preprocess: dict[str, Any]
    postprocess: dict[str, Any]
    question: dict[str, Any] = Field(description="As POST /recommend takes it")
    answer: dict[str, Any] = Field(description="The recommendation: latency, accuracy, intervals, confidence")
    summary: str
    warnings: list[str]
    conditions: str
    evidence: EvidenceEntry
    versions: dict[str, dict[str, str]] = Field(description="Of the libraries: when measured, when bundled")
    check: CheckEntry | None = None
    files: list[FileEntry] = Field(description="Every file but this one")

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def read_manifest(directory: Path) -> Manifest:
    """Read and check a bundle's manifest; raises BundleError."""
    path = directory / MANIFEST
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{directory} is no bundle: {MANIFEST} cannot be read ({error.strerror}); `runner bundle SUBJECT -o DIR` "
            "makes one"
        ) from error
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first: Mapping[str, Any] = error.errors()[0]
        where = ".".join(str(each) for each in first["loc"]) or "the file"
        raise BundleError(f"{path}: {where}: {first['msg']}; it is no manifest of a bundle, version 1") from error
