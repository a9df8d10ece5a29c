"""The setup of a measurement: artifact, tiers, links, inputs and items of a strategy, and the environment of all."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlmodel import Session as SqlSession

from catalog.evidence.records import EnvironmentRecord, StrategyRecord
from catalog.evidence.writing import retire_environments, upsert_environment
from catalog.evidence.writing import sync_strategies as store_strategies
from catalog.keys import content_key
from catalog.units import counted
from runner.artifacts.store import ArtifactStore, CachedArtifact
from runner.errors import OperatorError, RunnerError
from runner.host import versions
from runner.launchers.base import LinkLimits
from runner.launchers.select import Selection
from runner.measuring import records
from runner.measuring.experiment import ItemsFile, Protocol, Setup
from runner.measuring.keyed_strategy import KeyedStrategy, RunContext
from runner.measuring.plan import Plan
from runner.measuring.tiers import onnxruntime_provider, resolve_provider, route_links, route_tiers, tier_limits
from runner.subjects.dataset import OnItem, Subject, WatchedDataset, unwatched
from runner.workdir import scratch, seal, settle, unseal
from tierserver.messages import Postprocess, Preprocess

# Parts that are judged together need a link between them, whose speed does not matter for an accuracy.
_UNHURRIED_BIT_PER_S = 10_000_000_000


@dataclass(frozen=True)
class _KeptFile:
    """A cached file and the SHA-256 of its bytes when it was made."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Setups:
    """The setups of a run's strategies; files are written into `workdir` once per content."""

    context: RunContext
    artifacts: ArtifactStore
    workdir: Path

    def latency(self, keyed: KeyedStrategy) -> Setup:
        """Resolve a strategy with the tiers and links along its route."""
        strategy, catalog = keyed.strategy, self.context.catalog
        return Setup(
            subject=strategy.subject,
            artifact=self._artifact(keyed, keyed.artifact_key, strategy.placement.tiers),
            providers=self._providers(strategy.placement.tiers),
            placement=strategy.placement.tiers,
            tiers=route_tiers(catalog, strategy, self.context.scale, self.context.host_of),
            links=route_links(catalog, strategy, self.context.scale, real=self.context.real_links),
            tolerances={name: catalog.links[name].tolerance for name in strategy.links},
            preprocess=Preprocess.from_json(self._subject(keyed).preprocess),
            postprocess=Postprocess.from_json(self._subject(keyed).postprocess),
            codec=catalog.experiment.codec,
        )

    def accuracy(self, keyed: KeyedStrategy) -> Setup:
        """Resolve the judged artifact in one tier, or its parts in the placement's tiers."""
        catalog, judged = self.context.catalog, keyed.judged
        placement = judged.tiers if judged.composed else (self._widest(judged.tiers[0]),)
        return Setup(
            subject=keyed.strategy.subject,
            artifact=self._artifact(keyed, judged.artifact_key, placement),
            providers=self._providers(placement),
            placement=placement,
            tiers=tuple(
                tier_limits(catalog, name, self.context.scale, self.context.host_of(name)) for name in placement
            ),
            links=tuple(_unhurried(first, second) for first, second in itertools.pairwise(placement)),
            # Links are not probed for an accuracy, which does not depend on them.
            tolerances={},
            preprocess=Preprocess.from_json(self._subject(keyed).preprocess),
            postprocess=Postprocess.from_json(self._subject(keyed).postprocess),
        )

    def protocol(self, keyed: KeyedStrategy, round_number: int) -> Protocol:
        """Return the inputs of a round as files, written once per choice of inputs."""
        subject, experiment = self._subject(keyed), self.context.catalog.experiment
        ids = keyed.input_ids(round_number)
        # The ids are part of it, because rounds may send other inputs of the same dataset.
        key = content_key({"inputs": subject.dataset.inputs_fingerprint(), "ids": list(ids)})
        inputs = self._kept("inputs", key, ids, partial(subject.dataset.write_inputs, ids=ids))
        return Protocol(
            {name: file.path for name, file in inputs.items()},
            key,
            ids,
            experiment.repetitions,
            experiment.warmup,
            {name: file.sha256 for name, file in inputs.items()},
        )

    def items(self, keyed: KeyedStrategy, on_item: OnItem = unwatched) -> ItemsFile:
        """Return the validation items as one file, written once; where that may take long, each is reported."""
        dataset = self._subject(keyed).dataset
        key = dataset.fingerprint()

        def write(place: Path) -> None:
            if isinstance(dataset, WatchedDataset):
                dataset.write_watched_items(place / "items.npz", on_item)
            else:
                dataset.write_items(place / "items.npz")

        (file,) = self._kept("items", key, ["items.npz"], write).values()
        return ItemsFile(file.path, key, file.sha256)

    def _kept(
        self, kind: str, key: str, names: Sequence[str], write: Callable[[Path], object]
    ) -> Mapping[str, "_KeptFile"]:
        """Return the files of this content, which are written only if they are absent or were changed."""
        directory = self.workdir / kind / key
        sealed = unseal(directory, key, names=names)
        if sealed is None:
            with scratch(directory.parent) as staging:
                # Under its final name inside the staging directory, so that one rename puts it in place whole.
                (staging / key).mkdir()
                write(staging / key)
                seal(staging / key, key, names, {})
                settle(staging / key, directory)
            # Another runner may have put the same content there first; then that one is used.
            sealed = unseal(directory, key, names=names)
        if sealed is None:
            raise RunnerError(
                f"{kind} {key[:12]}… were removed from {directory.parent} while they were made; try again"
            )
        return {file.file: _KeptFile(directory / file.file, file.sha256) for file in sealed.files}

    def _widest(self, tier: str) -> str:
        """Return the tier with the most CPUs among those that compute alike, where an accuracy takes least time."""
        declared = self.context.catalog.tiers
        alike = [name for name in declared if self._arithmetic(name) == self._arithmetic(tier)]
        # Outputs depend on the provider and the machine, not on the quota of CPUs: the widest tier is only sooner.
        return max(alike, key=lambda name: declared[name].cpus)

    def _arithmetic(self, tier: str) -> tuple[str, str, str]:
        """Return what the outputs of a model on a tier depend on."""
        host = self.context.host_of(tier)
        return self._provider(tier), host.cpu_model, host.onnxruntime

    def _provider(self, tier: str) -> str:
        return resolve_provider(self.context.catalog.tiers[tier].provider, self.context.host_of(tier))

    def _subject(self, keyed: KeyedStrategy) -> Subject:
        return self.context.subjects[keyed.strategy.subject]

    def _artifact(self, keyed: KeyedStrategy, key: str, tiers: Sequence[str]) -> CachedArtifact:
        """Find the artifact; raise OperatorError where it has not one part for each tier that runs it."""
        artifact = self.artifacts.find(key)
        if artifact is None or artifact.inapplicable:
            raise RunnerError(f"no artifact for {keyed.strategy.subject}/{keyed.strategy.operator}")
        if len(artifact.parts) != len(tiers):
            raise OperatorError(
                f"{keyed.strategy.operator} makes {counted(len(artifact.parts), 'part')} and {'-'.join(tiers)} has "
                f"{counted(len(tiers), 'tier')}; each part runs on its own tier: declare a placement of as many tiers"
            )
        return artifact

    def _providers(self, tiers: Sequence[str]) -> Mapping[str, Sequence[str]]:
        return {name: (onnxruntime_provider(self._provider(name)),) for name in tiers}


