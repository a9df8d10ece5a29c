"""The evidence in memory: its model, its loading from the database, and its snapshots."""
