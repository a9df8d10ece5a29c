"""Random hostile requests; unlike the limits of time in test_hostile.py, others may run beside them."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_random_hostile_requests_neither_crash_nor_swell_a_tier():
    command = [sys.executable, str(ROOT / "benchmarks/fuzz_tier.py"), "--requests", "150", "--seed", "7"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, json.loads(ended.stdout)["faults"] if ended.stdout else ended.stderr
