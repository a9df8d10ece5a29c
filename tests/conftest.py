"""Docker and PostgreSQL: tests of either are skipped on a machine without it, never in CI.

`make test` runs most tests in six processes (tests/side_by_side.py), one file in one process and all containers in the
same one; then those marked `timed`, in three; then, one after the other, those marked `alone`, which measure.

Two cores pay for every process that starts and for everything that is made twice. The cheap ways:

- a database: `new_database`, `database_url` (here) copy a migrated one; `open_database(…, create=True)` migrates. What
  several tests store first is in a template, too (`Contents`).
- evidence with chosen numbers: tests/evidence_builder.py; a whole study: tests/catalog/exchange/study_rows.py.
- committed evidence: `filled` (tests/runner/commands/conftest.py) copies a piece that is imported once per process.
- a command: `command` (there), or `run(lambda: app([...]))`. A process of its own takes seconds: only for what an
  import, a signal or an exit shows.
- a fill: `declare` (tests/catalog_of_one.py), a model of one node. The built-in ones take ten times as long.
- a browser: load a page once and look at it twice.

What a module uses more than once and does not change is a fixture of the module. A file that takes more than ten
seconds belongs in `_LONG`.
"""

import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql
from sqlalchemy import Connection, event
from sqlalchemy import Engine as SqlEngine
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import make_url
from sqlalchemy.util import LRUCache

from catalog.evidence.database import Database, open_database
from runner.errors import EngineUnavailableError
from runner.launchers.engine import Engine
from tests.side_by_side import SideBySide

# What is printed does not depend on the terminal that the tests are started from.
os.environ.pop("COLUMNS", None)
_TESTS = Path(__file__).parent
# What measures (`alone`): it would disturb what runs beside it, and be disturbed. What keeps time and mostly waits for
# it to pass (`timed`): a few such files do not disturb each other. Whole files; tests of others are marked themselves.
_MARKED_FILES = {
    "alone": ("tierserver/test_paced_link.py",),
    "timed": ("recommender/http/test_connections.py", "tierserver/test_hostile.py", "tierserver/test_strategies.py"),
}
_TIMED_AT_ONCE = 3
# What takes longest besides the containers: given out last, it would keep one process while the others are done.
_LONG = (
    "runner/measuring/fleet/test_dask.py", "test_odd_evidence.py", "catalog/exchange/test_lineage.py",
    "test_secrets.py",
    "runner/reports/test_row_order.py", "catalog/statistics/test_pool_percentiles.py",
    "runner/operators/test_families.py", "catalog/exchange/test_round_trip.py",
    "runner/commands/test_invalid_rounds.py", "runner/operators/test_static_ptq_tools.py",
    "foreign/test_quantizable_forms.py", "runner/commands/test_bundle.py", "runner/operators/test_partition.py",
    "catalog/exchange/test_rows_to_document.py", "runner/subjects/test_builtin.py",
    "runner/commands/test_fill_scope.py", "catalog/statistics/test_simulated.py", "runner/test_interrupted_race.py",
    "recommender/test_page.py", "hostile/test_errors.py", "runner/measuring/test_race.py", "runner/test_wheel.py",
    "runner/test_own_models.py", "recommender/test_live.py", "tierserver/test_memory.py",
    "runner/commands/test_commands.py", "catalog/statistics/test_family_tests.py", "recommender/test_app.py",
    "runner/subjects/embedded/test_pictures.py", "recommender/test_workers.py", "tierserver/test_tier_fuzz.py",
    "runner/test_server_database.py", "test_foreign_text.py", "hostile/test_odd_files.py",
)  # fmt: skip
# Databases of SQLite that hold `Contents`, by their name.
_TEMPLATES: dict[str, str] = {}
# The SQL of statements that an engine has compiled.
_STATEMENTS: LRUCache[Any, Any] = LRUCache(5_000)
_MARKS = ("docker", "postgres")
_NO_POSTGRES = 'no PostgreSQL server; start one with: eval "$(.ci/postgres start)"'


