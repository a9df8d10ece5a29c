"""What README and docs show of commands, made by the commands; `make samples` renews all of it.

The tests compare each sample with what is printed now, so that none is stale.
"""

import contextlib
import io
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from runner.cli import app, run

REPOSITORY = Path(__file__).parents[1]
README, PICTURE = REPOSITORY / "README.md", REPOSITORY / "docs/leaderboard.svg"
SQL, ERRORS, EXAMPLE = (REPOSITORY / "docs" / name for name in ("sql.md", "errors.md", "example-evidence.json.gz"))
WIDTH = 100
# By the day of the reader.
_AGE = re.compile(r"measured (today|\d+ days? ago)( *)│")
_ANSWER = re.compile(r"\$ (runner recommend fashion-resnet [^\n]*)\n(╭─.*?╯)\n", re.DOTALL)
_QUERY = re.compile(r"(```sql\n(.*?)```\n\n```text\n)(.*?)(\n```)", re.DOTALL)


def printed(*arguments: str) -> str:
    """Return what a command prints on stdout, without spaces at the ends of lines."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(io.StringIO()) as said:
        code = run(lambda: app(list(arguments)))
    assert code == 0, said.getvalue()
    return "\n".join(line.rstrip() for line in shown.getvalue().rstrip().splitlines())


@dataclass(frozen=True)
class Databases:
    """The evidence of the samples: the embedded one that README imports, and the example of docs/sql.md."""

    embedded: Path
    example: Path

    def run(self, command: str) -> str:
        """Return what a command of README prints."""
        words = [str(self.embedded) if word == "embedded.db" else word for word in command.split()[1:]]
        return printed(*words)


def without_age(text: str) -> str:
    """Return a text without how long ago it was measured."""
    return _AGE.sub("│", text)


def readme(text: str, databases: Databases) -> str:
    """Return README with the answer that its command prints now."""

    def renewed(sample: re.Match[str]) -> str:
        frame = re.search(r"╭─.*?╯", databases.run(sample[1]), re.DOTALL)
        assert frame is not None
        return f"$ {sample[1]}\n{frame[0]}\n"

    assert _ANSWER.search(text)
    return _ANSWER.sub(renewed, text)


def leaderboard_picture(text: str, databases: Databases) -> str:
    """Return the picture of the leaderboard that README shows."""
    command = "runner leaderboard -d embedded.db --subject fashion-resnet"
    console = Console(width=WIDTH, file=io.StringIO(), record=True, color_system=None)
    for line in databases.run(command).splitlines():
        console.print(Text(line, style="bold" if line.startswith(" operator") else ""), soft_wrap=True)
    # A fixed name, because rich would make one of a random part.
    return console.export_svg(title=command, unique_id="leaderboard")


def sql_page(text: str, databases: Databases) -> str:
    """Return docs/sql.md with what its queries print now."""
    assert _QUERY.search(text)
    return _QUERY.sub(
        lambda sample: f"{sample[1]}{printed('sql', sample[2], '-d', str(databases.example))}{sample[4]}", text
    )


SAMPLES: dict[Path, Callable[[str, Databases], str]] = {
    README: readme,
    PICTURE: leaderboard_picture,
    SQL: sql_page,
}


def make_databases(directory: Path, *, evidence: Path) -> Databases:
    """Import the evidence of the samples."""
    databases = Databases(directory / "embedded.db", directory / "example.db")
    for document, database in ((evidence, databases.embedded), (EXAMPLE, databases.example)):
        printed("import", str(document), "-d", str(database))
    return databases


def main() -> None:
    """Renew every sample, docs/errors.md with them."""
    os.environ["COLUMNS"] = str(WIDTH)
    # Imported here: the tests of errors are many modules.
    from tests.hostile.table import lines

    with tempfile.TemporaryDirectory() as directory:
        databases = make_databases(Path(directory), evidence=REPOSITORY / "catalogs/embedded-evidence.json.gz")
        for file, renewed in SAMPLES.items():
            file.write_text(renewed(file.read_text(encoding="utf-8"), databases), encoding="utf-8")
    ERRORS.write_text("".join(f"{line}\n" for line in lines()), encoding="utf-8")


if __name__ == "__main__":
    main()
