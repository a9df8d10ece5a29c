"""The catalog: a checked file, expanded into strategies with their routes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from catalog.declaration.checks import Topology, YamlDocument, check_names, parse_yaml, read_yaml, validate_file
from catalog.declaration.schema import (
    EMULATED,
    LOCAL,
    AnalysisSpec,
    CatalogFile,
    ExperimentSpec,
    LinkSpec,
    PassSpec,
    SloSpec,
    SubjectSpec,
    TestbedSpec,
    TierSpec,
    in_order,
)
from catalog.declaration.sweeps import at_settings, with_variants
from catalog.units import Setting


@dataclass(frozen=True)
class Placement:
    """The ordered tiers that run the parts of an operator; `name` joins them as in the file."""

    name: str
    tiers: tuple[str, ...]


@dataclass(frozen=True)
class Strategy:
    """An operator on a placement, for a subject.

    Attributes
    ----------
    subject, operator : str
    passes : tuple of PassSpec
        The operator's passes in order; none for identity.
    placement : Placement
    route : tuple of str
        The tiers a request touches, from the client's to the last of the placement, relays included.
    links : tuple of str
        The links along the route, one fewer than its tiers.
    """

    subject: str
    operator: str
    passes: tuple[PassSpec, ...]
    placement: Placement
    route: tuple[str, ...]
    links: tuple[str, ...]

    @property
    def name(self) -> str:
        """`subject/operator@placement`."""
        return f"{self.subject}/{self.operator}@{self.placement.name}"


@dataclass(frozen=True)
class Catalog:
    """A declaration that has passed every check.

    Where links or tiers list values, it is at the first setting of them; `settings` has all. `sha256` is of the file's
    bytes.
    """

    file: Path
    sha256: str
    declared: CatalogFile
    topology: Topology
    setting: Setting | None = None

    @property
    def subjects(self) -> Mapping[str, SubjectSpec]:
        """Models under study by name, in declared order."""
        return self.declared.subjects

    @property
    def operators(self) -> Mapping[str, tuple[PassSpec, ...]]:
        """Passes by operator name, in declared order."""
        return self.declared.operators

    @property
    def tiers(self) -> Mapping[str, TierSpec]:
        """Tiers by name, the client's first."""
        return self.declared.tiers

    @property
    def links(self) -> Mapping[str, LinkSpec]:
        """Links by name."""
        return self.declared.links

    @property
    def experiment(self) -> ExperimentSpec:
        """The measuring protocol."""
        return self.declared.experiment

    @property
    def analysis(self) -> AnalysisSpec:
        """What decides between strategies."""
        return self.declared.analysis

    @property
    def slos(self) -> Mapping[str, SloSpec]:
        """Named targets."""
        return self.declared.slos

    @property
    def testbeds(self) -> Mapping[str, TestbedSpec]:
        """Where tiers may live, by name; without a declaration, emulated on this machine.

        The tiers of a testbed come in the order of the catalog's, whatever order they are written in.
        """
        return {
            EMULATED: TestbedSpec(engine=LOCAL),
            **{name: in_order(testbed, self.tiers) for name, testbed in self.declared.testbeds.items()},
        }

    @property
    def settings(self) -> "tuple[Catalog, ...]":
        """The catalog at every setting, in the order of the listed values; the catalog itself where none lists any."""
        return tuple(
            replace(self, declared=declared, setting=setting) for setting, declared in at_settings(self.declared)
        )

    @property
    def percentiles(self) -> frozenset[float]:
        """The percentiles of latencies that the targets, the analysis and a precision ask for."""
        targets = {percentile for slo in self.slos.values() for percentile in slo.latency_s}
        precise = set() if self.experiment.precision is None else {self.experiment.percentile}
        return frozenset(targets | precise | {self.analysis.percentile})

    @property
    def client(self) -> str:
        """The tier where requests start and latency is measured."""
        return self.topology.client

    def strategies(self) -> tuple[Strategy, ...]:
        """Expand the declaration.

        Returns
        -------
        tuple of Strategy
            For each subject, in declared order: each entry's operators, each on all of the entry's placements.
        """
        return tuple(
            self._strategy(subject, operator, placement)
            for subject in self.subjects
            for entry in self.declared.strategies
            for operator in entry.operators
            for placement in entry.placements
        )

    def _strategy(self, subject: str, operator: str, placement: str) -> Strategy:
        tiers = self.topology.placement(placement)
        # From the client on: a placement on the cloud alone still has a route with links.
        route = self.topology.route(tiers)
        return Strategy(
            subject, operator, self.operators[operator], Placement(placement, tiers), route, self.topology.links(route)
        )


def load_catalog(path: Path | str) -> Catalog:
    """Read and check a catalog file.

    Parameters
    ----------
    path : Path or str
        A YAML file; `runner schema` prints its schema.

    Returns
    -------
    Catalog

    Raises
    ------
    CatalogFileError
        With every problem found: file, line, column, what is allowed and the nearest spelling.

    Examples
    --------
    >>> load_catalog("strategies.yaml").client  # doctest: +SKIP
    'mobile'
    """
    return _checked(read_yaml(Path(path)))


def parse_catalog(text: str, file: Path | str = "strategies.yaml") -> Catalog:
    """Check a catalog given as text; `file` is what messages name. Raises as `load_catalog` does."""
    return _checked(parse_yaml(text, Path(file)))


def _checked(document: YamlDocument) -> Catalog:
    # The form first: names are compared only within a file whose form is right.
    declared = validate_file(document)
    # The order in the file counts: the first tier is the client's.
    topology = Topology(tuple(declared.tiers), tuple(declared.links))
    check_names(declared, topology, document)
    return Catalog(document.file, document.sha256, with_variants(declared), topology).settings[0]
