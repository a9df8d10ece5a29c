"""A declared strategy with the content keys of its evidence, and the run context that computes them."""

import logging
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from catalog.declaration import Catalog, Strategy
from catalog.keys import accuracy_key, artifact_key, content_key, latency_key
from runner.errors import SubjectError, describe, ends_a_run
from runner.host import Host, versions
from runner.measuring.experiment import PROTOCOL_VERSION
from runner.measuring.round_inputs import FixedInputs, RoundInputs, chosen_ids, systematic_inputs
from runner.measuring.tiers import Scale, resolve_provider, route_links, route_tiers
from runner.operators.base import Pass
from runner.operators.partition import Partition
from runner.operators.registry import make_pass, pass_versions
from runner.subjects.dataset import Subject
from runner.subjects.declared import resolve_declared

logger = logging.getLogger(__name__)

# Since each round draws inputs of its own and warms up until it is steady.
_SYSTEMATIC_PROTOCOL_VERSION = 2


@dataclass(frozen=True)
class RunContext:
    """What a run is about: the declaration, the host of the tiers, and how tiers are emulated on it.

    Tiers on machines of their own are in `hosts`; `host` is then all of these in one (`environment_host`).
    """

    catalog: Catalog
    base: Path
    launcher: str
    scale: Scale
    workdir: Path = Path(".tierwise")
    host: Host = field(kw_only=True)
    hosts: Mapping[str, Host] = field(default_factory=dict, kw_only=True)
    real_links: bool = field(default=False, kw_only=True)
    _round_inputs: dict[str, RoundInputs] = field(default_factory=dict, init=False, repr=False, compare=False)

    def host_of(self, tier: str) -> Host:
        """Return the machine under a tier."""
        return self.hosts.get(tier, self.host)

    @cached_property
    def subjects(self) -> Mapping[str, Subject]:
        """The declared subjects, without those whose model or data cannot be opened (`unopened`).

        Raises
        ------
        SubjectError
            Where none can be opened.
        """
        opened = {name: subject for name, subject in self._opened.items() if isinstance(subject, Subject)}
        if self.unopened and not opened:
            raise SubjectError("\n".join(self.unopened.values()))
        return opened

    @property
    def unopened(self) -> Mapping[str, str]:
        """Why subjects cannot be opened, by name."""
        return {name: reason for name, reason in self._opened.items() if isinstance(reason, str)}

    @cached_property
    def _opened(self) -> Mapping[str, Subject | str]:
        built, labels_apart = self.workdir / "models", self.catalog.experiment.systematic
        opened: dict[str, Subject | str] = {}
        for name, spec in self.catalog.subjects.items():
            try:
                opened[name] = resolve_declared(name, spec, base=self.base, built=built, labels_apart=labels_apart)
            except Exception as error:  # noqa: BLE001 - no fault of one subject ends the fill of the others
                opened[name] = _of_subject(name, error)
        return opened

    def round_inputs(self, name: str) -> RoundInputs:
        """Return how the inputs of a subject's rounds are chosen, the same object for all its strategies."""
        if name not in self._round_inputs:
            subject = self.subjects[name]
            self._round_inputs[name] = (
                systematic_inputs(self.catalog, name, subject.dataset)
                if self.catalog.experiment.systematic
                else FixedInputs(select_inputs(self.catalog, subject), self.catalog.experiment.select)
            )
        return self._round_inputs[name]

    @cached_property
    def environment_key(self) -> str:
        """The content key of the environment; each setting of a catalog is one of its own."""
        setting = self.catalog.setting
        # Left out where nothing is swept, so that other catalogs keep their environments.
        return self._environment_key({} if setting is None else {"setting": dict(setting.values)})

    @property
    def plain_environment_key(self) -> str:
        """The content key of the environment without a setting, which those of all its settings have in common."""
        return self._environment_key({})

    def _environment_key(self, setting: Mapping[str, Any]) -> str:
        return content_key(
            {
                "launcher": self.launcher,
                "scale": str(self.scale),
                "host": self.host.fingerprint,
                "runtime": self.host.onnxruntime,
                **setting,
            }
        )

    @property
    def settings(self) -> "tuple[RunContext, ...]":
        """The run at every setting of its catalog; the subjects, which no setting changes, are opened once."""
        contexts = []
        for catalog in self.catalog.settings:
            context = replace(self, catalog=catalog)
            # Where a cached property keeps its value: a data set may take minutes to open.
            context.__dict__["_opened"] = self._opened
            context._round_inputs.update(self._round_inputs)
            contexts.append(context)
        return tuple(contexts)

    def prepare(self) -> Mapping[str, tuple[str, ...]]:
        """Build the models that are built here and check the data; return what each unusable subject lacks.

        Raises
        ------
        SubjectError
            Where no subject can be measured.
        """
        errors = dict(self.unopened)
        for name, subject in self.subjects.items():
            try:
                subject.prepare()
            except Exception as error:  # noqa: BLE001 - one unreadable picture must not cost the hours of the others
                errors[name] = _of_subject(name, error)
        if len(errors) == len(self.catalog.subjects):
            raise SubjectError("\n".join(errors.values()))
        return {name: (message.removeprefix(f"subject {name}: "),) for name, message in errors.items()}


