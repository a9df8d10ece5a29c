"""Every threshold of the rules in one place, with its reason. docs/verdicts.md has the runs they were set by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """Where a rule begins to doubt, and where it rejects. Shares are percentages of what the comment says."""

    # A wall clock that moves against the monotonic one was set, or the machine slept. Slewing by NTP moves it by at
    # most 0.05 % of the time that passes.
    clock_jump_s: float = 0.1
    clock_slew_pct: float = 0.1

    # Of the measured window, beyond what the declared quota makes of the CPU time used: the quota in force is another.
    throttled_doubtful_pct: float = 10.0
    throttled_invalid_pct: float = 30.0

    # Of the window that a client without a part of its own is throttled: its work is little, so the clock that is read
    # there reads late. Doubtful at most: a slow device may have been declared on purpose.
    client_throttled_pct: float = 20.0

    # How long a tier's threads waited for a CPU while their quota allowed one, of the CPU time they used in the window.
    # Waiting that is little of the window disturbs nothing, however little CPU was used. Like the two below doubtful at
    # most: on a host that is always busy a fill could otherwise never finish.
    waited_pct: float = 100.0
    waited_least_pct: float = 10.0

    # Of all CPUs of the host, used by others during the window.
    others_pct: float = 40.0

    # Of all CPUs of the host, taken by the hypervisor.
    steal_pct: float = 2.0

    # Major page faults per 100 inferences: each is a read from disk inside a latency.
    faults_doubtful_pct: float = 20.0
    faults_invalid_pct: float = 100.0

    # A sample is an outlier when the same input took less than half as long in another pass, and at least two periods
    # of the CPU controller less, which throttling alone can add. Of all samples of the measurement.
    outlier_factor: float = 2.0
    outlier_s: float = 0.02
    outliers_pct: float = 10.0

    # How much slower the last third of the warm-up was than the same inputs afterwards (median over inputs), if a sign
    # test says that this is no chance.
    warmup_pct: float = 20.0
    warmup_pvalue: float = 0.01
    warmup_pairs: int = 8

    # How far a round is from the median of all, median over inputs. Only ever doubtful: to reject a round because it
    # differs would make the rounds look more alike than they are.
    drift_pct: float = 20.0


DEFAULTS = Thresholds()
