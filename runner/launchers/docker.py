"""Tiers as containers: limited, unprivileged, read-only, reachable only over their shaped links.

Every object carries labels for the project, its run, its owner and its age, by which `clean` finds it.
"""

import json
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from runner.errors import ChangedFilesError, EngineUnavailableError, LaunchError, TierCallError
from runner.host import Host, host_of_engine
from runner.image import ImageBuilder, TierImage
from runner.image.builder import architecture
from runner.launchers.base import (
    Deployment,
    EngineDescription,
    LinkLimits,
    Mount,
    TierLimits,
    check_links,
    engine_arguments,
)
from runner.launchers.container import (
    OWNER_LABEL,
    ROOT,
    DockerTier,
    discard_volume,
    ensure_volume,
    remove_volumes,
    volume_name,
)
from runner.launchers.engine import ContainerSpec, Engine
from runner.launchers.marker import remove_stale_marker
from runner.launchers.process import thread_environment
from runner.launchers.shaping import (
    ROLE_LABEL,
    HeldNetworks,
    ShapedDevice,
    in_parallel,
    netem_refusal,
    remove_labelled,
)
from runner.workdir import Owner
from tierserver.messages import TierFacts


class FactsEngine(Protocol):
    """The methods of a container engine that reading the facts needs."""

    @property
    def info(self) -> Mapping[str, Any]: ...

    def run_to_end(self, spec: ContainerSpec) -> str: ...


def read_host(engine: FactsEngine, *, image: str, labels: Mapping[str, str], place: str = "") -> Host:
    """Return the machine under the engine's containers.

    The engine itself knows neither the CPU's name nor its flags, and the machine of the runner may have others.
    """
    reading = ContainerSpec(
        image=image,
        command=["python", "-m", "tierserver.machine"],
        name=f"tierwise-facts-{uuid.uuid4().hex[:12]}",
        labels=labels,
    )
    output = engine.run_to_end(reading)
    try:
        facts = TierFacts.from_json(json.loads(output))
    except ValueError as error:  # not JSON, or another message
        raise LaunchError(
            f"a container of {image} did not report its machine ({error}), but: {output[:200]}"
        ) from error
    there, inside = architecture(str(engine.info.get("Architecture", ""))), architecture(facts.architecture)
    # An image of another architecture may run all the same, emulated instruction by instruction.
    if there and inside and there != inside:
        raise LaunchError(
            f"{image} is of {inside}, and the machine under the engine is of {there}, which would only emulate it; "
            "remove the image there, and name one of its own architecture with TIERWISE_BASE_IMAGE"
        )
    return host_of_engine(engine.info, facts, place=place)


logger = logging.getLogger(__name__)

PORT = 8000
# All addresses of the container, because its networks lead to its links alone.
LISTENING = ("--port", str(PORT), "--host", "0.0.0.0", "--token")
_LABEL = "tierwise=1"
RUN_LABEL = "tierwise.run"
_CREATED_LABEL = "tierwise.created"
# What another host's runner left is removed only when it is older: from here, that runner cannot be seen to live.
_SECONDS_DIGITS = 12
_ABANDONED_S = 24 * 3600
# A 10 ms period holds short inferences to the quota, which Docker's default of 100 ms does not.
_PERIOD_US = 10_000
# The kernel refuses a smaller quota, so a tier with little CPU gets a longer period.
_SMALLEST_QUOTA_US = 1_000
# A tier with fewer CPUs starts without its quota, which comes into force before a model is loaded.
FREE_START_CPUS = 1.0


@dataclass(frozen=True)
class DockerDeployment(Deployment):
    """Tiers in containers; `describe_shaping` reads what the kernel does to their links."""

    describe_shaping: Callable[[], list[ShapedDevice]] = field(kw_only=True)