def engine_answers() -> bool:
    try:
        Engine.connect()
    except EngineUnavailableError:
        return False
    return True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `both_databases` on SQLite and on PostgreSQL, where it uses a database at all."""
    if "backend" in metafunc.fixturenames and metafunc.definition.get_closest_marker("both_databases"):
        server = pytest.param("postgresql", marks=pytest.mark.postgres)
        metafunc.parametrize("backend", ["sqlite", server], indirect=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "run the tests in N processes, one file in one process (1, the default: in this one)"
    parser.addoption("--processes", type=int, default=1, metavar="N", help=text)


@event.listens_for(SqlEngine, "engine_connect")
def _share_statements(connection: Connection) -> None:
    connection.execution_options(compiled_cache=_STATEMENTS)


def _compile_statements_once() -> None:
    """Let all engines of a kind share the SQL of their statements: each test's would make that of the product again.

    SQLAlchemy keeps SQL by dialect, and every engine has a dialect object of its own; here they are configured alike.
    """
    for dialect in (SQLiteDialect_pysqlite, PGDialect_psycopg):
        dialect.__eq__ = lambda self, other: type(self) is type(other)  # type: ignore[method-assign]
        dialect.__hash__ = lambda self: hash(type(self))  # type: ignore[method-assign]


def pytest_configure(config: pytest.Config) -> None:
    _compile_statements_once()
    count = config.getoption("--processes")
    if count > 1:
        config.pluginmanager.register(SideBySide(partial(_at_once, count), _group, _prepare))


def _at_once(count: int, item: pytest.Item) -> int:
    """Return how many processes may run at the same time as long as one of them runs this test, its own included."""
    if item.get_closest_marker("alone"):
        return 1
    return min(count - 1, _TIMED_AT_ONCE) if item.get_closest_marker("timed") else count


def _group(item: pytest.Item) -> str:
    """Return the file of a test; all that start containers are one group: their volumes are shared."""
    return "containers" if _starts_containers(item.path) else str(item.path)


def _prepare(items: list[pytest.Item]) -> None:
    """Make and import what most processes, and the builds that they fork, would otherwise make and import."""
    for module in ("onnxruntime.quantization", "scikit_posthocs", "scipy.special", "statsmodels.stats.multitest"):
        import_module(module)
    _collect_constants()
    migrated_file()
    if any(item.get_closest_marker("postgres") for item in items) and "TIERWISE_TEST_POSTGRES" in os.environ:
        _migrated_on(os.environ["TIERWISE_TEST_POSTGRES"])
    _leave_out_of_garbage_collection()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marks = {name: mark for mark, names in _MARKED_FILES.items() for name in names}
    if missing := [name for name in (*marks, *_LONG) if not (_TESTS / name).is_file()]:
        raise pytest.UsageError(f"tests/conftest.py lists files that are not there: {', '.join(missing)}")
    for item in items:
        if mark := marks.get(_relative(item.path)):
            item.add_marker(mark)
    items.sort(key=lambda item: _place(item.path))
    if os.environ.get("CI") == "true":
        return
    if any(item.get_closest_marker("docker") for item in items) and not engine_answers():
        _skip(items, "docker", "no Docker engine answers")
    if "TIERWISE_TEST_POSTGRES" not in os.environ:
        _skip(items, "postgres", _NO_POSTGRES)


def pytest_collection_finish(session: pytest.Session) -> None:
    _leave_out_of_garbage_collection()
    gc.set_threshold(20_000, 20, 50)


def _leave_out_of_garbage_collection() -> None:
    """Search modules and tests in no later garbage collection: that took an eighth of the CPU."""
    gc.collect()
    gc.freeze()


@cache
def _place(path: Path) -> int:
    """Return the place of a file in the order in which files are given out: the longest first."""
    if _starts_containers(path):
        return 0
    name = _relative(path)
    return 1 + (_LONG.index(name) if name in _LONG else len(_LONG))


def _relative(path: Path) -> str:
    return path.relative_to(_TESTS).as_posix() if path.is_relative_to(_TESTS) else ""


@cache
def _starts_containers(path: Path) -> bool:
    return "mark.docker" in path.read_text(encoding="utf-8")


def _skip(items: list[pytest.Item], mark: str, reason: str) -> None:
    for item in items:
        if item.get_closest_marker(mark):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and any(map(item.get_closest_marker, _MARKS)):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} skipped: in CI every test of Docker and PostgreSQL runs"
    return report


@settings(max_examples=50, database=None)
@given(st.floats(), st.text())
def _collect_constants(number: float, text: str) -> None:
    """Have hypothesis read all modules' constants and its table of characters, which each process would do else."""


