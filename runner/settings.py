"""The runner's settings: from options, the environment (prefix `TIERWISE_`) or a settings file."""

from pathlib import Path

from catalog.settings_file import FileSettings


class RunnerSettings(FileSettings):
    """Defaults of the command line; every one can be set as `TIERWISE_<NAME>` or by an option."""

    catalog: Path = Path("strategies.yaml")
    database: str = "tierwise.db"
    workdir: Path = Path(".tierwise")
    base_image: str | None = None