class DockerLauncher:
    """A launcher of tiers as containers of one engine."""

    name = "docker"

    def __init__(self, engine: Engine, *, base_image: str | None = None, place: str = "") -> None:
        self._engine = engine
        self._place = place
        self._builder = ImageBuilder(engine, base_image=base_image)
        self._image: TierImage | None = None
        self._host: Host | None = None
        self._keeps = False
        self._networks: dict[tuple[LinkLimits, ...], HeldNetworks] = {}
        self._volumes: set[str] = set()
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="remove-tiers")
        self._removal: Future[None] | None = None

    @property
    def engine(self) -> Engine:
        """The engine that runs the tiers."""
        return self._engine

    def describe(self) -> EngineDescription:
        info = self._engine.info
        keys = {
            "operating_system": "OperatingSystem",
            "kernel": "KernelVersion",
            "architecture": "Architecture",
            "cgroup_version": "CgroupVersion",
            "storage_driver": "Driver",
        }
        details = {name: str(info.get(key, "?")) for name, key in keys.items()}
        if self._image is not None:
            details |= {"image": self._image.tag, "image_base": self._image.base}
        return EngineDescription(
            "docker", self._engine.version, int(info.get("NCPU", 0)), int(info.get("MemTotal", 0)), details
        )

    def host(self) -> Host:
        """Return the engine's machine, read once from inside a container of the tier image."""
        if self._host is None:
            image = self.image().tag
            self._host = read_host(self._engine, image=image, labels=launch_labels(), place=self._place)
        return self._host

    def hosts(self, tiers: Iterable[str]) -> Mapping[str, Host]:
        """Return the engine's machine for every tier."""
        return dict.fromkeys(tiers, self.host())

    def refusal(self) -> str | None:
        """Return why this engine cannot run tiers (no way to an image); None if it can."""
        return self._builder.refusal()

    def prepare(self) -> None:
        """Build the tier image if the engine does not have it."""
        self.image()

    def delay_refusal(self) -> str | None:
        """Return why the engine's kernel has no netem, found by trying it; None if it has."""
        return netem_refusal(self._engine, image=self.image().tag, labels=launch_labels())

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep networks, and what shapes them, between the launches of the block."""
        self._keeps = True
        try:
            yield
        finally:
            self._keeps = False
            self._volumes.clear()
            self._finish_removal()
            while self._networks:
                _remove(self._networks.popitem()[1].remove)

    @contextmanager
    def launch(
        self, tiers: Sequence[TierLimits], links: Sequence[LinkLimits], mounts: Mapping[str, Sequence[Mount]]
    ) -> Iterator[DockerDeployment]:
        """Yield fresh containers, ready to be called, on shaped links."""
        check_links(tiers, links)
        self._check_engine(tiers)
        # Freed even where a launch fails, so that nothing of a spoiled network meets the next round.
        networks = self._networks.pop(tuple(links), None) or HeldNetworks(
            self._engine, self.image().tag, links, launch_labels()
        )
        run = _Run(self._engine, self.image().tag, networks)
        changed: list[Mount] = []
        whole = False
        try:
            self._make_volumes(run, mounts)
            networks.make(lone=self._keeps and len(tiers) == 1)
            started = run.start(tiers, mounts)
            # Before anything is measured: the end of the former round must not disturb this one.
            self._finish_removal()
            base_urls = {(link.upstream, link.downstream): f"http://{link.downstream}:{PORT}" for link in links}
            yield DockerDeployment(started, tuple(links), base_urls, describe_shaping=networks.describe)
            whole = self._keeps
        except TierCallError as error:
            raise _explained(error, run.full_tiers()) from error
        except ChangedFilesError as error:
            changed += [mount for several in mounts.values() for mount in several if mount.name == error.mount]
            raise
        finally:
            if whole:
                self._networks[tuple(links)] = networks
                self._removal = self._remover.submit(_remove, run.remove)
            else:
                _remove(run.remove)
                _remove(networks.remove)
            # Only after the removal of the tiers: a volume in use cannot be removed.
            for mount in changed:
                self._volumes.discard(volume_name(mount))
                discard_volume(self._engine, mount)

    def _make_volumes(self, run: "_Run", mounts: Mapping[str, Sequence[Mount]]) -> None:
        """Make a volume for each distinct content, however many tiers mount it."""
        # A volume that another runner removes meanwhile comes back empty, which the tiers' digests find.
        present = self._volumes if self._keeps else set()
        distinct = {volume_name(mount): mount for several in mounts.values() for mount in several}
        for name in distinct.keys() - present:
            run.make_volume(distinct[name])
            present.add(name)

    def _finish_removal(self) -> None:
        """Wait until the containers of the former launch are gone."""
        removal, self._removal = self._removal, None
        if removal is not None:
            removal.result()

    def reconnect(self) -> bool:
        """Open a lost connection to the engine again, and remove what ended with it; return whether it was lost."""
        if not self._engine.reconnect():
            return False
        # Their holders read the end of their input when the connection ended.
        while self._networks:
            _remove(self._networks.popitem()[1].remove)
        # The tiers of the round that failed, which could not be removed then.
        remove_labelled(self._engine, f"{OWNER_LABEL}={Owner.current()}")
        return True

    def clean(self, *, volumes: bool = False) -> int:
        """Remove by label what dead runners left; with `volumes`, also cached models and inputs."""
        engine = self._engine
        containers = [item["Id"] for item in engine.list_containers(_LABEL) if _is_abandoned(item)]
        removed = sum(in_parallel(_unless_refused(engine.remove_container), containers))
        networks = [item["Id"] for item in engine.list_networks(_LABEL) if _is_abandoned(item)]
        removed += sum(in_parallel(_unless_refused(engine.remove_network), networks))
        removed += remove_stale_marker(engine)
        return removed + remove_volumes(engine, all_of_them=volumes)

    def image(self) -> TierImage:
        """Return the image that tiers run from; build it if the engine does not have it."""
        if self._image is None:
            self._image = self._builder.ensure()
        return self._image

    def _check_engine(self, tiers: Sequence[TierLimits]) -> None:
        cpus = int(self._engine.info.get("NCPU", 0))
        for tier in tiers:
            if tier.cpus > cpus:
                raise LaunchError(
                    f"tier {tier.name!r} needs {tier.cpus:g} CPUs, the Docker engine has {cpus}; "
                    "declare fewer, or run everything at a smaller --scale",
                    tier=tier.name,
                )


class _Run:
    """What one launch creates on the engine, besides its networks."""

    def __init__(self, engine: Engine, image: str, networks: HeldNetworks) -> None:
        self._engine = engine
        self._image = image
        self._networks = networks
        self._id = uuid.uuid4().hex[:12]
        self._labels = {**launch_labels(), RUN_LABEL: self._id}
        self._tiers: dict[str, DockerTier] = {}

    def make_volume(self, mount: Mount) -> None:
        """Make and fill the volume of a mount if the engine does not have it."""
        ensure_volume(self._engine, mount, image=self._image, labels=self._labels)

    def start(self, tiers: Sequence[TierLimits], mounts: Mapping[str, Sequence[Mount]]) -> dict[str, DockerTier]:
        """Start all tiers at once and wait until each is ready and limited, and the links are shaped."""
        steps: list[Callable[[], object]] = [
            partial(self._start_one, limits, mounts.get(limits.name, ())) for limits in tiers
        ]
        # Shaped before any tier is loaded: no byte of a measurement may pass an unshaped link.
        in_parallel(lambda step: step(), [self._networks.shape, *steps])
        return {limits.name: self._tiers[limits.name] for limits in tiers}

    def _start_one(self, limits: TierLimits, mounts: Sequence[Mount]) -> None:
        container = self._engine.create_container(self._spec(limits, mounts))
        tier = DockerTier(self._engine, limits.name, container, memory_bytes=limits.memory_bytes)
        # Kept before the start, so that `remove` closes the connection whatever fails.
        self._tiers[limits.name] = tier
        self._engine.start_container(container)
        tier.wait_ready()
        if limits.cpus < FREE_START_CPUS:
            self._engine.limit_cpu(container, period_us=period_us(limits), quota_us=quota_us(limits))

    def _spec(self, limits: TierLimits, mounts: Sequence[Mount]) -> ContainerSpec:
        # The program's own imports take as many CPU seconds whatever the tier may use, and nothing of them is measured.
        later = limits.cpus < FREE_START_CPUS
        return ContainerSpec(
            image=self._image,
            command=["python", "-m", "tierserver", "--name", limits.name, *LISTENING, *engine_arguments(mounts)],
            name=f"tierwise-{self._id}-{limits.name}",
            labels={**self._labels, ROLE_LABEL: "tier"},
            network_mode=self._networks.mode(limits.name),
            environment=thread_environment(limits.threads),
            binds={volume_name(mount): f"{ROOT}/{mount.name}" for mount in mounts},
            # The only place that may be written; what is in it counts towards the tier's memory.
            tmpfs={"/tmp": "size=16m,mode=1777"},
            cpu_period_us=0 if later else period_us(limits),
            cpu_quota_us=0 if later else quota_us(limits),
            memory_bytes=limits.memory_bytes,
            interactive=True,
        )

    def full_tiers(self) -> list[str]:
        """Name each tier whose memory is full, with what to do; empty if the engine does not report memory."""
        causes: list[str] = []
        for name, tier in self._tiers.items():
            try:
                use = self._engine.memory(tier.container)
            except LaunchError:
                return causes
            if use is not None and use.is_full:
                causes.append(
                    f"the memory of tier {name!r} is full ({use}): raise its `memory`, or use a smaller model"
                )
        return causes

    def remove(self) -> None:
        """Kill and remove the tiers; raise EngineUnavailableError if the engine is gone."""
        for tier in self._tiers.values():
            tier.close()
        remove_labelled(self._engine, f"{RUN_LABEL}={self._id}")


def period_us(limits: TierLimits) -> int:
    """Return the period of a tier's CPU quota."""
    return max(_PERIOD_US, round(_SMALLEST_QUOTA_US / limits.cpus))


