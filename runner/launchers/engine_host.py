"""The machine under a container engine, from the engine's description and from inside a container of the tier image."""

import json
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from runner.errors import LaunchError
from runner.host import Host, host_of_engine
from runner.launchers.engine import ContainerSpec
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
