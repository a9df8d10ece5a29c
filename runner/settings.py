"""Where the runner keeps things; the only place that reads the environment (prefix `TIERWISE_`)."""

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class RunnerSettings(BaseSettings):
    """Defaults of the command line; every one can be set as `TIERWISE_<NAME>` or by an option."""

    model_config = SettingsConfigDict(env_prefix="TIERWISE_", frozen=True, extra="ignore")

    catalog: Path = Path("strategies.yaml")
    database: str = "tierwise.db"
    workdir: Path = Path(".tierwise")
    base_image: str | None = None
