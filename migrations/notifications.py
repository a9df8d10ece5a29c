"""Triggers by which a PostgreSQL server announces that evidence was committed (`catalog/evidence/changes.py`).

Derived like the views, and made again with them. A statement fires one trigger and a transaction announces once, so
that a round costs some microseconds. What stands below a measurement or an accuracy is written in the same transaction
and fires none of its own; changed or deleted by hand, it does, and says so: the rows above are what they were.
"""

import sqlalchemy as sa

CHANNEL = "tierwise_evidence"
TRIGGER = "announce_evidence"
# What is announced of a change below rows that do not show it.
BELOW = "below"
_EVERY_CHANGE = (
    *("environment", "artifact", "strategy", "measurement", "accuracy", "slo", "subject_slo"),
    *("imported_file", "input_pool"),
)
_BELOW_TABLES = (
    *("pool_input", "tier_run", "sample", "sample_part", "sample_link", "link_probe", "accuracy_item"),
    "accuracy_class_item",
)
_FUNCTION = f"""
CREATE OR REPLACE FUNCTION {TRIGGER}() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_notify('{CHANNEL}', COALESCE(TG_ARGV[0], '')); RETURN NULL; END $$
"""


def create_triggers(connection: sa.Connection) -> None:
    """Create all triggers again; on a server alone."""
    if connection.dialect.name != "postgresql":
        return
    connection.exec_driver_sql(_FUNCTION)
    events = dict.fromkeys(_EVERY_CHANGE, ("INSERT OR UPDATE OR DELETE OR TRUNCATE", ""))
    events |= dict.fromkeys(_BELOW_TABLES, ("UPDATE OR DELETE OR TRUNCATE", BELOW))
    for table, (kinds, announced) in events.items():
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {TRIGGER} ON {table}")
        connection.exec_driver_sql(
            f"CREATE TRIGGER {TRIGGER} AFTER {kinds} ON {table} FOR EACH STATEMENT "
            f"EXECUTE FUNCTION {TRIGGER}('{announced}')"
        )
