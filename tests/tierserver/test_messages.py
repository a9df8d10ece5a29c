import pytest

from tierserver.messages import (
    COMMANDS,
    ItemsEvent,
    Load,
    Measure,
    MessageError,
    PartSpec,
    Postprocess,
    Preprocess,
    Stats,
    Unload,
    parse_command,
)

PART = PartSpec("m", "p", preprocess=Preprocess("rgb", 8, 9, mean=(0.1, 0.2, 0.3)), postprocess=Postprocess("top_k"))


@pytest.mark.parametrize(
    "command",
    [
        Load((PART,), {"cloud": "http://cloud:8000"}),
        Measure("m", "/inputs", ("a", "b"), url="http://edge:8000", repetitions=3),
        Measure("m", "/inputs", ("a",)),
    ],
)
def test_a_command_survives_the_journey(command):
    assert parse_command({"id": 4, **command.to_json()}) == command


def test_none_is_left_out():
    assert "url" not in Measure("m", "/inputs", ("a",)).to_json()


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"cmd": "fly"}, "unknown command 'fly'"),
        ({"cmd": "stats", "verbose": True}, "unknown verbose"),
        ({"cmd": "measure"}, "missing input_ids, inputs_dir, model"),
        ({"cmd": "load", "parts": {}}, "expected a list"),
        ({"cmd": "load", "parts": [{"name": "m", "path": "p", "threads": "2"}]}, "threads: expected int, got str"),
        ({"cmd": "load", "routes": {"edge": 1}}, r"Load\.routes\['edge'\]: expected str, got int"),
        ({"cmd": "digest", "paths": ["a", "b", 3]}, r"Digest\.paths\[2\]: expected str, got int"),
        ({"cmd": "evaluate", "model": "m", "items_file": "f", "k": True}, "expected int, got bool"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(raw, says):
    with pytest.raises(MessageError, match=says):
        parse_command(raw)


def test_every_command_is_known_by_its_name():
    assert set(COMMANDS) == {"load", "digest", "unload", "probe", "measure", "evaluate", "stats"}


def test_messages_are_equal_by_class_and_fields():
    assert Load((PART,)) == Load((PART,)) != Load((), {"cloud": "http://cloud:8000"})
    assert Stats() != Unload() and Stats() != "stats"
    assert len({PART, PartSpec("m", "p"), PartSpec("m", "p")}) == 2
    assert repr(ItemsEvent(1, 2)) == "ItemsEvent(done=1, total=2, event='items')"
