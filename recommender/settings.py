"""What an operator of the service can set: `TIERWISE_<NAME>` in the environment, or an option of the command."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class RecommenderSettings(BaseSettings):
    """Loopback unless told otherwise: the service has no authentication of its own."""

    model_config = SettingsConfigDict(env_prefix="TIERWISE_", frozen=True, extra="ignore")

    database: str = Field(default="tierwise.db", description="SQLite file or database URL with the evidence")
    host: str = Field(default="127.0.0.1", description="Address to listen on")
    port: int = Field(default=8080, ge=0, le=65535, description="TCP port to listen on; 0 picks a free one")
