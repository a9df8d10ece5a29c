"""The extension of a fill: where a precision is declared, rounds are added until every interval is narrow enough."""

import time
from dataclasses import dataclass

from catalog.evidence import sound_database
from catalog.evidence.reading import latencies
from runner.measuring.fill import Filler, FillOutcome, StopRequest
from runner.measuring.keyed_strategy import KeyedStrategy
from runner.measuring.plan import Plan, remaining
from runner.measuring.stopping import Narrowness, assess, planned_looks, samples_of


def measure_and_extend(filler: Filler, plan: Plan, stop: StopRequest) -> FillOutcome:
    """Measure what the plan lists and, where a precision is declared, what is missing after that."""
    experiment = filler.setups.context.catalog.experiment
    if experiment.precision is None:
        return filler.measure(plan, stop)
    deadline = None if experiment.max_time_s is None else time.monotonic() + experiment.max_time_s
    return _Extension(filler, deadline).run(plan, stop)


@dataclass(frozen=True)
class _Extension:
    """A fill that adds rounds until every interval is narrow enough or the `deadline` has passed."""

    filler: Filler
    deadline: float | None

    def run(self, plan: Plan, stop: StopRequest) -> FillOutcome:
        """Measure look after look; a pass that measures nothing is the last, so that constant failure ends too."""
        outcome = self.filler.measure(plan, stop, late=self._late)
        before = -1
        while before < outcome.measured + outcome.accuracies and not (stop.requested or self._late()):
            before = outcome.measured + outcome.accuracies
            plan = remaining(plan, self.filler.setups.context, sound_database(self.filler.database))
            if not (plan.rounds or plan.accuracies):
                break
            # The next pass tries again what failed.
            outcome.failures.clear()
            outcome.invalid.clear()
            self.filler.measure(plan, stop, late=self._late)
        applicable = [keyed for keyed in plan.declared if keyed.artifact_key not in plan.inapplicable]
        outcome.precision += [self._report(keyed, stop) for keyed in applicable]
        return outcome

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _report(self, keyed: KeyedStrategy, stop: StopRequest) -> str:
        """Return one line that says how narrow an interval is and, if it is too wide, why no round follows."""
        name = keyed.strategy.name
        narrowness = stored_narrowness(self.filler, keyed)
        if narrowness is None:
            return f"{name}: nothing measured"
        if narrowness.reached:
            return f"{name}: {narrowness}: narrow enough"
        limit = "all looks are used" if narrowness.next is None else "stopped" if stop.requested else None
        limit = limit or ("max_time is over" if self._late() else "the last look failed or is INVALID")
        return f"{name}: {narrowness}: {100 * narrowness.target:g} % wanted, but {limit}"


def stored_narrowness(filler: Filler, keyed: KeyedStrategy) -> Narrowness | None:
    """Return how narrow the interval of the stored samples is; None where there are none."""
    context = filler.setups.context
    with filler.database.session() as reading:
        rows = latencies(reading, keyed.latency_key)
    if not rows:
        return None
    pool = len(context.subjects[keyed.strategy.subject].dataset.input_ids())
    experiment = context.catalog.experiment
    looks = planned_looks(experiment, pool)
    return assess(samples_of(rows), experiment, looks=looks, done={row[0] for row in rows})
