"""`python -m tierserver.facts`: print what a tier of this image, on this machine, would run on, as one line of JSON."""

from __future__ import annotations

import json
import platform

from tierserver.engine import VERSION, available_providers
from tierserver.machine import boot_id, cpu_model, has_vnni, machine_digest, physical_bytes, usable_cpus
from tierserver.messages import TierFacts


def read_facts() -> TierFacts:
    """Read the facts of the machine and of the engine in this process."""
    return TierFacts(
        cpu_model=cpu_model(),
        vnni=has_vnni(),
        boot_id=boot_id(),
        onnxruntime=VERSION,
        providers=available_providers(),
        architecture=platform.machine(),
        cpus=usable_cpus(),
        memory_bytes=physical_bytes(),
        kernel=platform.release(),
        machine=machine_digest(),
    )


if __name__ == "__main__":
    print(json.dumps(read_facts().to_json()))
