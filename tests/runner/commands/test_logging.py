"""What is logged to the terminal: warnings of ours, and no advice of libraries."""

import subprocess
import sys


def test_advice_that_goes_through_the_root_logger_is_not_shown() -> None:
    script = (
        "import logging; from runner.cli import log_to_stderr; log_to_stderr();"
        "logging.warning('please consider'); logging.getLogger('runner.x').warning('ours')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "WARNING runner.x: ours\n"
