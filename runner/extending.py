"""Going on after the declared rounds, look by look, until every percentile is narrow or a limit is met."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from catalog.evidence.measured import latencies
from runner.measuring.fill import Filler, Outcome, StopRequest
from runner.measuring.plan import Keyed, Plan
from runner.measuring.stopping import Narrowness, assess, planned_looks, samples_of


def measure_and_extend(filler: Filler, plan: Callable[[], Plan], made: Plan, stop: StopRequest) -> Outcome:
    """Do what `made` lists and, where a precision is declared, what `plan` finds missing after that."""
    experiment = filler.setups.session.catalog.experiment
    if experiment.precision is None:
        return filler.measure(made, stop)
    deadline = None if experiment.max_time_s is None else time.monotonic() + experiment.max_time_s
    return _Extension(filler, plan, deadline).run(made, stop)


@dataclass(frozen=True)
class _Extension:
    """A fill that goes on until `deadline`; `plan` says what is missing now."""

    filler: Filler
    plan: Callable[[], Plan]
    deadline: float | None

    def run(self, made: Plan, stop: StopRequest) -> Outcome:
        """Measure look after look; a pass that measures nothing is the last, so that what always fails ends too."""
        outcome = self.filler.measure(made, stop, late=self._late)
        known = -1
        while known < outcome.measured + outcome.accuracies and not (stop.requested or self._late()):
            known = outcome.measured + outcome.accuracies
            missing = self.plan()
            if not (missing.rounds or missing.accuracies):
                break
            # What failed before is tried again now.
            outcome.failures.clear()
            outcome.invalid.clear()
            self.filler.measure(missing, stop, late=self._late)
        outcome.precision += [self._report(keyed, stop) for keyed in self._applicable()]
        return outcome

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _applicable(self) -> list[Keyed]:
        plan = self.plan()
        return [keyed for keyed in plan.declared if keyed.artifact_key not in plan.inapplicable]

    def _report(self, keyed: Keyed, stop: StopRequest) -> str:
        strategy = keyed.strategy
        name = f"{strategy.subject}/{strategy.operator}@{strategy.placement.name}"
        found = narrowness(self.filler, keyed)
        if found is None:
            return f"{name}: nothing measured"
        if found.reached:
            return f"{name}: {found}: narrow enough"
        limit = "all looks are used" if found.next is None else "stopped" if stop.requested else None
        limit = limit or ("max_time is over" if self._late() else "the last look failed or is INVALID")
        return f"{name}: {found}: {100 * found.wanted:g} % wanted, but {limit}"


def narrowness(filler: Filler, keyed: Keyed) -> Narrowness | None:
    """How narrow a strategy is now; None where nothing is measured."""
    session = filler.setups.session
    with filler.database.session() as reading:
        rows = latencies(reading, keyed.latency_key)
    if not rows:
        return None
    pool = len(session.subjects[keyed.strategy.subject].dataset.input_ids())
    experiment = session.catalog.experiment
    looks = planned_looks(experiment, pool)
    return assess(samples_of(rows), experiment, looks=looks, done={row[0] for row in rows})
