"""The runner's settings: from options, the environment (prefix `TIERWISE_`) or a settings file."""

from pathlib import Path

from pydantic import Field

from catalog.settings_file import FileSettings


class RunnerSettings(FileSettings):
    """Defaults of the command line; every one can be set as `TIERWISE_<NAME>` or by an option."""

    catalog: Path = Path("strategies.yaml")
    # A URL may hold a password, and settings are printed in logs and tracebacks.
    database: str = Field(default="tierwise.db", repr=False)
    workdir: Path = Path(".tierwise")
    base_image: str | None = None
