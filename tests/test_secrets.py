"""No message, log, export or page tells a secret, whatever goes wrong with the database."""

import logging
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import yaml
from psycopg import sql
from sqlalchemy.engine import make_url
from sqlalchemy.util import immutabledict

from catalog.evidence.database import open_database, shown_location
from catalog.evidence.fill_lock import fill_lock
from catalog.settings_file import VARIABLE
from recommender.__main__ import main
from recommender.app import create_app
from recommender.settings import RecommenderSettings
from runner.cli import app, run
from runner.commands.terminal import RunnerSettings
from tests.catalog_of_one import CATALOG, declare
from tests.recommender.conftest import Client

# With characters that URLs spell otherwise, so that both spellings are looked for.
SECRET = "p4ss/w:rd-%41@x"
KEY = "a-key-of-the-service-0123456789"
COMMANDS: Sequence[Sequence[str]] = (
    ["plan", "--launcher", "process"],
    ["plan", "--launcher", "process", "--json"],
    ["fill-catalog", "--launcher", "process"],
    ["status"],
    ["status", "--json"],
    ["verify"],
    ["leaderboard"],
    ["rank"],
    ["report", "--output", "-"],
    ["recommend", "table"],
    ["slo"],
    ["whatif", "table", "--link", "mobile-edge=10mbit"],
    ["bundle", "table", "--output", "deploy"],
    ["sql", "SELECT 1"],
    ["sql", "SELECT nonsense"],
    ["forget", "absent.json"],
    ["export"],
    ["export", "--format", "csv"],
)
ROUTES = (
    "/", "/docs", "/openapi.json", "/healthz", "/readyz", "/metrics", "/subjects", "/strategies", "/coverage", "/slos",
    "/strategies/table:identity:edge", "/evidence/nonsense", "/leaderboard?subject=table", "/links?subject=table",
)  # fmt: skip


def secrets_in(text: str) -> list[str]:
    return [secret for secret in (SECRET, quote(SECRET, safe=""), quote(SECRET), KEY) if secret in text]


@pytest.fixture
def role(postgres: Any) -> Iterator[str]:
    """Make a role whose password is the secret."""
    name = "secretive"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}").format(sql.Identifier(name), SECRET))
        yield name
        connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


@pytest.fixture
def broken(postgres: Any, role: str, new_database: Callable[[str], str]) -> Iterator[Callable[[str], str]]:
    """Return URLs with the secret, by what is wrong with them."""
    fresh = f"fresh_{role}"
    postgres.create(fresh)

    def url(kind: str) -> str:
        good = make_url(new_database("evidence.db")).set(username=role, password=SECRET)
        changes: dict[str, dict[str, Any]] = {
            "nothing": {},
            "wrong password": {"username": "tester"},
            "no such database": {"database": "absent"},
            "not migrated": {"database": fresh},
            "unreachable": {"port": 1},
            "no such host": {"host": "absent.invalid"},
            "unknown option": {"query": immutabledict(nonsense="x")},
            "secret among the options": {"password": None, "query": immutabledict(password=SECRET)},
            "wrong secret among the options": {"port": 1, "password": None, "query": immutabledict(sslpassword=SECRET)},
        }
        if kind == "no number as its port":
            return f"postgresql://{role}:{quote(SECRET, safe='')}@host:port/name"
        return good._replace(**changes[kind]).render_as_string(hide_password=False)

    yield url
    postgres.drop(fresh)


