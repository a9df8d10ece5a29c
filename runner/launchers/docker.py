"""Tiers as containers: limited, unprivileged, read-only, reachable only over their shaped links.

Every object carries labels for the project, its run, its owner and its age, by which `clean` finds it.
"""

import json
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from catalog.units import size
from runner.errors import ChangedFilesError, EngineUnavailableError, LaunchError, TierCallError
from runner.host import Host, host_of_engine
from runner.image import ImageBuilder, TierImage
from runner.launchers.base import (
    Deployment,
    EngineDescription,
    EventCallback,
    LinkLimits,
    Mount,
    TierLimits,
    check_links,
)
from runner.launchers.channel import ControlChannel, Obituary
from runner.launchers.engine import ContainerSpec, Engine
from runner.launchers.owner import Owner
from runner.launchers.process import thread_environment
from runner.launchers.shaping import ShapedDevice, Shaping, netem_refusal, shape, shaping_of
from runner.launchers.volumes import OWNER_LABEL, ROOT, discard_volume, ensure_volume, remove_volumes, volume_name
from tierserver.messages import TierFacts


class FactsEngine(Protocol):
    """The methods of a container engine that reading the facts needs."""

    @property
    def info(self) -> Mapping[str, Any]: ...

    def run_to_end(self, spec: ContainerSpec) -> str: ...


