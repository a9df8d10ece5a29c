"""From a keyed strategy to everything its measurement needs, resolved: artifact, tiers, links, inputs, items."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from catalog.keys import content_key
from runner.artifacts import Artifact, ArtifactStore
from runner.errors import OperatorError, RunnerError
from runner.experiment import Protocol, Setup
from runner.launchers import LinkLimits
from runner.plan import Keyed, Session
from runner.subjects import Subject
from runner.tiers import onnxruntime_provider, resolve_provider, route_links, route_tiers, tier_limits
from runner.workdir import scratch, settle
from tierserver.messages import Postprocess, Preprocess

# Parts that are judged together need a way between them, and its speed is none of an accuracy's business.
_UNHURRIED_BIT_PER_S = 10_000_000_000


@dataclass(frozen=True)
class Setups:
    """Resolves what a session declares; files are written into `workdir` once per content."""

    session: Session
    artifacts: ArtifactStore
    workdir: Path

    def latency(self, keyed: Keyed) -> Setup:
        """A strategy's tiers and links along its route."""
        strategy, catalog = keyed.strategy, self.session.catalog
        return Setup(
            subject=strategy.subject,
            artifact=self._artifact(keyed, keyed.artifact_key, strategy.placement.tiers),
            providers=self._providers(strategy.placement.tiers),
            placement=strategy.placement.tiers,
            tiers=route_tiers(catalog, strategy, self.session.scale, self.session.host),
            links=route_links(catalog, strategy, self.session.scale),
            tolerances={name: catalog.links[name].tolerance for name in strategy.links},
            preprocess=Preprocess.from_json(self._subject(keyed).preprocess),
            postprocess=Postprocess.from_json(self._subject(keyed).postprocess),
            codec=catalog.experiment.codec,
        )

    def accuracy(self, keyed: Keyed) -> Setup:
        """The judged artifact in one tier, or its parts in the placement's tiers side by side."""
        catalog, judged = self.session.catalog, keyed.judged
        placement = judged.tiers if judged.composed else (self._widest(judged.tiers[0]),)
        return Setup(
            subject=keyed.strategy.subject,
            artifact=self._artifact(keyed, judged.artifact_key, placement),
            providers=self._providers(placement),
            placement=placement,
            tiers=tuple(tier_limits(catalog, name, self.session.scale, self.session.host) for name in placement),
            links=tuple(_unhurried(first, second) for first, second in itertools.pairwise(placement)),
            tolerances={},
            preprocess=Preprocess.from_json(self._subject(keyed).preprocess),
            postprocess=Postprocess.from_json(self._subject(keyed).postprocess),
        )

    def protocol(self, keyed: Keyed) -> Protocol:
        """The inputs as files, written once per selection."""
        subject, experiment = self._subject(keyed), self.session.catalog.experiment
        key = content_key({"inputs": subject.dataset.inputs_fingerprint(), "ids": list(keyed.input_ids)})
        directory = self.workdir / "inputs" / key
        if not directory.exists():
            with scratch(directory.parent) as staging:
                (staging / key).mkdir()
                subject.dataset.write_inputs(staging / key, keyed.input_ids)
                settle(staging / key, directory)
        files = {name: directory / name for name in keyed.input_ids}
        return Protocol(files, key, keyed.input_ids, experiment.repetitions, experiment.warmup)

    def items(self, keyed: Keyed) -> tuple[Path, str]:
        """The validation items as one file, written once, and the key of their content."""
        dataset = self._subject(keyed).dataset
        key = dataset.fingerprint()
        path = self.workdir / "items" / key / "items.npz"
        if not path.exists():
            with scratch(path.parent.parent) as staging:
                dataset.write_items(staging / path.name)
                settle(staging / path.name, path)
        return path, key

    def _widest(self, tier: str) -> str:
        """Of the tiers with the same provider, the one with the most CPUs: accuracy is the same, and sooner there."""
        declared = self.session.catalog.tiers
        host = self.session.host
        provider = resolve_provider(declared[tier].provider, host)
        alike = [name for name in declared if resolve_provider(declared[name].provider, host) == provider]
        return max(alike, key=lambda name: declared[name].cpus)

    def _subject(self, keyed: Keyed) -> Subject:
        return self.session.subjects[keyed.strategy.subject]

    def _artifact(self, keyed: Keyed, key: str, tiers: Sequence[str]) -> Artifact:
        """Find the artifact; raises OperatorError where its parts are not as many as the tiers that run them."""
        artifact = self.artifacts.find(key)
        if artifact is None or artifact.inapplicable:
            raise RunnerError(f"no artifact for {keyed.strategy.subject}/{keyed.strategy.operator}")
        if len(artifact.parts) != len(tiers):
            raise OperatorError(
                f"{keyed.strategy.operator} makes {len(artifact.parts)} part(s) and {'-'.join(tiers)} has {len(tiers)} "
                "tier(s); each part runs on a tier of its own, so declare a placement of as many tiers"
            )
        return artifact

    def _providers(self, tiers: Sequence[str]) -> Mapping[str, Sequence[str]]:
        declared = self.session.catalog.tiers
        resolved = {name: resolve_provider(declared[name].provider, self.session.host) for name in tiers}
        return {name: (onnxruntime_provider(provider),) for name, provider in resolved.items()}


def _unhurried(first: str, second: str) -> LinkLimits:
    return LinkLimits(f"{first}-{second}", first, second, _UNHURRIED_BIT_PER_S, _UNHURRIED_BIT_PER_S)