def _of_subject(name: str, error: Exception) -> str:
    """Describe why a subject cannot be used; raise the error again where that holds for all of them."""
    if ends_a_run(error):
        raise error
    logger.debug("a subject cannot be used", exc_info=True)
    # Errors of subjects say themselves what they are about.
    return str(error) if isinstance(error, SubjectError) else f"subject {name}: {describe(error)}"


@dataclass(frozen=True)
class JudgedArtifact:
    """The artifact that an accuracy is measured on, and the tiers whose providers run it.

    A partition whose parts are shown to be bit-identical to the uncut model inherits that model's accuracy; otherwise
    `composed` parts are judged together, each with its own tier's provider.
    """

    artifact_key: str
    passes: tuple[Pass, ...]
    tiers: tuple[str, ...]

    @property
    def composed(self) -> bool:
        return len(self.tiers) > 1


@dataclass(frozen=True)
class KeyedStrategy:
    """A declared strategy with the content keys that its evidence belongs to."""

    strategy: Strategy
    passes: tuple[Pass, ...]
    artifact_key: str
    accuracy_key: str
    judged: JudgedArtifact
    latency_key: str
    conditions: Mapping[str, object]
    inputs: RoundInputs

    def input_ids(self, round_number: int) -> tuple[str, ...]:
        """Return the inputs of a round in the order they are sent."""
        return chosen_ids(self.inputs.draw(round_number))


def key_strategy(context: RunContext, strategy: Strategy, *, unequal: Collection[str] = ()) -> KeyedStrategy:
    """Compute the three content keys of a declared strategy on the hosts of its tiers.

    `unequal` are the artifacts whose parts are not bit-identical to the model they were cut from; of all others
    equality is expected, and shown when they are built.
    """
    catalog, subject = context.catalog, context.subjects[strategy.subject]
    host = _weakest(context, strategy.placement.tiers)
    passes = tuple(make_pass(spec.name, spec.options, host=host) for spec in strategy.passes)
    artifact = artifact_key_of(subject, passes)
    provider = {name: resolve_provider(catalog.tiers[name].provider, context.host_of(name)) for name in strategy.route}
    arithmetic = {name: (provider[name], *_arithmetic(context.host_of(name))) for name in strategy.placement.tiers}
    judged = _judged(subject, passes, arithmetic, unequal=artifact in unequal)
    hosts = [context.host_of(name) for name in judged.tiers]
    providers = [provider[name] for name in judged.tiers]
    accuracy = accuracy_key(
        artifact_key=judged.artifact_key,
        dataset_fingerprint=subject.dataset.fingerprint(),
        preprocess=subject.preprocess,
        postprocess=subject.postprocess,
        # A list only for parts on several tiers: the keys of uncut models contain a plain name.
        provider=providers if judged.composed else providers[0],
        runtime=_joined(host.onnxruntime for host in hosts),
        # Kernels for another instruction set round differently.
        cpu_model=_joined(host.cpu_model for host in hosts),
    )
    inputs = context.round_inputs(strategy.subject)
    conditions = _conditions(context, strategy, provider)
    latency = latency_key(
        artifact_key=artifact,
        inputs_fingerprint=subject.dataset.inputs_fingerprint(),
        input_ids=inputs.key,
        preprocess=subject.preprocess,
        postprocess=subject.postprocess,
        **conditions,
    )
    return KeyedStrategy(strategy, passes, artifact, accuracy, judged, latency, conditions, inputs)


