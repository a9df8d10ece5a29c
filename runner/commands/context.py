"""What a command needs before it plans or measures: the declared catalog, and the run that it describes on a host."""

from pathlib import Path

from catalog.declaration import Catalog, load_catalog
from runner.launchers import Selection
from runner.measuring.keyed_strategy import RunContext
from runner.measuring.tiers import Scale, check_delays, check_host
from runner.settings import RunnerSettings


def declared_catalog(path: Path | None) -> tuple[Catalog, Path]:
    """Return the catalog and the directory from which its relative paths start."""
    chosen = path or RunnerSettings().catalog
    return load_catalog(chosen), chosen.resolve().parent


def run_context(catalog: Catalog, base: Path, selection: Selection, scale: str) -> RunContext:
    """Return the run of a catalog with a launcher; raises HostTooSmallError where the tiers do not fit its host."""
    parsed = Scale.parse(scale)
    host = selection.launcher.host()
    check_host(catalog, host, parsed)
    check_delays(catalog, selection.launcher)
    return RunContext(catalog, base, selection.launcher.name, parsed, RunnerSettings().workdir, host=host)
