"""From the counters of a measurement to the figures its evidence keeps: per tier, per link, of the clocks."""

from dataclasses import dataclass

from catalog.evidence.records import LinkProbeRecord, TierRunRecord
from runner.launchers import TierLimits
from runner.measuring.experiment import Measured, Setup
from runner.probing import ProbedLink
from tierserver.messages import StatsResult


def tier_run(setup: Setup, measured: Measured, tier: TierLimits) -> TierRunRecord:
    """One tier's limits and what it used: as a whole, and between the end of the warm-up and the last sample."""
    loaded, warmed, ended = (moment.tiers[tier.name] for moment in (measured.loaded, measured.warmed, measured.ended))
    window = _Window(warmed, ended)
    return TierRunRecord(
        tier=tier.name,
        cpus=tier.cpus,
        memory_bytes=tier.memory_bytes,
        threads=tier.threads,
        provider=setup.providers[tier.name][0] if tier.name in setup.providers else "none",
        cold_start_s=measured.cold_start_s.get(tier.name),
        first_inference_s=_first_inference_s(measured, tier.name),
        peak_rss_bytes=ended.peak_rss_bytes,
        cpu_seconds=ended.cpu_seconds,
        periods=ended.cgroup.nr_periods if ended.cgroup else None,
        throttled_periods=ended.cgroup.nr_throttled if ended.cgroup else None,
        throttled_s=ended.cgroup.throttled_s if ended.cgroup else None,
        waited_s=ended.waited_s,
        major_faults=ended.major_faults,
        memory_limit_events=ended.memory.limit_events if ended.memory else None,
        oom_kills=ended.memory.oom_kills if ended.memory else None,
        memory_peak_bytes=ended.memory.peak_bytes if ended.memory else None,
        restarted=len({loaded.instance, warmed.instance, ended.instance}) > 1,
        window_cpu_seconds=ended.cpu_seconds - warmed.cpu_seconds,
        window_periods=window.periods,
        window_throttled_periods=window.throttled_periods,
        window_throttled_s=window.throttled_s,
        window_waited_s=_difference(warmed.waited_s, ended.waited_s),
        window_major_faults=ended.major_faults - warmed.major_faults,
        window_memory_limit_events=window.memory_limit_events,
    )


@dataclass(frozen=True)
class _Window:
    """What the controllers counted between two moments; None where there is no such controller."""

    before: StatsResult
    after: StatsResult

    @property
    def periods(self) -> int | None:
        if self.before.cgroup is None or self.after.cgroup is None:
            return None
        return self.after.cgroup.nr_periods - self.before.cgroup.nr_periods

    @property
    def throttled_periods(self) -> int | None:
        if self.before.cgroup is None or self.after.cgroup is None:
            return None
        return self.after.cgroup.nr_throttled - self.before.cgroup.nr_throttled

    @property
    def throttled_s(self) -> float | None:
        if self.before.cgroup is None or self.after.cgroup is None:
            return None
        return self.after.cgroup.throttled_s - self.before.cgroup.throttled_s

    @property
    def memory_limit_events(self) -> int | None:
        if self.before.memory is None or self.after.memory is None:
            return None
        return self.after.memory.limit_events - self.before.memory.limit_events


def link_probes(probed: ProbedLink) -> tuple[LinkProbeRecord, LinkProbeRecord]:
    """Both directions of one look at a link."""
    link, probe, command = probed.link, probed.probe, probed.command
    up = LinkProbeRecord(
        link=link.name,
        direction="up",
        declared_bit_per_s=link.up_bit_per_s,
        measured_bit_per_s=probe.up.rate_bit_per_s,
        rtt_s=probe.rtt_s,
        moment=probed.moment,
        tolerance=probed.tolerance,
        small_bytes=command.small_bytes,
        large_bytes=command.large_bytes,
        small_s=probe.up.small_s,
        large_s=probe.up.large_s,
        discarded_bit_per_s=[rate for rate, _ in probed.discarded],
    )
    down = LinkProbeRecord(
        link=link.name,
        direction="down",
        declared_bit_per_s=link.down_bit_per_s,
        measured_bit_per_s=probe.down.rate_bit_per_s,
        rtt_s=probe.rtt_s,
        moment=probed.moment,
        tolerance=probed.tolerance,
        small_bytes=command.down_small_bytes,
        large_bytes=command.down_large_bytes,
        small_s=probe.down.small_s,
        large_s=probe.down.large_s,
        discarded_bit_per_s=[rate for _, rate in probed.discarded],
    )
    return up, down


def clock_jump_s(measured: Measured) -> float:
    """The largest change of any tier's wall clock against its monotonic one; slewing is small, a step is not."""
    jumps = [
        (ended.wall_s - loaded.wall_s) - (ended.monotonic_s - loaded.monotonic_s)
        for loaded, ended in zip(measured.loaded.tiers.values(), measured.ended.tiers.values(), strict=True)
        if loaded.instance == ended.instance
    ]
    return max(jumps, key=abs, default=0.0)


def _first_inference_s(measured: Measured, tier: str) -> float | None:
    """A tier's own time for the very first inference; None where it only relays."""
    for sample in (*measured.warmup, *measured.samples)[:1]:
        for part in sample.parts:
            if part.tier == tier and part.compute_s > 0:
                return part.preprocess_s + part.compute_s + part.postprocess_s
    return None


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before