def artifact_key_of(subject: Subject, passes: Sequence[Pass]) -> str:
    """Return the key of what these passes make of the subject's model with this machine's tools."""
    tools = versions()
    calibrated = any(step.calibration_samples for step in passes)
    return artifact_key(
        model_sha256=subject.model_sha256(),
        passes=[{"name": step.name, "options": dict(step.options())} for step in passes],
        pass_versions=pass_versions(passes, subject.model),
        # Another dataset must not make an artifact stale that no calibration data went into.
        calibration_fingerprint=subject.dataset.calibration_fingerprint() if calibrated else None,
        # Without passes the artifact is a copy, which no library's version changes.
        tools={name: tools[name] for name in ("onnx", "onnxruntime")} if passes else {},
    )


def _weakest(context: RunContext, tiers: Sequence[str]) -> Host:
    """Return the host of a placement for which an operator has to be made: one without int8 multiplication, if any."""
    hosts = [context.host_of(name) for name in tiers]
    return next((host for host in hosts if not host.vnni), hosts[0])


def _arithmetic(host: Host) -> tuple[str, str]:
    """Return what of a machine may change the outputs of a model."""
    return host.cpu_model, host.onnxruntime


def _joined(texts: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(texts))


def _judged(
    subject: Subject, passes: tuple[Pass, ...], arithmetic: Mapping[str, tuple[str, ...]], *, unequal: bool
) -> JudgedArtifact:
    """Return what an accuracy is measured on; `arithmetic` has per tier of the placement what may change outputs."""
    tiers = tuple(arithmetic)
    cut = next((index for index, step in enumerate(passes) if step.name == Partition.name), None)
    # Two providers round differently, so that the parts together need not equal the uncut model on either.
    mixed = len(set(arithmetic.values())) > 1
    if cut is None or unequal or mixed:
        return JudgedArtifact(artifact_key_of(subject, passes), passes, tiers[-1:] if cut is None else tiers)
    return JudgedArtifact(artifact_key_of(subject, passes[:cut]), passes[:cut], tiers[-1:])


def _conditions(context: RunContext, strategy: Strategy, provider: Mapping[str, str]) -> dict[str, Any]:
    """Return what a latency depends on besides artifact and inputs; defaults that were added later leave no trace."""
    experiment = context.catalog.experiment
    links = route_links(context.catalog, strategy, context.scale, real=context.real_links)
    return {
        "placement": list(strategy.placement.tiers),
        "tiers": [
            {
                "name": tier.name,
                "cpus": tier.cpus,
                "memory_bytes": tier.memory_bytes,
                "threads": tier.threads,
                "provider": provider[tier.name],
            }
            for tier in route_tiers(context.catalog, strategy, context.scale, context.host_of)
        ],
        "links": [
            {"name": link.name, "up_bit_per_s": link.up_bit_per_s, "down_bit_per_s": link.down_bit_per_s}
            # Left out where it is the default, so that evidence from before there were delays keeps its key.
            | ({"delay_s": link.delay_s} if link.delay_s else {})
            | ({"real": True} if link.real else {})
            for link in links
        ],
        **({"codec": experiment.codec} if links and experiment.codec != "raw" else {}),
        "warmup": experiment.warmup,
        "repetitions": experiment.repetitions,
        "protocol_version": _SYSTEMATIC_PROTOCOL_VERSION if experiment.systematic else PROTOCOL_VERSION,
        "launcher": context.launcher,
        "scale": str(context.scale),
        "runtime": context.host.onnxruntime,
        "host": context.host.fingerprint,
    }


def select_inputs(catalog: Catalog, subject: Subject) -> tuple[str, ...]:
    """Select the latency inputs of the declared protocol: seeded random ones, or the largest as in the paper."""
    experiment = catalog.experiment
    if experiment.select == "largest":
        return tuple(subject.dataset.largest(experiment.inputs))
    pool = sorted(subject.dataset.input_ids())
    # The pool is sorted, so that the sample does not depend on the order in which a dataset lists its inputs.
    return tuple(random.Random(experiment.seed).sample(pool, min(experiment.inputs, len(pool))))
