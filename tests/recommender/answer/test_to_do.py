"""What to measure: a command that works, with the time that it takes."""

import re
import shlex
from typing import Any

from catalog.evidence.tables import ImportedFile
from tests.recommender.test_answer import ask, chosen
from tests.recommender.test_link_samples import measure

WHEN = "2026-11-24T06:00:00.000000+00:00"


def noisy(writer: Any, *latencies_s: float, **environment: Any) -> None:
    """Store one strategy whose rounds differ."""
    key = writer.environment(**environment)
    writer.declare(key, "identity", "mobile")
    for number, latency_s in enumerate(latencies_s):
        writer.measure(key, "identity", "mobile", latency_s, number=number)
    writer.judge(key, "identity", 90.0)


def take(writer: Any, minutes: int) -> None:
    """Let every round of the stored ones have taken so long; the builder's start and end at the same moment."""
    with writer.database.session() as session:
        session.connection().exec_driver_sql(
            f"UPDATE measurement SET finished_at = replace(finished_at, ':00:00', ':{minutes:02}:00')"
        )
        session.commit()


def test_the_question_is_asked_again_with_the_time_that_its_rounds_take(client: Any, writer: Any) -> None:
    noisy(writer, 0.09, 0.1, 0.11)
    take(writer, 1)
    near, far = ask(client, max_latency_s=0.105), ask(client, max_latency_s=0.112)
    for answer, budget in ((near, "105ms"), (far, "112ms")):
        assert answer["status"] in ("likely", "open") and chosen(answer) == ("identity", "mobile")
        words = answer["to_do"]["command"].split()
        assert words[:-1] == ["runner", "recommend", "net", "--max-latency", budget, "--measure"]
        assert answer["to_do"]["words"] in answer["summary"]
    minutes = [int(answer["to_do"]["command"].split()[-1].removesuffix("m")) for answer in (near, far)]
    assert minutes[0] > minutes[1] > 3, "a wider budget needs fewer rounds"
    assert ask(client, max_latency_s=0.5)["to_do"] is None
    hopeless = ask(client, max_latency_s=0.1005)["to_do"]
    assert hopeless["command"] is None and "Not even 60 rounds" in hopeless["words"]


def test_an_undecided_strategy_names_its_own_rounds(client: Any, writer: Any) -> None:
    noisy(writer, 0.09, 0.1, 0.11)
    (undecided,) = ask(client, max_latency_s=0.112, version=1)["undecided"]
    assert "runner fill-catalog --rounds " in undecided["to_do"] and "--only net:identity:mobile" in undecided["to_do"]


def test_the_command_measures_in_the_same_environment(client: Any, writer: Any) -> None:
    noisy(writer, 0.09, 0.1, 0.11, launcher="process", scale="1/8")
    command = ask(client, max_latency_s=0.112)["to_do"]["command"]
    assert command.endswith(" --launcher process --scale 1/8 --measure 10m")
    # Once, where the question names them.
    command = ask(client, max_latency_s=0.112, launcher="process", scale="1/8")["to_do"]["command"]
    assert sorted(shlex.split(command)[5:9]) == ["--launcher", "--scale", "1/8", "process"]
    assert command.count("--launcher") == command.count("--scale") == 1


def test_minutes_come_from_the_rounds_so_far(client: Any, writer: Any) -> None:
    noisy(writer, 0.09, 0.1, 0.11)
    unknown = ask(client, max_latency_s=0.112)["to_do"]
    assert unknown["minutes"] is None and unknown["command"].endswith(" --measure 10m")
    take(writer, 1)
    to_do = ask(client, max_latency_s=0.112)["to_do"]
    assert to_do["command"].endswith(f" --measure {to_do['minutes']:.0f}m") and " more minutes" in to_do["words"]


def let_be_imported(writer: Any) -> None:
    with writer.database.session() as session:
        session.add(
            ImportedFile(id=1, key="1" * 64, name="theirs.json", sha256="0" * 64, format="json", imported_at=WHEN)
        )
        session.flush()
        session.connection().exec_driver_sql("UPDATE environment SET imported_file_id = 1")
        session.commit()


def test_what_was_imported_is_measured_where_it_came_from(client: Any, writer: Any) -> None:
    noisy(writer, 0.09, 0.1, 0.11)
    let_be_imported(writer)
    to_do = ask(client, max_latency_s=0.112)["to_do"]
    assert to_do["command"].startswith("runner fill-catalog --rounds ")
    assert "on the machine that this evidence comes from" in to_do["words"]


def test_rows_from_elsewhere_are_added_to_by_rows(client: Any, writer: Any) -> None:
    """A fill measures nothing for rows of another study; its command was advised."""
    noisy(writer, 0.09, 0.1, 0.11, launcher="imported")
    let_be_imported(writer)
    to_do = ask(client, max_latency_s=0.112)["to_do"]
    assert to_do["command"] is None
    assert re.fullmatch(r"Rows of \d+ rounds in all \(column `round`\) should make sure", to_do["words"])