class PostgresServer:
    """The server of `.ci/postgres`; a database made from the migrated template costs less than a migration."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.templates: dict[str, str] = {}

    @property
    def template(self) -> str:
        """The name of an empty database at the newest schema."""
        return _migrated_on(self.url)[1]

    def url_of(self, name: str) -> str:
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def execute(self, statement: str, *names: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def create(self, name: str) -> None:
        self.execute("CREATE DATABASE {}", name)

    def create_sorted(self, language: str) -> str:
        """Make an empty database that sorts texts as a language does, and return its name."""
        name = _new_name()
        options = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE"
        with psycopg.connect(self.url, autocommit=True) as connection:
            statement = sql.SQL("CREATE DATABASE {} " + options + " {}")
            connection.execute(statement.format(sql.Identifier(name), sql.Literal(language)))
        open_database(self.url_of(name), create=True).close()
        return name

    def migrated(self, template: str | None = None) -> str:
        """Make a database and return its name; it is at the newest schema, or a copy of another one."""
        name = _new_name()
        self.execute("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", name, template or self.template)
        return name

    def drop(self, name: str) -> None:
        self.execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    if "TIERWISE_TEST_POSTGRES" not in os.environ:
        pytest.fail(_NO_POSTGRES)
    server = PostgresServer(os.environ["TIERWISE_TEST_POSTGRES"])
    yield server
    for name in server.templates.values():
        server.drop(name)


def _new_name() -> str:
    return f"tierwise_{uuid4().hex}"


@cache
def _migrated_on(url: str) -> tuple[int, str]:
    """Return the process that made the template on this server, which removes it at its end, and its name."""
    server, name = PostgresServer(url), _new_name()
    server.create(name)
    open_database(server.url_of(name), create=True).close()
    return os.getpid(), name


def pytest_sessionfinish() -> None:
    url = os.environ.get("TIERWISE_TEST_POSTGRES")
    if url and _migrated_on.cache_info().currsize and _migrated_on(url)[0] == os.getpid():
        PostgresServer(url).drop(_migrated_on(url)[1])


@pytest.fixture(scope="session", autouse=True)
def locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give this process, and those it starts, a machine of its own: others measure beside it."""
    folder = tmp_path_factory.mktemp("locks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIERWISE_LOCKS", str(folder))
        yield folder


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """Return where the test's databases are: SQLite, unless it is marked to run on both."""
    return str(getattr(request, "param", "sqlite"))


@cache
def migrated_file() -> bytes:
    """Return an empty SQLite database at the newest schema."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "evidence.db"
        open_database(database, create=True).close()
        return database.read_bytes()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a migrated, empty database; a copy costs less than a migration."""
    template = tmp_path_factory.mktemp("template") / "evidence.db"
    template.write_bytes(migrated_file())
    return template


class NewDatabase(Protocol):
    """Makes a migrated database and returns its path or URL; `name` is that of its file in SQLite."""

    def __call__(self, name: str, contents: "Contents | None" = None) -> str: ...


@dataclass(frozen=True)
class Contents:
    """What a new database holds: always the same under one name, so that it is stored once per process and copied."""

    name: str
    store: Callable[[Database], object]


@pytest.fixture
def new_database(
    backend: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    sqlite_template: Path,
) -> Iterator[NewDatabase]:
    """Make a migrated database, empty or with contents, and return its path or URL."""
    made: list[str] = []
    server: PostgresServer | None = request.getfixturevalue("postgres") if backend == "postgresql" else None

    def template_of(contents: Contents) -> str:
        templates = server.templates if server else _TEMPLATES
        if contents.name not in templates:
            if server is None:
                location = name = str(shutil.copy(sqlite_template, sqlite_template.parent / contents.name))
            else:
                location = server.url_of(name := server.migrated())
            with open_database(location) as opened:
                contents.store(opened)
            templates[contents.name] = name
        return templates[contents.name]

    def make(name: str, contents: Contents | None = None) -> str:
        template = template_of(contents) if contents else None
        if server is None:
            shutil.copy(template or sqlite_template, tmp_path / name)
            return str(tmp_path / name)
        made.append(server.migrated(template))
        return server.url_of(made[-1])

    yield make
    for name in made:
        request.getfixturevalue("postgres").drop(name)


@pytest.fixture
def contents() -> Contents | None:
    """Return what the test's database holds from the start."""
    return None


@pytest.fixture
def database_url(new_database: NewDatabase, contents: Contents | None) -> str:
    """Make a migrated database, empty unless `contents` says otherwise."""
    return new_database("evidence.db", contents)
