"""The environment of a measurement: host, engine, versions, scale. Evidence of two environments is never mixed."""

from dataclasses import asdict
from importlib.metadata import version

from sqlmodel import Session as SqlSession

from catalog import evidence as store
from runner.host import versions
from runner.launchers import Selection
from runner.measuring import records
from runner.measuring.keyed_strategy import RunContext
from runner.measuring.plan import Plan


def store_environment(writing: SqlSession, context: RunContext, selection: Selection) -> int:
    """Store the environment unless it is stored already; return its id."""
    engine, host = selection.launcher.describe(), context.host
    return store.upsert_environment(
        writing,
        store.EnvironmentRecord(
            key=context.environment_key,
            launcher=context.launcher,
            scale=str(context.scale),
            host=host.fingerprint,
            cpu_model=host.cpu_model,
            cpu_count=host.cpu_count,
            memory_bytes=host.memory_bytes,
            kernel=host.kernel,
            engine=f"{engine.name} {engine.version}",
            onnxruntime=host.onnxruntime,
            tierwise=version("tierwise"),
            details={
                "host": host.to_json(),
                "engine": {**asdict(engine), "details": dict(engine.details)},
                "launcher_reason": selection.reason,
                "versions": versions(),
            },
        ),
    )


def sync_strategies(writing: SqlSession, plan: Plan, environment_id: int, context: RunContext) -> None:
    """Record in the evidence which strategies are declared now, with their keys."""
    rows = []
    for keyed in plan.declared:
        strategy = keyed.strategy
        reason = plan.inapplicable.get(keyed.artifact_key)
        rows.append(
            store.StrategyRecord(
                subject=strategy.subject,
                operator=strategy.operator,
                placement=strategy.placement.name,
                passes=records.passes(keyed.passes),
                tiers=strategy.placement.tiers,
                task=context.subjects[strategy.subject].task,
                rounds=context.catalog.experiment.rounds,
                artifact_key=keyed.artifact_key,
                latency_key=keyed.latency_key,
                accuracy_key=keyed.accuracy_key,
                status="inapplicable" if reason else "applicable",
                reason=reason,
            )
        )
    store.sync_strategies(writing, environment_id, rows)
