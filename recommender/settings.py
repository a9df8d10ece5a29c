"""The settings of the service: `TIERWISE_<NAME>` in the environment, or an option of the command."""

import ipaddress
import re

from pydantic import Field, IPvAnyNetwork, SecretStr, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from catalog.settings_file import PREFIX, settings_file
from recommender.errors import Unprotected


def is_loopback(host: str) -> bool:
    """Return whether a name or an address means this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        # A link-local address may name its zone after a %.
        address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return False
    # A socket of both IP versions reports IPv4 clients as ::ffff:a.b.c.d (RFC 4291, section 2.5.5.2).
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


# What a header carries as it is (RFC 9110, section 5.5), without the blanks that its ends lose on the way.
_KEY = re.compile("[!-~]+")
_ORIGIN = re.compile(r"https?://[^/?#@\s]+", re.ASCII)
# A day: beyond it a limit is none, and a timer may overflow.
_LONGEST_S = 86400.0
# Below it no request of an ordinary client would be served.
_SHORTEST_S = 0.01


class RecommenderSettings(BaseSettings):
    """Settings of the service: on loopback by default; elsewhere an API key is required unless `without_key` is set."""

    # An error repeats no value: it may be a key.
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    database: str = Field(
        default="tierwise.db",
        repr=False,  # a URL may hold a password, and settings are printed in logs and tracebacks
        description="SQLite file or database URL with the evidence",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on")
    port: int = Field(default=8080, ge=0, le=65535, description="TCP port to listen on; 0 picks a free one")
    # Long enough not to be guessed: a client may try any number of wrong keys.
    api_key: SecretStr | None = Field(
        default=None, min_length=16, description="Key that every request for evidence must bring"
    )
    workers: int = Field(default=1, ge=1, le=64, description="Processes that answer on the port, one or two per CPU")
    drain_s: float = Field(
        default=3.0,
        ge=0,
        le=_LONGEST_S,
        description="How long requests are still answered after SIGTERM, while /readyz says 503",
    )
    without_key: bool = Field(default=False, description="Listen beyond loopback without a key all the same")
    access_log: bool = Field(default=True, description="Print one line on stderr for each request")
    cors_origins: tuple[str, ...] = Field(
        default=(), description='Origins whose pages may ask, as JSON: ["https://dash.example.org"]; none by default'
    )
    max_body_bytes: int = Field(default=64 * 1024, ge=1024, le=2**30, description="Largest request body")
    max_request_s: float = Field(
        default=30.0, ge=_SHORTEST_S, le=_LONGEST_S, description="Longest time from a request's head to its response"
    )

    # From here on limits that hold before any key is checked (`recommender.http.connections`).
    max_head_bytes: int = Field(
        default=32 * 1024, ge=1024, le=2**30, description="Largest request head, trailers included"
    )
    max_header_lines: int = Field(default=100, ge=10, le=10**6, description="Most header lines of one request")
    max_head_s: float = Field(
        default=10.0,
        ge=_SHORTEST_S,
        le=_LONGEST_S,
        description="Longest time from a connection's start to its last header",
    )
    max_body_s: float = Field(
        default=10.0, ge=_SHORTEST_S, le=_LONGEST_S, description="Longest time from a request's head to its body's end"
    )
    # The default of uvicorn itself.
    max_idle_s: float = Field(
        default=5.0, ge=_SHORTEST_S, le=_LONGEST_S, description="How long a connection is kept between two requests"
    )
    max_write_s: float = Field(
        default=20.0, ge=_SHORTEST_S, le=_LONGEST_S, description="How long a client may take nothing of its answer"
    )
    max_connections: int = Field(default=500, ge=10, le=10**6, description="Most connections of all clients together")
    max_client_connections: int = Field(
        default=100, ge=1, le=10**6, description="Most connections of one client address"
    )
    max_client_requests: int = Field(
        default=20, ge=1, le=10**6, description="Most requests of one client at the same time"
    )
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        default=(), description='Proxies whose X-Forwarded-For names the client, as JSON: ["10.0.0.0/24"]; none'
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Look for a value in the options, then in the environment, then in the file."""
        file = settings_file()
        return init_settings, env_settings, *(() if file is None else (DotEnvSettingsSource(settings_cls, file),))

    @field_validator("api_key")
    @classmethod
    def _refuse_unsendable(cls, key: SecretStr | None) -> SecretStr | None:
        # A client sends it in a header; with any other character the service would start and refuse every client.
        if key is not None and _KEY.fullmatch(key.get_secret_value()) is None:
            raise ValueError(
                "the key has a blank, a line break or another character that a header cannot carry; allowed: at least "
                "16 visible ASCII characters, such as `openssl rand -hex 24` prints"
            )
        return key

    @field_validator("cors_origins")
    @classmethod
    def _refuse_unmatched(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        # A browser sends scheme, host and port alone: anything else would match no request.
        for origin in origins:
            if origin != "*" and _ORIGIN.fullmatch(origin) is None:
                raise ValueError(
                    f"{origin!a} is not an origin; allowed: scheme, host and, where it has one, port, such "
                    "as https://dash.example.org"
                )
        return origins

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the address."""
        return is_loopback(self.host)

    def require_protection(self) -> None:
        """Raise `Unprotected` for an address that other machines reach without a key."""
        if not self.loopback and self.api_key is None and not self.without_key:
            raise Unprotected(self.host)
