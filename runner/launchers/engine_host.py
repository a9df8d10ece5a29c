"""The machine under a container engine: what the engine says of it, and what a container of the tier image sees."""

import json
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from runner.errors import LaunchError
from runner.host import Host, host_of_engine
from runner.launchers.engine import ContainerSpec
from tierserver.messages import TierFacts


class FactsEngine(Protocol):
    """What reading the facts takes of a container engine."""

    @property
    def info(self) -> Mapping[str, Any]: ...

    def run_to_end(self, spec: ContainerSpec) -> str: ...


def read_host(engine: FactsEngine, *, image: str, labels: Mapping[str, str]) -> Host:
    """Return the machine under the engine's containers.

    The engine itself knows neither the CPU's name nor its flags, and the machine that commands may have others.
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
    except ValueError as error:  # no JSON, or another message
        raise LaunchError(
            f"a container of {image} did not say what it runs on ({error}), but: {output[:200]}"
        ) from error
    return host_of_engine(engine.info, facts)
