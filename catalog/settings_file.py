"""Settings from a file: what should not stand on a command line, such as a database's password.

The file has lines such as `TIERWISE_DATABASE=postgresql://…`; TIERWISE_SETTINGS names it. The environment comes before
it, and options before both.
"""

import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from catalog.errors import SettingsFileError
from catalog.foreign import read_regular

logger = logging.getLogger(__name__)
VARIABLE = "TIERWISE_SETTINGS"
PREFIX = "TIERWISE_"


def named_settings() -> dict[str, str]:
    """Return the settings that the environment or the file names, by their names in lower case and without prefix.

    The environment comes before the file.

    Raises
    ------
    SettingsFileError
        When the file cannot be read as text.
    """
    file = settings_file()
    return ({} if file is None else _with_prefix(_in_file(file))) | _with_prefix(os.environ)


def _in_file(file: Path) -> Mapping[str, str | None]:
    # Imported here: few commands have such a file.
    from dotenv import dotenv_values

    return dotenv_values(file)


def _with_prefix(values: Mapping[str, str | None]) -> dict[str, str]:
    return {
        name.upper().removeprefix(PREFIX).lower(): value
        for name, value in values.items()
        if name.upper().startswith(PREFIX) and value is not None
    }


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