def quota_us(limits: TierLimits) -> int:
    """Return how much CPU time a tier may use in a period."""
    return round(period_us(limits) * limits.cpus)


def _remove(remove: Callable[[], None]) -> None:
    """Remove something; if the engine is gone, only warn: `clean` removes what is left."""
    try:
        remove()
    except EngineUnavailableError as error:
        # As text: a log that keeps its records would keep the error's frames, and with them sockets.
        logger.warning("what a round had on the engine could not be removed yet: %s", str(error))


def launch_labels() -> dict[str, str]:
    """Return the labels by which `clean` finds objects."""
    return {"tierwise": "1", OWNER_LABEL: str(Owner.current()), _CREATED_LABEL: str(int(time.time()))}


def _explained(error: TierCallError, causes: Sequence[str]) -> TierCallError:
    """Return the same error with the causes that the state of its tiers shows."""
    message = "; ".join([error.message, *causes])
    return TierCallError(error.tier, error.type, message, log_tail=error.log_tail)


def _is_abandoned(item: Mapping[str, Any]) -> bool:
    """Return whether no runner uses a labelled object any more."""
    labels = item.get("Labels") or {}
    owner = Owner.parse(labels.get(OWNER_LABEL, ""))
    if owner is None:
        return True
    if owner.is_elsewhere:
        return time.time() - _created(labels) > _ABANDONED_S
    return not owner.is_alive


def _created(labels: Mapping[str, str]) -> int:
    """Return when an object was made; long ago where its label is none of ours."""
    text = labels.get(_CREATED_LABEL, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _SECONDS_DIGITS else 0


def _unless_refused(remove: Callable[[str], None]) -> Callable[[str], bool]:
    """Return a function that tries to remove an object and reports whether it could: another runner may be at it."""

    def attempt(name: str) -> bool:
        try:
            remove(name)
        except EngineUnavailableError:
            raise
        except LaunchError as error:
            logger.debug("left for the next runner: %s", error)
            return False
        return True

    return attempt