def test_cautions_about_rows_advise_no_fill(client: Any, writer: Any) -> None:
    noisy(writer, 0.1, launcher="imported")
    writer.declare(1, "identity", "edge")
    let_be_imported(writer)
    cautions = " ".join(ask(client, max_latency_s=0.112)["warnings"])
    assert "import rows of at least three (column `round`)" in cautions
    assert "fill-catalog" not in cautions and "experiment.rounds" not in cautions


def test_a_question_of_other_links_names_the_rounds_of_the_strategy(client: Any, writer: Any) -> None:
    """Not the question: what it says of the links is predicted, whatever is measured."""
    noisy(writer, 0.09, 0.1, 0.11)
    writer.declare(1, "partition", "edge-cloud")
    measure(writer, 1, "latency:1:net:partition:edge-cloud", 10)
    question = {"max_latency_s": 0.112, "forbid_tiers": ["edge"]}
    assert ask(client, **question)["to_do"]["command"].startswith("runner recommend net ")
    predicted = ask(client, **question, links={"edge-cloud": "100mbit"})["to_do"]
    assert predicted["command"].startswith("runner fill-catalog ")


def test_no_fill_helps_where_nothing_measured_has_a_prediction(client: Any, writer: Any) -> None:
    noisy(writer, 0.09, 0.1, 0.11)
    writer.strategy(1, "identity", "edge", 0.2)
    answer = ask(client, max_latency_s=0.112, links={"mobile-edge": "10mbit"})
    assert answer["to_do"] is None
    assert answer["summary"] == (
        "Of 2 measured strategies none has a prediction on these links: identity on mobile has no prediction for the "
        "asked links: the rate of mobile-edge was neither probed nor declared."
    )


def test_rounds_do_not_help_where_items_are_too_few(client: Any, writer: Any) -> None:
    environment = writer.environment()
    for operator, accuracy in (("identity", 90.0), ("quantized", 89.5)):
        writer.strategy(environment, operator, "mobile", 0.1)
        writer.judge(environment, operator, accuracy, items=200)
    answer = ask(client, max_accuracy_drop_pp=1.0, forbid_operators=["identity"])
    assert answer["to_do"]["command"] is None and "validation items" in answer["to_do"]["words"]


def test_a_missing_accuracy_is_measured_alone(client: Any, writer: Any) -> None:
    environment = writer.environment()
    for operator in ("identity", "quantized"):
        writer.strategy(environment, operator, "mobile", 0.1)
    writer.judge(environment, "identity", 90.0)
    answer = ask(client, max_accuracy_drop_pp=1.0, forbid_operators=["identity"])
    assert (answer["recommendation"], answer["status"]) == (None, "unmeasured")
    assert answer["to_do"]["command"] == "runner fill-catalog --only net:quantized:mobile"


def test_what_was_not_measured_and_could_change_the_answer_is_named(client: Any, filled: Any) -> None:
    filled.declare(1, "early_exit", "mobile")
    answer = ask(client, max_latency_s=0.01)
    assert answer["status"] == "infeasible" and answer["infeasible"]["status"] == "proven"
    assert answer["to_do"]["command"] == "runner recommend net --max-latency 10ms --measure 10m"
    assert answer["to_do"]["words"].startswith("One strategy is not measured yet and could change this answer: ")


def test_more_inputs_of_what_was_imported_are_measured_where_it_came_from(client: Any, writer: Any) -> None:
    noisy(writer, 0.1, 0.1, 0.1)
    let_be_imported(writer)
    words = ask(client, max_latency_s=0.2, latency_percentile=99)["to_do"]["words"]
    # A declared number alone changes nothing where the data have fewer.
    assert words.startswith(
        "Set `experiment.inputs` to 299 or more, with as many inputs in the data, and run `runner fill-catalog` on the "
    )


def test_more_inputs_of_rows_from_elsewhere_are_imported(client: Any, writer: Any) -> None:
    noisy(writer, 0.1, 0.1, 0.1, launcher="imported")
    let_be_imported(writer)
    answer = ask(client, max_latency_s=0.2, latency_percentile=99)
    words = answer["to_do"]["words"]
    assert words == "Import rows of 299 or more inputs, or ask for a lower percentile than p99"
    # Rows hold no time: what is known is when they came.
    assert answer["age"]["words"].startswith("imported ") and "not known" in answer["age"]["words"]


def test_every_command_of_an_answer_measures_in_its_environment(client: Any, writer: Any) -> None:
    """With `auto` a Docker engine would be taken, whose rounds are no evidence of this environment."""
    environment = writer.environment(launcher="process")
    writer.declare(environment, "identity", "mobile")
    for number in range(2):
        doubt = {"verdict": "DOUBTFUL", "reason": "host load: 50 %, limit 40 %"}
        writer.measure(environment, "identity", "mobile", 0.1, number=number, **doubt)
    writer.declare(environment, "early_exit", "mobile")
    answer = ask(client, max_latency_s=1, launcher="process")
    commands = set(re.findall(r"`(runner fill-catalog[^`]*)`", str(answer["warnings"])))
    assert commands == {
        "runner fill-catalog --launcher process",
        "runner fill-catalog --redo doubtful --launcher process",
    }
    (missing,) = answer["not_considered"]
    assert missing["command"] == "runner fill-catalog --launcher process"
