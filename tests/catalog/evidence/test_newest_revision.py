"""The newest revision as the names of the migrations give it."""

from alembic.script import ScriptDirectory

from catalog.evidence.database import _alembic, newest_revision


def test_the_numbers_of_the_migrations_follow_alembics_order() -> None:
    assert newest_revision() == ScriptDirectory.from_config(_alembic()).get_current_head()