KINDS = (
    "nothing", "wrong password", "no such database", "not migrated", "unreachable", "no such host", "unknown option",
    "secret among the options", "wrong secret among the options", "no number as its port",
)  # fmt: skip
# Measuring once is enough; where nothing can be stored it does not come to that.
_FILLED = {"nothing", "wrong password", "unreachable", "no number as its port"}


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
@pytest.mark.parametrize("kind", KINDS)
def test_no_command_and_no_route_tells_a_secret(
    kind: str,
    broken: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    declare(tmp_path)
    # One round over a link: what is measured plays no part.
    short = {"inputs": 2, "rounds": 1, "warmup": 0}
    strategies = [{"operators": ["identity"], "placements": ["edge"]}]
    catalog = CATALOG | {"strategies": strategies, "experiment": short}
    (tmp_path / "strategies.yaml").write_text(yaml.safe_dump(catalog, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    url = broken(kind)
    monkeypatch.setenv("TIERWISE_DATABASE", url)
    monkeypatch.setenv("TIERWISE_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    said = []
    for command in COMMANDS:
        if command[0] == "fill-catalog" and kind not in _FILLED:
            continue
        assert run(lambda arguments=command: app([*arguments])) in (0, 1, 2), command
        out, err = capfd.readouterr()
        said.append(f"{command}: {out}{err}")
    service = create_app(RecommenderSettings())
    client = Client(service)
    for route in ROUTES:
        for headers in ({}, {"x-api-key": KEY}):
            response = client.get(route, headers=headers)
            assert response.status_code != 500, (route, response.text)
            said.append(f"{route}: {response.text}{response.headers}")
    service.state.snapshots.close()
    said += [record.getMessage() + (record.exc_text or "") for record in caplog.records]
    said += [path.read_text("utf-8", "replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert [text for text in said if secrets_in(text)] == []
    assert not any("Traceback" in text for text in said)


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_who_is_refused_by_the_lock_is_not_told_the_password(broken: Callable[[str], str]) -> None:
    url = broken("nothing")
    with fill_lock(url), pytest.raises(Exception, match=r"postgresql:.*is filling it") as refused:
        fill_lock(url).__enter__()
    assert not secrets_in(str(refused.value)) and "***" in str(refused.value)


@pytest.mark.postgres
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_the_password_comes_from_a_file_and_not_from_the_command_line(
    broken: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    url = make_url(broken("nothing"))
    passwords = tmp_path / "pgpass"
    escaped = SECRET.replace("\\", "\\\\").replace(":", "\\:")
    passwords.write_text(f"{url.host}:{url.port}:{url.database}:{url.username}:{escaped}\n")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    open_database(url._replace(password=None).render_as_string()).close()
    monkeypatch.delenv("PGPASSFILE")
    monkeypatch.setenv(VARIABLE, "")  # whatever the command sets is taken back
    settings = tmp_path / "settings"
    settings.write_text(f"TIERWISE_DATABASE={url.render_as_string(hide_password=False)}\n")
    command = ["--settings", str(settings), "status"]
    settings.chmod(0o600)
    assert run(lambda: app(command)) == 0
    assert capfd.readouterr().err == ""
    settings.chmod(0o644)
    done = subprocess.run([sys.executable, "-m", "runner", *command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    assert "others may read" in done.stderr and "chmod 600" in done.stderr and not secrets_in(done.stderr)


def test_a_settings_file_comes_after_the_environment_and_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings"
    file.write_text("TIERWISE_PORT=1234\nTIERWISE_HOST=127.0.0.2\n")
    monkeypatch.setenv(VARIABLE, str(file))
    monkeypatch.setenv("TIERWISE_PORT", "4321")
    settings = RecommenderSettings()
    assert (settings.port, settings.host, settings.database) == (4321, "127.0.0.2", "tierwise.db")
    assert run(lambda: app(["--settings", str(tmp_path / "absent"), "status"])) == 1
    assert "cannot be read (No such file or directory)" in " ".join(capsys.readouterr().err.split())


def test_commands_take_settings_in_the_same_order_as_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "")
    assert RunnerSettings().workdir == Path(".tierwise")
    file = tmp_path / "settings"
    file.write_text("TIERWISE_DATABASE='a b.db'\ntierwise_workdir=in-file\nTIERWISE_BASE_IMAGE\nTIERWISE_OTHER=1\n")
    file.chmod(0o600)
    monkeypatch.setenv(VARIABLE, str(file))
    monkeypatch.setenv("Tierwise_Workdir", "in-environment")
    settings = RunnerSettings()
    assert (settings.database, settings.workdir) == ("a b.db", Path("in-environment"))
    assert settings.base_image is None and RecommenderSettings().database == "a b.db"


def test_settings_are_printed_without_the_databases_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERWISE_DATABASE", f"postgresql://me:{quote(SECRET, safe='')}@host/name")
    monkeypatch.setenv("TIERWISE_API_KEY", KEY)
    for settings in (RecommenderSettings(), RunnerSettings()):
        assert settings.database.startswith("postgresql://")
        assert not secrets_in(f"{settings} {settings!r}")


def test_a_key_that_is_too_short_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIERWISE_API_KEY", "short-secret")
    monkeypatch.setattr(sys, "argv", ["recommender"])
    for start in (main, create_app):
        with pytest.raises((Exception, SystemExit)) as refused:
            start()
        # What Python prints of an error that nobody handles, and what was printed before.
        trace, printed = "".join(traceback.format_exception(refused.value)), capsys.readouterr()
        assert "API_KEY" in (trace + printed.err).upper()
        assert "short-secret" not in trace + printed.out + printed.err


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("tierwise.db", "tierwise.db"),
        ("postgresql://me@host/name", "postgresql://me@host/name"),
        ("postgresql://me:s3cret@host/name", "postgresql://me:***@host/name"),
        ("postgresql://me:s3?c/r@et@host:port/name", "postgresql://me:***@host:port/name"),
        ("postgresql://me:s3@cret@host/name?x=y", "postgresql://me:***@host/name?x=y"),
        ("postgresql://host/name?user=me&password=s3cret", "postgresql://host/name?user=me&password=***"),
        ("postgresql://host/name?options=-cpassword=s3cret", "postgresql://host/name?options=-cpassword=***"),
        ("oracle://me:s3cret@host/name?ssl_password=s3cret", "oracle://me:***@host/name?ssl_password=***"),
    ],
)
def test_a_location_is_shown_without_its_secrets(location: str, shown: str) -> None:
    assert shown_location(location) == shown
