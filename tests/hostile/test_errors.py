"""Every row of docs/errors.md happens: one error, exit code 1, no stack trace, nothing lost, and the page says so."""

from pathlib import Path

import pytest

from tests.hostile.cases import Case
from tests.hostile.door import shown
from tests.hostile.table import HEAD, SECTIONS, opening, row, tried

PAGE = Path(__file__).parents[2] / "docs/errors.md"
RENEW = "the page is not current; renew it with: python -m tests.hostile.table > docs/errors.md"
CASES = {f"{section.title}: {case.name}".replace(" ", "_"): case for section in SECTIONS for case in section.cases}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_it_is_one_clear_error_and_the_page_says_so(case: Case, tmp_path: Path) -> None:
    attempt = tried(case, tmp_path)
    assert attempt.said.code == case.code, attempt.said
    assert "Traceback" not in attempt.said.err and attempt.said.out == ""
    assert case.says in attempt.said.message
    assert row(case, shown(attempt.said.message, tmp_path)) in PAGE.read_text().splitlines(), RENEW
    assert case.spoils_evidence or attempt.before == attempt.after


def test_the_page_has_these_sections_and_rows_and_no_others() -> None:
    page = PAGE.read_text()
    assert page.startswith(HEAD), RENEW
    rows = [line.split(" | ")[0].removeprefix("| ") for line in page.splitlines() if line.startswith("| ")]
    assert rows == [name for section in SECTIONS for name in (section.head[0], *(case.name for case in section.cases))]
    for section in SECTIONS:
        assert opening(section) in page, RENEW