def _unhurried(first: str, second: str) -> LinkLimits:
    return LinkLimits(f"{first}-{second}", first, second, _UNHURRIED_BIT_PER_S, _UNHURRIED_BIT_PER_S)


def store_environment(writing: SqlSession, context: RunContext, selection: Selection) -> int:
    """Store the environment unless it is stored already; return its id."""
    engine, host = selection.launcher.describe(), context.host
    return upsert_environment(
        writing,
        EnvironmentRecord(
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
            }
            | _hosts(context, selection)
            | _setting(context),
        ),
    )


def _setting(context: RunContext) -> dict[str, Any]:
    """Return what the environment's details have of a setting; nothing where the catalog lists no values."""
    setting = context.catalog.setting
    return {} if setting is None else {"setting": dict(setting.values), "plain_key": context.plain_environment_key}


def retire_settings(writing: SqlSession, contexts: Sequence[RunContext]) -> None:
    """Undeclare the strategies of settings of an environment that the catalog lists no more."""
    retire_environments(
        writing, plain_key=contexts[0].plain_environment_key, declared={own.environment_key for own in contexts}
    )


def _hosts(context: RunContext, selection: Selection) -> dict[str, object]:
    """Describe the machine under each tier, where tiers have machines of their own; replicas each have their own."""
    hosts = {name: host.to_json() for name, host in context.hosts.items()}
    if not hosts:
        return {}
    return {"hosts": hosts} if selection.replicas is None else {"testbeds": {selection.testbed: hosts}}


def sync_strategies(writing: SqlSession, plan: Plan, environment_id: int, context: RunContext) -> None:
    """Record in the evidence which strategies are declared now, with their keys."""
    rows = []
    for keyed in plan.declared:
        strategy = keyed.strategy
        reason = plan.inapplicable.get(keyed.artifact_key)
        rows.append(
            StrategyRecord(
                subject=strategy.subject,
                operator=strategy.operator,
                placement=strategy.placement.name,
                passes=records.passes(keyed.passes),
                tiers=list(strategy.placement.tiers),
                task=context.subjects[strategy.subject].task,
                rounds=context.catalog.experiment.rounds,
                artifact_key=keyed.artifact_key,
                latency_key=keyed.latency_key,
                accuracy_key=keyed.accuracy_key,
                status="inapplicable" if reason else "applicable",
                reason=reason,
            )
        )
    # A subject whose data cannot be read now is still declared, and keeps its evidence.
    store_strategies(writing, environment_id, rows, untouched=plan.unready)
