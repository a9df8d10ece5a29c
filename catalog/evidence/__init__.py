"""The empirical catalog: what was measured, in a database, its tables, and the queries on it."""
