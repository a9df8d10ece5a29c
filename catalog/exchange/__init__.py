"""Evidence that comes and goes as files: documents (`runner export`, `runner import`) and rows from elsewhere."""

from catalog.exchange.document import Document
from catalog.exchange.export_document import collect, rows_csv
from catalog.exchange.import_document import ImportOutcome, store_document
from catalog.exchange.import_files import Imported, RemovalOutcome, forget_file, import_files
from catalog.exchange.layouts import RowOptions
from catalog.exchange.lineage import imported_key
from catalog.exchange.serialization import decompressed, document_bytes, parse_document
from catalog.exchange.spellings import files_in

__all__ = [
    "Document",
    "ImportOutcome",
    "Imported",
    "RemovalOutcome",
    "RowOptions",
    "collect",
    "decompressed",
    "document_bytes",
    "files_in",
    "forget_file",
    "import_files",
    "imported_key",
    "parse_document",
    "rows_csv",
    "store_document",
]
