"""The content keys of a question's strategies, kept so that the same question soon again need not compute them.

To compute keys, models are read, data are checked, and an engine is asked what it runs on: seconds, of which an answer
from evidence needs none. Keys are used again only while everything that they are computed from is unchanged: catalog,
model, data, programs and libraries, machine, and the socket of the Docker engine, which is another one once the engine
was started again. The evidence itself is never kept; it is read for every question.
"""

import json
import logging
import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings

import runner
from catalog.declaration import DatasetFiles, SubjectSpec
from catalog.keys import content_key
from runner.commands.question_catalog import CatalogSubject
from runner.commands.terminal import RunnerSettings
from runner.host import machine_facts, versions
from runner.subjects.user_files import is_own_model, user_path
from runner.workdir import scratch, settle

logger = logging.getLogger(__name__)

_BUILTIN, _UNIX = "builtin:", "unix://"
_DEFAULT_SOCKET = "/var/run/docker.sock"
_PACKAGES = ("catalog", "recommender", "runner", "tierserver")
# A file that changed less than this ago may change again without a new time stamp.
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class StrategyKeys:
    """A declared strategy with the content keys of its evidence; `judged` says whether it has an accuracy."""

    operator: str
    placement: str
    tiers: tuple[str, ...]
    identity: bool
    judged: bool
    artifact_key: str
    accuracy_key: str
    latency_key: str


@dataclass(frozen=True)
class KeptPlan:
    """The environment and the strategies of a subject, as keyed before.

    `unequal` are the artifacts that were known not to compute the same in parts: keys of accuracies depend on them.
    """

    environment: str
    strategies: tuple[StrategyKeys, ...]
    unequal: tuple[str, ...] = ()


class _EngineAddress(BaseSettings):
    """Where Docker's own variable says that the engine is."""

    docker_host: str = ""

    @property
    def socket(self) -> Path | None:
        """The engine's socket on this machine; None where the engine is reached in another way."""
        if self.docker_host and not self.docker_host.startswith(_UNIX):
            return None
        return Path(self.docker_host.removeprefix(_UNIX) or _DEFAULT_SOCKET)


class PlanMemory:
    """Where the keys of one subject are kept, for one launcher and scale."""

    def __init__(self, subject: CatalogSubject, *, launcher: str, scale: str) -> None:
        self._subject, self._launcher, self._scale = subject, launcher, scale
        place = {"catalog": str(subject.catalog.file.resolve()), "subject": subject.name}
        name = content_key(place | {"launcher": launcher, "scale": scale})
        self._file = RunnerSettings().workdir / "planned" / f"{name}.json"

    def state(self) -> str | None:
        """Return what stands for everything that the keys are computed from; None where it cannot be told soon."""
        spec, base = self._subject.catalog.subjects[self._subject.name], self._subject.base
        engine = self._engine()
        paths = _declared_paths(spec, base)
        if engine is None or paths is None:
            return None
        try:
            files = [*_identities(paths), *_programs()]
        except OSError as error:
            logger.debug("no keys are kept: %s", error)
            return None
        declared = self._subject.catalog.declared.model_dump(mode="json")
        versions_of = {**versions(), "machine": machine_facts(), "base_image": RunnerSettings().base_image}
        return content_key({"catalog": declared, "files": files, "engine": engine, "with": versions_of})

    def find(self) -> KeptPlan | None:
        """Return the keys that were kept, None unless everything is as it was then."""
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            if content["state"] != self.state() or _weights(content["weights"]) != content["weights"]:
                return None
            strategies = [StrategyKeys(**entry | {"tiers": tuple(entry["tiers"])}) for entry in content["strategies"]]
            return KeptPlan(content["environment"], tuple(strategies), tuple(content["unequal"]))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            # As good as absent: the keys are computed.
            logger.debug("no keys were kept in %s: %s", self._file, error)
            return None

    def keep(self, plan: KeptPlan, *, state: str | None, weights: Sequence[Path], launcher: str) -> None:
        """Keep the keys that were computed after `state` was taken.

        `weights` are the files with a model's external data; `launcher` is the chosen one.
        """
        # An engine that did not answer may answer to the next question, without a trace in its socket.
        silent = launcher == "process" and self._launcher != "process" and self._engine() != "no engine"
        if state is None or silent or state != self.state():
            return
        content: dict[str, Any] = {"state": state, **asdict(plan)}
        try:
            content["weights"] = _weights([[str(file)] for file in weights])
            with scratch(self._file.parent) as directory:
                (directory / self._file.name).write_text(json.dumps(content), encoding="utf-8")
                settle(directory / self._file.name, self._file)
        except OSError as error:
            logger.debug("keys cannot be kept in %s: %s", self._file, error)

    def _engine(self) -> str | None:
        """Return what stands for the engine; None where that cannot be told without asking it."""
        if self._launcher == "process":
            return "no engine"
        socket = _EngineAddress().socket
        if socket is None:
            return None
        return json.dumps(_identity(socket, socket.stat())) if socket.exists() else "no engine"


def _declared_paths(spec: SubjectSpec, base: Path) -> list[Path] | None:
    """Return the files and folders that a subject names; None for one that may be made or found elsewhere."""
    own = is_own_model(spec.model, base)
    if not own and not spec.model.startswith(_BUILTIN):
        return None
    if not isinstance(spec.dataset, DatasetFiles):
        return [] if spec.dataset.startswith(_BUILTIN) and not own else None
    files = spec.dataset
    names = (spec.model if own else None, files.images, files.masks, files.labels, files.tensors)
    return [user_path(base, name) for name in names if name is not None]


def _identities(paths: Sequence[Path]) -> Iterator[list[object]]:
    """Yield what shows that files have changed, of all in folders; raise OSError where a change may leave no trace."""
    now = time.time_ns()
    for path in paths:
        for file in sorted(_files(path)):
            status = file.stat()
            if now - max(status.st_mtime_ns, status.st_ctime_ns) < _SETTLED_NS:
                raise OSError(f"{file} has just been changed")
            yield _identity(file, status)


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        # What is behind a link is not walked through, as it may lead in circles.
        if any((Path(folder) / name).is_symlink() for name in folders):
            raise OSError(f"{folder} holds a link to a folder")
        yield from (Path(folder) / name for name in names)


def _identity(path: Path, status: os.stat_result) -> list[object]:
    # The time of the last change cannot be set back, as that of the last modification can.
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return [str(path), status.st_dev, status.st_ino, status.st_size, *times, stat.S_IFMT(status.st_mode)]


def _weights(listed: Sequence[Sequence[Any]]) -> list[list[object]]:
    return list(_identities([Path(entry[0]) for entry in listed]))


def _programs() -> Iterator[list[object]]:
    """Yield the files that say how keys are computed and what passes do."""
    root = Path(runner.__file__).parent.parent
    for package in _PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            yield _identity(file, file.stat())
