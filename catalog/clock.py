"""The wall clock, which is read here alone: for stamps that people read.

It may be set back at any moment. Durations are a monotonic clock's, and a row's number tells which came last.
"""

import time
from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return this moment, as the machine's clock has it."""
    # Through `time.time`, which the tests of a clock that is set back replace.
    return datetime.fromtimestamp(time.time(), UTC)
