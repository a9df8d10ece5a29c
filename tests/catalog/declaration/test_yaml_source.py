from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from catalog.declaration.checks import Position, YamlDocument, parse_yaml, read_yaml
from catalog.errors import CatalogFileError

FILE = Path("some.yaml")


def refused(text: str) -> CatalogFileError:
    with pytest.raises(CatalogFileError) as caught:
        parse_yaml(text, FILE)
    return caught.value


def test_keys_and_values_have_positions() -> None:
    document = parse_yaml("a: 1\nb:\n  - x\n  - {c: 2}\n", FILE)
    assert document.data == {"a": 1, "b": ["x", {"c": 2}]}
    assert document.values["b", 1, "c"] == Position(4, 9)
    assert document.keys["b", 1, "c"] == Position(4, 6)
    assert document.locate(("b", 0, "nothing", "here")) == Position(3, 5)


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("a: [1, 2\nb: 3\n", 2, 2, "malformed YAML"),
        ("a:\n\tb: 1\n", 2, 1, "tab"),
        ("a: 1\nb: 2\na: 3\n", 3, 1, "duplicate key 'a': it is already on line 1"),
        ("a: {x: 1, y: 2, x: 3}\n", 1, 17, "duplicate key 'x'"),
        ("a: 1\nno: 2\n", 2, 1, "'no' is not a name"),
        ("a: 1\n12: 2\n", 2, 1, "'12' is not a name"),
        ("a: 1\n? [1, 2]\n: 2\n", 2, 3, "this is not a name"),
        ("a: &x [*x]\n", 1, 4, "contains itself"),
        ("a: !!python/object:os.system {}\n", 1, 4, "tag"),
        ("a: !mine 3\n", 1, 4, "tag"),
        ("a: 2026-11-24\n", 1, 4, "as a date"),
        ("a: *nowhere\n", 1, 4, "undefined alias"),
        ("", 1, 1, "empty"),
        ("a: 1\n---\nb: 2\n", 2, 1, "malformed YAML"),
        ("a: \x07\n", 1, 4, "U+0007"),
        ("[" * 5000, 1, 1, "nested too deeply"),
        ("a: " + "x" * 2**20, 1, 1, "longer than"),
    ],
)
def test_what_is_refused_names_line_and_column(text: str, line: int, column: int, said: str) -> None:
    error = refused(text)
    assert said in str(error)
    assert (error.line, error.column) == (line, column)
    assert str(error).startswith(f"some.yaml:{line}:{column}: ")


def test_an_alias_bomb_is_limited() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "aliases expand" in str(refused("\n".join(lines)))


def test_an_honest_alias_is_expanded() -> None:
    assert parse_yaml("a: &x {k: 1}\nb: *x\n", FILE).data == {"a": {"k": 1}, "b": {"k": 1}}


def test_all_duplicates_are_told_in_order() -> None:
    error = refused("a: 1\na: 2\nb: {c: 1, c: 2}\n")
    assert [problem.line for problem in error.problems] == [2, 3]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CatalogFileError, match="no such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(CatalogFileError, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(CatalogFileError, match="not UTF-8"):
        read_yaml(tmp_path / "binary.yaml")


NAMES = st.text("abcdefgh_-", min_size=1, max_size=5)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(NAMES, PLAIN, min_size=1, max_size=4))
def test_dumped_data_comes_back_with_a_position_for_everything(data: dict[str, object]) -> None:
    document = parse_yaml(yaml.safe_dump(data), FILE)
    assert document.data == data
    assert all((name,) in document.keys and (name,) in document.values for name in data)


@given(st.text(max_size=60))
def test_any_text_parses_or_raises_our_error(text: str) -> None:
    try:
        assert isinstance(parse_yaml(text, FILE), YamlDocument)
    except CatalogFileError as error:
        assert error.line >= 1
        assert error.column >= 1
