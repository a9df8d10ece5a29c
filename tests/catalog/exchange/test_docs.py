"""docs/exchange.md: its examples import, and it describes every section and column."""

import re
from pathlib import Path

from catalog.evidence.database import Database
from catalog.exchange import Document, import_files
from catalog.exchange.document import HitColumns, LinkColumns, PartColumns, PixelColumns, SampleColumns
from catalog.exchange.spellings import OPTIONAL, REQUIRED

PAGE = (Path(__file__).parents[3] / "docs" / "exchange.md").read_text()
EXAMPLES = [re.sub(r"(?m)^    ", "", block) for block in re.findall(r"(?m)(?:^    subject,.*\n)(?:^    .*\n)+", PAGE)]


def test_the_examples_import_together(database: Database, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.csv" for number in range(len(EXAMPLES))]
    for file, example in zip(files, EXAMPLES, strict=True):
        file.write_text(example)
    latencies, accuracies = import_files(database, files)
    assert (latencies.stored.strategies, latencies.stored.samples) == (2, 2)
    assert accuracies.stored.accuracies == 1


def test_everything_is_described() -> None:
    columns = {*REQUIRED["latencies"], *OPTIONAL["latencies"]}
    assert [name for name in columns if f"`{name}`" not in PAGE] == []
    sections = set(Document.model_fields)
    for entry in (SampleColumns, PartColumns, LinkColumns, HitColumns, PixelColumns):
        sections |= set(entry.model_fields)
    assert [name for name in sections if f"`{name}`" not in PAGE and f"`{name}[i]`" not in PAGE] == []
    assert [name for name in REQUIRED["accuracies"] if name not in PAGE] == []
