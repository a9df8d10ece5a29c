"""`python -m tierserver.facts`: print what a tier of this image, on this machine, would run on, as one line of JSON."""

from __future__ import annotations

import json

from tierserver.engine import VERSION, available_providers
from tierserver.machine import boot_id, cpu_model, has_vnni
from tierserver.messages import TierFacts


def read_facts() -> TierFacts:
    """Read the facts of the machine and of the engine in this process."""
    return TierFacts(cpu_model(), has_vnni(), boot_id(), VERSION, available_providers())


if __name__ == "__main__":
    print(json.dumps(read_facts().to_json()))
