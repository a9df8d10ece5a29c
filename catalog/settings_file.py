"""Settings from a file: what should not stand on a command line, such as a database's password.

The file has lines such as `TIERWISE_DATABASE=postgresql://…`; TIERWISE_SETTINGS names it. The environment comes before
it, and options before both.
"""

import logging
import os
import stat
from pathlib import Path

from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from catalog.errors import SettingsFileError
from catalog.foreign import read_regular

logger = logging.getLogger(__name__)
VARIABLE = "TIERWISE_SETTINGS"


class FileSettings(BaseSettings):
    """Settings of a command: `TIERWISE_<NAME>` in the environment, or in the file that TIERWISE_SETTINGS names."""

    # An error repeats no value: it may be a key.
    model_config = SettingsConfigDict(env_prefix="TIERWISE_", frozen=True, extra="ignore", hide_input_in_errors=True)

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


def settings_file() -> Path | None:
    """Return the file that TIERWISE_SETTINGS names; None where it names none.

    Raises
    ------
    SettingsFileError
        When the file cannot be read as text.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    path = Path(named).expanduser()
    try:
        read_regular(path).decode("utf-8")
        mode = stat.S_IMODE(path.stat().st_mode)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        # Not chained: a UnicodeDecodeError carries the file's bytes, and with them a password.
        raise SettingsFileError(str(path), str(reason)) from None
    if os.name == "posix" and mode & 0o077:
        advice = "which may hold a password; keep it to yourself: chmod 600"
        logger.warning("others may read the settings file %s (mode %04o), %s", path, mode, advice)
    return path
