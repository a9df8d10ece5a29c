"""What is known: the empirical catalog in a database, its tables, and what one asks of it."""

from catalog.evidence import store
from catalog.evidence.database import Database, open_database, shown_location
from catalog.evidence.soundness import sound_database

__all__ = ["Database", "open_database", "shown_location", "sound_database", "store"]