def read_host(engine: FactsEngine, *, image: str, labels: Mapping[str, str]) -> Host:
    """Return the machine under the engine's containers.

    The engine itself knows neither the CPU's name nor its flags, and the machine of the runner may have others.
    """
    reading = ContainerSpec(
        image=image,
        command=["python", "-m", "tierserver.facts"],
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
    return host_of_engine(engine.info, facts)


logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_R = TypeVar("_R")

_PORT = 8000
# All addresses of the container, because its networks lead to its links alone.
_LISTENING = ("--port", str(_PORT), "--host", "0.0.0.0", "--token")
_READY_S = 60.0
_DEATH_S = 2.0
_LABEL = "tierwise=1"
_RUN_LABEL = "tierwise.run"
_CREATED_LABEL = "tierwise.created"
# What another host's runner left is removed only when it is older: from here, that runner cannot be seen to live.
_ABANDONED_S = 24 * 3600
# A 10 ms period holds short inferences to the quota, which Docker's default of 100 ms does not.
_PERIOD_US = 10_000
# The kernel refuses a smaller quota, so a tier with little CPU gets a longer period.
_SMALLEST_QUOTA_US = 1_000


class DockerTier:
    """A tier that is a container."""

    def __init__(self, engine: Engine, limits: TierLimits, container: str) -> None:
        self.name = limits.name
        self.container = container
        self._engine = engine
        self._limits = limits
        self._attachment = engine.attach(container)
        self._channel = ControlChannel(
            limits.name, lines=self._attachment.lines(), send=self._attachment.send, obituary=self._obituary
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
            limit = size(self._limits.memory_bytes)
            return Obituary(f"out of memory: killed at its limit of {limit}", log_tail)
        return Obituary.of_exit(state.exit_code, log_tail)


@dataclass(frozen=True)
class DockerDeployment(Deployment):
    """Tiers in containers; `describe_shaping` reads what the kernel does to their links."""

    describe_shaping: Callable[[], list[ShapedDevice]] = field(kw_only=True)


class DockerLauncher:
    """A launcher of tiers as containers of one engine."""

    name = "docker"

    def __init__(self, engine: Engine, *, base_image: str | None = None) -> None:
        self._engine = engine
        self._builder = ImageBuilder(engine, base_image=base_image)
        self._image: TierImage | None = None
        self._host: Host | None = None

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
            self._host = read_host(self._engine, image=self.image().tag, labels=launch_labels())
        return self._host

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
    def launch(
        self, tiers: Sequence[TierLimits], links: Sequence[LinkLimits], mounts: Mapping[str, Sequence[Mount]]
    ) -> Iterator[DockerDeployment]:
        """Yield fresh containers, ready to be called, on shaped links."""
        check_links(tiers, links)
        self._check_engine(tiers)
        run = _Run(self._engine, self.image().tag, links)
        changed: list[Mount] = []
        try:
            run.make_volumes(mounts)
            run.make_networks()
            started = run.start(tiers, mounts)
            base_urls = {(link.upstream, link.downstream): f"http://{link.downstream}:{_PORT}" for link in links}
            yield DockerDeployment(started, tuple(links), base_urls, describe_shaping=run.describe_shaping)
        except TierCallError as error:
            raise _explained(error, run.full_tiers()) from error
        except ChangedFilesError as error:
            changed += [mount for several in mounts.values() for mount in several if mount.name == error.mount]
            raise
        finally:
            run.remove()
            # Only after the removal of the tiers: a volume in use cannot be removed.
            for mount in changed:
                discard_volume(self._engine, mount)

    def clean(self, *, volumes: bool = False) -> int:
        """Remove by label what dead runners left; with `volumes`, also cached models and inputs."""
        engine = self._engine
        containers = [item["Id"] for item in engine.list_containers(_LABEL) if _is_abandoned(item)]
        removed = sum(_in_parallel(_unless_refused(engine.remove_container), containers))
        networks = [item["Id"] for item in engine.list_networks(_LABEL) if _is_abandoned(item)]
        removed += sum(_in_parallel(_unless_refused(engine.remove_network), networks))
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
    """What one launch creates on the engine."""

    def __init__(self, engine: Engine, image: str, links: Sequence[LinkLimits]) -> None:
        self._engine = engine
        self._image = image
        self._links = links
        self._id = uuid.uuid4().hex[:12]
        self._labels = {**launch_labels(), _RUN_LABEL: self._id}
        self._tiers: dict[str, DockerTier] = {}

    def make_volumes(self, mounts: Mapping[str, Sequence[Mount]]) -> None:
        """Make a volume for each distinct content, however many tiers mount it."""
        distinct = {volume_name(mount): mount for several in mounts.values() for mount in several}
        for mount in distinct.values():
            ensure_volume(self._engine, mount, image=self._image, labels=self._labels)

    def make_networks(self) -> None:
        _in_parallel(lambda link: self._engine.create_network(self._network(link), self._labels), self._links)

    def start(self, tiers: Sequence[TierLimits], mounts: Mapping[str, Sequence[Mount]]) -> dict[str, DockerTier]:
        """Start all tiers at once and wait until each is shaped and ready."""
        _in_parallel(lambda limits: self._start_one(limits, mounts.get(limits.name, ())), tiers)
        return {limits.name: self._tiers[limits.name] for limits in tiers}

    def _start_one(self, limits: TierLimits, mounts: Sequence[Mount]) -> None:
        links = self._links_of(limits.name)
        container = self._engine.create_container(self._spec(limits, mounts, links))
        # Engines before API 1.44 take one network at creation; the others must be connected before the start.
        for link in links[1:]:
            self._engine.connect_network(self._network(link), container, limits.name)
        tier = DockerTier(self._engine, limits, container)
        # Kept before the start, so that `remove` closes the connection whatever fails.
        self._tiers[limits.name] = tier
        self._engine.start_container(container)
        if links:
            # Before the tier is ready: no byte of a measurement may pass an unshaped link.
            self._shape(tier, {link.name: shaping_of(_sent_by(limits.name, link), link.delay_s) for link in links})
        tier.wait_ready()

    def _spec(self, limits: TierLimits, mounts: Sequence[Mount], links: Sequence[LinkLimits]) -> ContainerSpec:
        period_us = max(_PERIOD_US, round(_SMALLEST_QUOTA_US / limits.cpus))
        return ContainerSpec(
            image=self._image,
            command=["python", "-m", "tierserver", "--name", limits.name, *_LISTENING],
            name=f"tierwise-{self._id}-{limits.name}",
            labels=self._labels,
            network_mode=self._network(links[0]) if links else "none",
            aliases=[limits.name] if links else [],
            environment=thread_environment(limits.threads),
            binds={volume_name(mount): f"{ROOT}/{mount.name}" for mount in mounts},
            # The only place that may be written; what is in it counts towards the tier's memory.
            tmpfs={"/tmp": "size=16m,mode=1777"},
            cpu_period_us=period_us,
            cpu_quota_us=round(period_us * limits.cpus),
            memory_bytes=limits.memory_bytes,
            interactive=True,
        )

    def describe_shaping(self) -> list[ShapedDevice]:
        """Read both ends of every link, as `tc -s qdisc show` prints them."""
        return [
            shaped for tier in self._tiers.values() if self._links_of(tier.name) for shaped in self._shape(tier, {})
        ]

    def _shape(self, tier: DockerTier, shapings: Mapping[str, Shaping]) -> list[ShapedDevice]:
        networks = self._engine.inspect(tier.container)["NetworkSettings"]["Networks"]
        addresses = {link.name: networks[self._network(link)]["IPAddress"] for link in self._links_of(tier.name)}
        return shape(
            self._engine,
            image=self._image,
            container=tier.container,
            tier=tier.name,
            addresses=addresses,
            shapings=shapings,
            labels=self._labels,
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
        """Kill and remove everything; if the engine is gone, only warn: `clean` removes what is left."""
        for tier in self._tiers.values():
            tier.close()
        label = f"{_RUN_LABEL}={self._id}"
        try:
            # Containers first: the engine refuses to remove a network that has endpoints.
            _in_parallel(self._engine.remove_container, [item["Id"] for item in self._engine.list_containers(label)])
            _in_parallel(self._engine.remove_network, [item["Id"] for item in self._engine.list_networks(label)])
        except EngineUnavailableError as error:
            logger.warning("tiers could not be removed: %s", error)

    def _links_of(self, tier: str) -> list[LinkLimits]:
        return [link for link in self._links if tier in (link.upstream, link.downstream)]

    def _network(self, link: LinkLimits) -> str:
        return f"tierwise-{self._id}-{link.name}"


def launch_labels() -> dict[str, str]:
    """Return the labels by which `clean` finds objects."""
    return {"tierwise": "1", OWNER_LABEL: str(Owner.current()), _CREATED_LABEL: str(int(time.time()))}


def _explained(error: TierCallError, causes: Sequence[str]) -> TierCallError:
    """Return the same error with the causes that the state of its tiers shows."""
    message = "; ".join([error.message, *causes])
    return TierCallError(error.tier, error.type, message, log_tail=error.log_tail)


def _sent_by(tier: str, link: LinkLimits) -> int:
    """Return the rate at which this end of a link may send."""
    return link.up_bit_per_s if tier == link.upstream else link.down_bit_per_s


def _is_abandoned(item: Mapping[str, Any]) -> bool:
    """Return whether no runner uses a labelled object any more."""
    labels = item.get("Labels") or {}
    owner = Owner.parse(labels.get(OWNER_LABEL, ""))
    if owner is None:
        return True
    if owner.is_elsewhere:
        return time.time() - float(labels.get(_CREATED_LABEL, 0)) > _ABANDONED_S
    return not owner.is_alive


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


def _in_parallel(function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
    """Call for each item in a separate thread, wait for all, raise the first error."""
    listed = list(items)
    if not listed:
        return []
    # A thread for each item: a launch lasts as long as its slowest tier, and the threads only wait for the engine.
    with ThreadPoolExecutor(max_workers=len(listed)) as pool:
        return list(pool.map(function, listed))
