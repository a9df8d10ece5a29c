"""The order of texts on a server: by their bytes, as SQLite has it, whatever language the database was created for."""

import sqlalchemy as sa

from catalog.evidence.tables import EvidenceTable

# Of the schema's own tables: another program may have some in the same database.
_OTHERWISE_SORTED = sa.text(
    "SELECT c.table_name, c.column_name FROM information_schema.columns c "
    "WHERE c.table_schema = current_schema() AND c.data_type = 'character varying' "
    "AND c.collation_name IS DISTINCT FROM 'C' ORDER BY 1, 2"
)


def sort_texts_by_bytes(connection: sa.Connection) -> None:
    """Give the collation `C` to every text column that has another one; nothing is rewritten but indices.

    In the order of a language `identity` and `Identity` are neighbours and `_` counts for nothing: rows, and with them
    the bytes of an export, would depend on the server. Views must not exist.
    """
    if connection.dialect.name != "postgresql":
        return
    quoted = connection.dialect.identifier_preparer.quote
    changes: dict[str, list[str]] = {}
    for table, column in connection.execute(_OTHERWISE_SORTED):
        if table in EvidenceTable.metadata.tables:
            changes.setdefault(table, []).append(f'ALTER COLUMN {quoted(column)} TYPE VARCHAR COLLATE "C"')
    for table, columns in changes.items():
        connection.exec_driver_sql(f"ALTER TABLE {quoted(table)} {', '.join(columns)}")
