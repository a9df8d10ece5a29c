"""A short run of benchmarks/fuzz_inputs.py, which takes ten thousand of each."""

import json
import subprocess
import sys
from pathlib import Path


def test_mutated_catalogs_and_models_crash_nothing() -> None:
    command = [sys.executable, "-m", "benchmarks.fuzz_inputs", "--catalogs", "60", "--models", "60"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert counted["crashes"] == 0
    assert sum(counted["catalogs"].values()) == sum(counted["models"].values()) == 60
    assert any(kind.startswith("accepted") for kind in counted["models"])
