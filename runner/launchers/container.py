"""Containers that answer on their standard streams, a tier or what holds a tier's network, and the volumes they mount.

Mounts are named volumes of the engine: filled once per content, which also works where the engine is remote. A volume's
content cannot be renamed into place, so a second, empty volume marks the first as complete.
"""

import hashlib
import tarfile
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from catalog.units import size
from runner.errors import LaunchError, NameTakenError
from runner.launchers.base import EventCallback, Mount, readable
from runner.launchers.channel import ControlChannel, Obituary
from runner.launchers.engine import ContainerSpec, Engine
from runner.workdir import Owner

# Where a tier finds its mounts.
ROOT = "/tierwise"
_READY_S = 60.0
_DEATH_S = 2.0


class DockerTier:
    """A tier that is a container."""

    def __init__(self, engine: Engine, name: str, container: str, *, memory_bytes: int = 0) -> None:
        self.name = name
        self.container = container
        self._engine = engine
        self._memory_bytes = memory_bytes
        self._attachment = engine.attach(container)
        self._channel = ControlChannel(
            name, lines=self._attachment.lines(), send=self._attachment.send, obituary=self._obituary
        )

    def wait_ready(self) -> None:
        self._channel.wait_ready(deadline_s=_READY_S)

    def call(
        self, command: Mapping[str, Any], *, on_event: EventCallback | None = None, deadline_s: float
    ) -> dict[str, Any]:
        return self._channel.call(command, on_event=on_event, deadline_s=deadline_s)

    def path(self, mount: str) -> str:
        return f"{ROOT}/{mount}"

    def close(self) -> None:
        self._attachment.shut_down()
        self._channel.join(_DEATH_S)
        self._attachment.close()

    def _obituary(self) -> Obituary:
        """Return why the tier ended; raise EngineUnavailableError if the engine itself ended."""
        deadline = time.monotonic() + _DEATH_S
        while (state := self._engine.state(self.container)) is not None and not state.is_final:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        if state is None:
            return Obituary("its container was removed", "")
        log_tail = self._engine.log_tail(self.container)
        if state.running:
            return Obituary("its container runs but does not answer", log_tail)
        # Before the exit code, which is that of any SIGKILL.
        if state.oom_killed:
            limit = size(self._memory_bytes)
            return Obituary(f"out of memory: killed at its limit of {limit}", log_tail)
        return Obituary.of_exit(state.exit_code, log_tail)


OWNER_LABEL = "tierwise.owner"
KEY_LABEL = "tierwise.key"
COMPLETE = "-complete"
_OTHERS_FILL_S = 120.0
_POLL_S = 0.2


def volume_name(mount: Mount) -> str:
    """Name a volume by content: equal files with equal bytes have one name."""
    text = "\n".join([mount.key, *sorted(mount.files), *(mount.sha256[file] for file in sorted(mount.sha256))])
    return f"tierwise-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def ensure_volume(engine: Engine, mount: Mount, *, image: str, labels: Mapping[str, str]) -> None:
    """Make and fill the mount's volume if needed; raise NameTakenError if another runner never finishes it."""
    name, deadline = volume_name(mount), time.monotonic() + _OTHERS_FILL_S
    while not _is_complete(engine, name):
        try:
            _fill(engine, mount, image=image, labels=labels)
        except NameTakenError:
            late = time.monotonic() > deadline
            if not _remove_abandoned(engine, name, late=late) and late:
                raise
            time.sleep(_POLL_S)


def _is_complete(engine: Engine, name: str) -> bool:
    if engine.volume_labels(name + COMPLETE) is None:
        return False
    if engine.volume_labels(name) is not None:
        return True
    engine.remove_volume(name + COMPLETE)
    return False


def _remove_abandoned(engine: Engine, name: str, *, late: bool) -> bool:
    """Remove the helper of a runner that is dead, or that runs elsewhere and is overdue."""
    # This process fills one volume after another, so that a helper of its own is a leftover as well.
    abandoned = []
    for helper in engine.list_containers(f"{KEY_LABEL}={name}"):
        owner = Owner.parse(helper["Labels"].get(OWNER_LABEL, ""))
        if owner is None or owner == Owner.current() or owner.is_dead or (late and owner.is_elsewhere):
            abandoned.append(helper["Id"])
    for container in abandoned:
        engine.remove_container(container)
    return bool(abandoned)


def _fill(engine: Engine, mount: Mount, *, image: str, labels: Mapping[str, str]) -> None:
    """Copy the files in through a container that is created and never started; its name is the lock."""
    name = volume_name(mount)
    volume_labels = {key: value for key, value in labels.items() if key != "tierwise.run"} | {KEY_LABEL: name}
    engine.create_volume(name, volume_labels)
    helper = ContainerSpec(
        image=image,
        command=["python"],
        name=f"{name}-fill",
        labels=volume_labels,
        binds={name: f"{ROOT}/{mount.name}"},
        writable_binds=True,
    )
    container = engine.create_container(helper)
    try:
        # Another runner may have filled it while this one waited for the container's name.
        if _is_complete(engine, name):
            return
        with tempfile.TemporaryFile() as archive:
            with tarfile.open(fileobj=archive, mode="w") as tar:
                for inside in mount.files:
                    _add(tar, inside, readable(mount, inside))
            archive.seek(0)
            engine.put_archive(container, f"{ROOT}/{mount.name}", archive)
        engine.create_volume(name + COMPLETE, volume_labels)
    finally:
        engine.remove_container(container)


def _add(tar: tarfile.TarFile, inside: str, path: Path) -> None:
    entry = tar.gettarinfo(str(path), arcname=inside)
    # Tiers run as the user nobody: they may read the files, but neither own nor change them.
    entry.uid = entry.gid = 0
    # tarfile would write a second name of one inode as a hard link, without its content.
    entry.type, entry.size, entry.mode = tarfile.REGTYPE, path.stat().st_size, 0o444
    with path.open("rb") as content:
        tar.addfile(entry, content)


def discard_volume(engine: Engine, mount: Mount) -> None:
    """Remove a volume that holds other bytes than it should, so that the next launch fills it again."""
    with suppress(LaunchError):  # in use by another runner's tier
        engine.remove_volume(volume_name(mount))
        engine.remove_volume(volume_name(mount) + COMPLETE)


def remove_volumes(engine: Engine, *, all_of_them: bool, key: str | None = None) -> int:
    """Remove volumes whose filling was abandoned, or every volume (of one key) that is not in use."""
    label = KEY_LABEL if key is None else f"{KEY_LABEL}={key}"
    volumes = {item["Name"]: item.get("Labels") or {} for item in engine.list_volumes(label)}
    removed = 0
    for name, labels in volumes.items():
        owner = Owner.parse(labels.get(OWNER_LABEL, ""))
        if owner is not None and owner.is_alive and owner != Owner.current():
            continue
        # A volume with its marker is complete and worth keeping; a marker goes with its volume.
        if not all_of_them and (name.endswith(COMPLETE) or name + COMPLETE in volumes):
            continue
        with suppress(LaunchError):  # in use by another runner's tier
            engine.remove_volume(name)
            removed += not name.endswith(COMPLETE)
    return removed
