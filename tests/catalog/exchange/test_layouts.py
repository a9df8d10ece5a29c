"""Raw files as researchers lay them out: the rows of docs/exchange.md, or refused with what to say."""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlmodel import Session

from catalog.errors import ExchangeError
from catalog.evidence.database import Database
from catalog.evidence.loading import strategy_evidence
from catalog.evidence.soundness import sound_rows
from catalog.evidence.tables import Environment, Measurement, Sample, stored_rows
from catalog.exchange import RowOptions, files_in, forget_file, import_files
from catalog.exchange.layouts import NO_OPTIONS
from catalog.exchange.row_collector import gather_rows
from catalog.exchange.rows import Rows, read_rows
from catalog.exchange.rows_to_document import rows_digest
from catalog.exchange.serialization import ContentStream

SUBJECTS = ("resnet", "fcn")
STRATEGIES = (
    ("identity", "mobile"),
    ("identity", "edge"),
    ("quantized_early_exit", "mobile"),
    ("quantized_early_exit", "edge"),
)
INPUTS, REPETITIONS = 3, 2
# The study's words for what the columns hold.
WORDS = {
    "identity": "Identity",
    "quantized_early_exit": "Quantized Early-exit",
    "partition": "Partition",
    "mobile": "Mobile",
    "edge": "Edge",
    "mobile-edge": "Mobile-Edge",
}


@dataclass(frozen=True)
class Timed:
    subject: str
    operator: str
    placement: str
    input_id: int
    repetition: int
    latency_s: float


def truth(subjects: Iterable[str] = SUBJECTS, strategies: Sequence[tuple[str, str]] = STRATEGIES) -> list[Timed]:
    return [
        Timed(
            subject,
            operator,
            placement,
            item,
            repetition,
            round(1 + place + position / 8 + item / 64 + repetition / 256 + 0.125, 6),
        )
        for place, subject in enumerate(subjects)
        for position, (operator, placement) in enumerate(strategies)
        for repetition in range(REPETITIONS)
        for item in range(1, INPUTS + 1)
    ]


def table(rows: Iterable[Mapping[str, object]], *, delimiter: str = ",") -> str:
    listed = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(listed[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(listed)
    return text.getvalue()


def own_form(samples: Iterable[Timed]) -> str:
    return table(vars(sample) for sample in samples)


def rows_of(content: str, *, file: str = "f", options: RowOptions = NO_OPTIONS) -> Rows:
    stream = ContentStream(io.BytesIO(content.encode()), file=file)
    return read_rows(stream, file=file, options=options)


def digest(content: str, *, file: str = "f", options: RowOptions = NO_OPTIONS) -> str:
    return rows_digest(gather_rows(rows_of(content, file=file, options=options), "lab", file=file))


def long_form(**names: str) -> Callable[[], str]:
    """Write one row per sample with other names of the columns."""

    def write() -> str:
        return table({names.get(column, column): value for column, value in vars(sample).items()} for sample in truth())

    return write


def in_words() -> str:
    return table(
        {
            "Model": sample.subject,
            "Operator": WORDS[sample.operator],
            "Tier": WORDS[sample.placement],
            "Image": sample.input_id,
            "Run": sample.repetition,
            "Inference Latency (s)": sample.latency_s,
        }
        for sample in truth()
    )


def in_milliseconds() -> str:
    return table(
        {
            **{name: value for name, value in vars(sample).items() if name != "latency_s"},
            "Latency [ms]": sample.latency_s * 1000,
        }
        for sample in truth()
    )


def in_cells_with_units() -> str:
    return table(
        {
            **{name: value for name, value in vars(sample).items() if name != "latency_s"},
            "Latency": f"{sample.latency_s} s",
        }
        for sample in truth()
    )


def with_index() -> str:
    return table({"": position, **vars(sample)} for position, sample in enumerate(truth()))


def with_semicolons() -> str:
    return table(
        ({**vars(sample), "latency_s": str(sample.latency_s).replace(".", ",")} for sample in truth()), delimiter=";"
    )


def with_tabs() -> str:
    return table((vars(sample) for sample in truth()), delimiter="\t")


def with_comments_and_blank_lines() -> str:
    header, *lines = own_form(truth()).splitlines()
    return "\n".join(["# measured on a Sunday", "", header, *lines[:5], "", ",,,,,", *lines[5:], ""])


def with_summaries() -> str:
    blank = dict.fromkeys(("operator", "placement", "repetition"), "")
    rows = [vars(sample) for sample in truth()]
    return table([*rows, {**rows[0], **blank, "input_id": "Mean", "latency_s": 5.25}])


def with_strategies_in_a_cell() -> str:
    return table(
        {
            "model": sample.subject,
            "deployment strategy": f"{WORDS[sample.placement]} {WORDS[sample.operator]}",
            "image": sample.input_id,
            "trial": sample.repetition,
            "latency_s": sample.latency_s,
        }
        for sample in truth()
    )


def wide(header: Callable[[Timed], str], *rest: str) -> Callable[[], str]:
    """Write a column for what a header says, and rows for the other columns."""

    def write() -> str:
        lines: dict[tuple[object, ...], dict[str, object]] = {}
        for sample in truth():
            names = [vars(sample)[name] for name in rest]
            line = lines.setdefault(tuple(names), dict(zip(rest, names, strict=True)))
            line[header(sample)] = sample.latency_s
        return table(lines.values())

    return write


def without_repetitions() -> str:
    rows = ({name: value for name, value in vars(sample).items() if name != "repetition"} for sample in truth())
    return table(rows)


def without_inputs() -> str:
    rows = ({name: value for name, value in vars(sample).items() if name != "input_id"} for sample in truth())
    return table(rows)


def as_objects() -> str:
    return json.dumps(
        [{**vars(sample), "latency_s": None, "latency_ms": sample.latency_s * 1000} for sample in truth()]
    )


def as_lists() -> str:
    lists: dict[tuple[str, ...], list[float]] = {}
    for sample in truth():
        key = (sample.subject, sample.operator, sample.placement, str(sample.repetition))
        lists.setdefault(key, []).append(sample.latency_s)
    return json.dumps(
        [
            dict(zip(("model", "operator", "tier", "run", "latencies_s"), (*key, values), strict=True))
            for key, values in lists.items()
        ]
    )


def as_lines_of_objects() -> str:
    return "".join(f"{json.dumps(run)}\n" for run in json.loads(as_lists()))


def as_described_runs() -> str:
    """One object: what is said of all, and a list of runs, each with its own description."""
    runs = [
        {"settings": {"model": run["model"], "operator": run["operator"]}, "device": {"tier": run["tier"]}, **rest}
        for run in json.loads(as_lists())
        for rest in [{"run": run["run"], "latencies_s": run["latencies_s"], "warmup_s": [0.5, 0.25]}]
    ]
    return json.dumps({"about": {"gpu": False, "host": "lab"}, "runs": runs})


def as_nested_objects() -> str:
    nested: dict[str, dict[str, dict[str, list[list[float]]]]] = {}
    for sample in truth():
        by_tier = nested.setdefault(sample.subject, {}).setdefault(WORDS[sample.operator], {})
        repetitions = by_tier.setdefault(WORDS[sample.placement], [[] for _ in range(REPETITIONS)])
        repetitions[sample.repetition].append(sample.latency_s)
    return json.dumps(nested)


@dataclass(frozen=True)
class Form:
    """How a file is written, what its user says of it, and the part of the truth that it has."""

    write: Callable[[], str]
    options: RowOptions = NO_OPTIONS
    remark: str = ""


SECONDS = RowOptions(constants={"unit": "s"})
FORMS: dict[str, Form] = {
    "the study's words": Form(in_words, remark="'Run' counts repetitions within one round"),
    "names of columns": Form(
        long_form(
            subject="network", operator="Technique", placement="Device", input_id="filename", latency_s="Time (sec)"
        )
    ),
    "names in one word": Form(long_form(input_id="ImageID", subject="ModelName", latency_s="inferenceTimeSeconds")),
    "milliseconds in brackets": Form(in_milliseconds),
    "units in cells": Form(in_cells_with_units),
    "an index": Form(with_index),
    "semicolons and decimal commas": Form(with_semicolons),
    "tabs": Form(with_tabs),
    "comments and blank lines": Form(with_comments_and_blank_lines),
    "rows that sum up": Form(with_summaries, remark="1 row that sum up others"),
    "a strategy in a cell": Form(with_strategies_in_a_cell),
    "a column per tier": Form(
        wide(lambda sample: f"{WORDS[sample.placement]} (s)", "subject", "operator", "input_id", "repetition")
    ),
    "a column per operator": Form(
        wide(lambda sample: WORDS[sample.operator], "subject", "placement", "input_id", "repetition"), SECONDS
    ),
    "a column per strategy": Form(
        wide(lambda sample: f"{sample.operator}_{sample.placement}_s", "subject", "input_id", "repetition")
    ),
    "a column per strategy of a model": Form(
        wide(
            lambda sample: f"{sample.subject} {WORDS[sample.operator]} {WORDS[sample.placement]}",
            "input_id",
            "repetition",
        ),
        SECONDS,
    ),
    "a column per run": Form(
        wide(lambda sample: f"Run {sample.repetition}", "subject", "operator", "placement", "input_id"), SECONDS
    ),
    "no repetition": Form(without_repetitions),
    "no input": Form(without_inputs, remark="the first row of every strategy and repetition is taken as input 1"),
    "columns that the user names": Form(
        long_form(latency_s="T", subject="M"), RowOptions(columns={"T": "latency_s", "M": "subject"})
    ),
    "a column that means nothing": Form(
        lambda: table({**vars(sample), "cpu": 12} for sample in truth()), RowOptions(ignored=frozenset({"cpu"}))
    ),
    "objects in milliseconds": Form(as_objects, RowOptions(ignored=frozenset({"latency_s"}))),
    "objects with lists": Form(as_lists),
    "objects, one a line": Form(as_lines_of_objects),
    "an object of described runs": Form(as_described_runs, RowOptions(ignored=frozenset({"gpu", "host", "warmup_s"}))),
    "objects in objects": Form(as_nested_objects, SECONDS),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_other_layouts_are_the_same_rows(form: Form) -> None:
    content = form.write()
    assert content != own_form(truth())
    assert digest(content, options=form.options) == digest(own_form(truth()))
    rows = rows_of(content, options=form.options)
    gather_rows(rows, "lab", file="f")
    assert form.remark in " ".join(rows.remarks)


@pytest.mark.parametrize(
    "file",
    [
        *("ResNet_Identity_Mobile.csv", "logs/ResNet-Identity-Mobile.txt", "ResNet/identity-mobile.log"),
        *("study/ResNet/identity/mobile.csv", "/data/ResNet/Mobile/identity.csv"),
        *("study/Mobile/ResNet_Identity.csv", "/data/identity/mobile/ResNet_Identity.csv"),
    ],
)
def test_numbers_alone_are_named_by_their_file(file: str) -> None:
    samples = truth(["ResNet"], STRATEGIES[:1])
    content = "".join(f"{sample.latency_s}\n" for sample in samples)
    for options in (RowOptions(columns={"1": "latency_s"}, inputs=INPUTS), replace(SECONDS, inputs=INPUTS)):
        assert digest(content, file=file, options=options) == digest(own_form(samples))
    with pytest.raises(ExchangeError, match="nothing says the unit of 'latency'; say it: --set unit=s"):
        digest(content, file=file, options=RowOptions(inputs=INPUTS))


@pytest.mark.parametrize("described", [False, True])
def test_lists_in_json_are_named_by_their_file_or_what_describes_them(described: bool) -> None:
    samples = truth(["ResNet"], STRATEGIES[:1])
    runs = [[sample.latency_s for sample in samples if sample.repetition == run] for run in range(REPETITIONS)]
    described_runs = {"model": "ResNet", "operator": "identity", "tier": "mobile", "latency_s": runs}
    content = json.dumps(described_runs if described else runs)
    file, options = ("a.json", NO_OPTIONS) if described else ("ResNet_Identity_Mobile.json", SECONDS)
    assert digest(content, file=file, options=options) == digest(own_form(samples))


@pytest.mark.parametrize("missing", ["null", "NaN", '"-"', '"n/a"', '""'])
def test_an_empty_value_among_nested_objects_describes_no_run(missing: str) -> None:
    content = f'{{"ResNet": {{"identity": {{"mobile": [1.5, 2.5]}}, "quantized": {{"mobile": {missing}}}}}}}'
    with pytest.raises(ExchangeError, match="latency is"):
        digest(content, options=RowOptions(constants={"unit": "s"}, inputs=1))


def test_a_name_that_is_said_twice_may_be_left_out() -> None:
    run = {"subject": "a", "operator": "identity", "tier": "edge", "image": 1, "run": 0, "latency_s": 1.5}
    content = json.dumps({"name": "study", **run, "about": {"name": "run 1"}})
    assert digest(content, options=RowOptions(ignored=frozenset({"name"}))) == digest(json.dumps([run]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"model": "a", "about": {"model": "b"}, "latency_s": [1]}',
            "'about.model': an object above or before has 'model'",
        ),
        ('{"model": "a", "latency_s": [1, 2], "power": [1]}', "'latency_s' of 2, 'power' of 1; .* --ignore NAME"),
        ('{"model": "a", "runs": [{"latency_s": [1]}, 2]}', "an element of '2'; expected objects"),
        (
            '{"model": "a", "operator": "identity", "tier": "edge", "image": 1, "run": 0, "latency_s": 1}\n{"model": ',
            "line 2: malformed JSON",
        ),
    ],
)
def test_objects_that_do_not_fit_are_named(content: str, message: str) -> None:
    with pytest.raises(ExchangeError, match=message):
        digest(content)


def test_a_log_of_words_and_numbers_is_read() -> None:
    samples = truth(["ResNet"], STRATEGIES[:1])
    content = "".join(f"Inference time: {sample.latency_s} s\n" for sample in samples)
    read = digest(content, file="ResNet_Identity_Mobile.txt", options=RowOptions(inputs=INPUTS))
    assert read == digest(own_form(samples))
    with pytest.raises(ExchangeError, match="line 2: 'done' is no line such as"):
        digest("Inference time: 1 s\ndone\n", file="ResNet_Identity_Mobile.txt", options=RowOptions(inputs=1))


def test_columns_of_rates_are_settings_of_a_link() -> None:
    rates = {"1 Mbps": "1e6", "2.5 Mbps": "2.5e6"}
    names = {"subject": "net", "operator": "identity", "placement": "cloud", "repetition": 0}
    wide = [
        {**names, "input_id": item, **{text: item * float(rate) for text, rate in rates.items()}} for item in (1, 2)
    ]
    long = [
        {**names, "input_id": item, "latency_s": item * float(rate), "edge-cloud_bit_per_s": rate}
        for item in (1, 2)
        for rate in rates.values()
    ]
    options = RowOptions(constants={"unit": "s", "link": "edge-cloud"})
    assert digest(table(wide), options=options) == digest(table(long))
    with pytest.raises(ExchangeError, match="nothing says of which link the rates are; say it: --set link=edge-cloud"):
        digest(table(wide), options=RowOptions(constants={"unit": "s"}))


ACCURACIES = """subject,operator,placement,metric,value_pct
resnet,identity,mobile,top1,82.5
resnet,identity,mobile,top5,96.0
resnet,identity,edge,top1,82.25
resnet,identity,edge,top5,96.25
"""
ACCURACY_FORMS = {
    "the study's Table 6": """Subject,Operator,Top-1% Mobile,Top-1% Edge,Top-5% Mobile,Top-5% Edge,mIoU% Mobile
resnet,Identity,82.5,82.25,96.0,96.25,-
""",
    "a column per tier": "model,operator,metric,mobile,edge\nresnet,identity,Top-1%,82.5,82.25\n"
    "resnet,identity,Top-5%,96.0,96.25\n",
    "a column per metric": """model,operator,tier,top1,top5
resnet,identity,mobile,82.5,96.0
resnet,identity,edge,82.25,96.25
""",
    "shares": """model,operator,tier,metric,accuracy
resnet,identity,mobile,top1,0.825
resnet,identity,mobile,top5,0.96
resnet,identity,edge,top1,0.8225
resnet,identity,edge,top5,0.9625
""",
    "objects in objects": """{"resnet": {"identity": {"mobile": {"Top-1": 82.5, "Top-5": 96.0},
                                                      "edge": {"Top-1": 82.25, "Top-5": 96.25}}}}""",
}


@pytest.mark.parametrize("content", ACCURACY_FORMS.values(), ids=ACCURACY_FORMS)
def test_other_layouts_of_accuracies_are_the_same_rows(content: str) -> None:
    assert digest(content) == digest(ACCURACIES)


def test_a_percent_sign_says_that_small_accuracies_are_no_shares() -> None:
    small = ACCURACIES.replace("82.", "0.").replace("96.", "0.")
    with pytest.raises(ExchangeError, match="expected percent"):
        digest(small)
    gathered = gather_rows(rows_of(small.replace("0.5", "0.5%")), "lab", file="f")
    assert {value for rows in gathered.values() for value in rows.metrics.values()} == {0.5, 0.25, 0.0}


def test_an_accuracy_of_no_placement_is_that_of_every_one_with_latencies(database: Database, tmp_path: Path) -> None:
    latencies, accuracies = tmp_path / "study.csv", tmp_path / "accuracies.csv"
    latencies.write_text(own_form(truth()))
    accuracies.write_text("model,operator,top1\nresnet,Identity,82.5\nresnet,QE,75.25\n")
    imported = import_files(database, [latencies, accuracies])
    assert imported[1].stored.accuracies == 4
    with pytest.raises(
        ExchangeError, match=r"missing column placement; .*\n.*import both at once, or name the environ"
    ):
        import_files(database, [accuracies], environment="elsewhere")


REFUSED = {
    "a column that means nothing": ("cpu", "leave it out with --ignore cpu"),
    "a size without a unit": ("Model Size", r"--column size_mib='Model Size' \(of 1048576 bytes\)"),
    "a rate of no link": ("Bandwidth (Mbps)", "--set link=edge-cloud"),
}


@pytest.mark.parametrize(("column", "message"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_says_the_option_that_helps(column: str, message: str) -> None:
    with pytest.raises(ExchangeError, match=message):
        digest(table({**vars(sample), column: 12} for sample in truth()))


def test_a_unit_that_is_none_is_named() -> None:
    content = "subject,operator,placement,input_id,repetition,latency\nresnet,identity,mobile,a,0,5\n"
    with pytest.raises(ExchangeError, match="--set unit=hours is no unit of 'latency'; say it: --set unit=s"):
        digest(content, options=RowOptions(constants={"unit": "hours"}))


def test_rows_of_which_nothing_says_the_input_need_their_number() -> None:
    samples = truth(["n"], STRATEGIES[:1])
    content = table({"operator": "identity", "latency_s": sample.latency_s} for sample in samples)
    said = r"missing columns subject, placement, input_id, repetition(.|\n)*--set subject=(.|\n)*--inputs 100"
    with pytest.raises(ExchangeError, match=said):
        digest(content)
    options = RowOptions(constants={"subject": "n", "placement": "mobile"}, inputs=INPUTS)
    assert digest(content, options=options) == digest(own_form(samples))


def test_runs_of_one_row_count_inputs() -> None:
    content = "subject,operator,placement,run,latency_s\n" + "".join(f"n,identity,edge,{run},1.5\n" for run in range(4))
    with pytest.raises(ExchangeError, match=r"--column input_id=run, or .*: --ignore run --inputs 100"):
        digest(content)


def test_a_file_for_each_subject_is_named_by_it() -> None:
    content = table(
        {"image": sample.input_id, "run": sample.repetition, "I_M (s)": sample.latency_s}
        for sample in truth(["ResNet"], STRATEGIES[:1])
    )
    assert digest(content, file="a folder/ResNet.csv") == digest(own_form(truth(["ResNet"], STRATEGIES[:1])))
    with pytest.raises(ExchangeError, match="missing column subject"):
        digest(content, file="ResNet/results.csv")


def test_what_several_files_lack_is_judged_once_all_are_there(database: Database, tmp_path: Path) -> None:
    files = [tmp_path / f"net_{operator}_edge.csv" for operator in ("quantized", "identity")]
    for file in files:
        file.write_text("image,latency_s\na,1.5\nb,1.25\n")
    remarks = [file.remarks for file in import_files(database, files)]
    assert remarks == [
        (f"by the file's name: subject net, operator {operator}, placement edge",)
        for operator in ("quantized", "identity")
    ]


def stored_names(database: Database) -> tuple[list[str], list[tuple[int, int]]]:
    """Return the environments, and the samples of every round."""
    with database.session() as session:
        environments = [row.host for row in stored_rows(session, Environment)]
        numbers = {row.id: row.round for row in stored_rows(session, Measurement)}
        rounds = Counter(numbers[row.measurement_id] for row in stored_rows(session, Sample))
    return environments, sorted(rounds.items())


@pytest.mark.parametrize(
    ("names", "rounds"),
    [
        (("net_identity_mobile_run1.csv", "net_identity_mobile_run2.csv"), [(1, 4)]),
        (("net_identity_mobile_round1.csv", "net_identity_mobile_round2.csv"), [(1, 2), (2, 2)]),
        (("run1/net_identity_mobile.csv", "run2/net_identity_mobile.csv"), [(1, 4)]),
        (("round_1/net_identity_mobile.csv", "round_2/net_identity_mobile.csv"), [(1, 2), (2, 2)]),
        (("net_identity_mobile_1.csv", "net_identity_mobile_2.csv"), [(1, 4)]),
        (("1/net_identity_mobile.csv", "2/net_identity_mobile.csv"), [(1, 4)]),
    ],
)
def test_files_of_runs_are_one_table(
    database: Database, tmp_path: Path, names: Sequence[str], rounds: list[tuple[int, int]]
) -> None:
    folder = tmp_path / "lab"
    for position, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"image,latency_s\na,{1.5 + position}\nb,1.25\n")
    (imported,) = import_files(database, files_in([folder]))
    assert stored_names(database) == (["lab"], rounds)
    assert imported.others == (folder / names[1],)
    assert [file.stored.known_before for file in import_files(database, files_in([folder]))] == [True]
    assert forget_file(database, names[1]).measurements == len(rounds)


def test_rounds_of_runs_are_said_by_an_option(database: Database, tmp_path: Path) -> None:
    files = [tmp_path / f"run{number}.csv" for number in (1, 2)]
    for file in files:
        file.write_text("subject,operator,placement,input_id,repetition,latency_s\nn,identity,edge,a,0,1.5\n")
    with pytest.raises(ExchangeError) as refusal:
        import_files(database, files)
    said = "run2.csv, line 2: this input, repetition and round is on run1.csv, line 2 already; keep one; if every file"
    assert refusal.value.problems[0].startswith(said)
    import_files(database, files, options=RowOptions({"run": "round"}))
    assert stored_names(database)[1] == [(1, 1), (2, 1)]


def test_files_that_have_other_columns_are_no_runs(database: Database, tmp_path: Path) -> None:
    latencies, accuracies = tmp_path / "net_1.csv", tmp_path / "net_2.csv"
    latencies.write_text("subject,operator,placement,input_id,repetition,latency_s\nn,identity,edge,a,0,1.5\n")
    accuracies.write_text("subject,operator,placement,metric,value_pct\nn,identity,edge,top1,93.5\n")
    assert [file.stored.accuracies for file in import_files(database, [latencies, accuracies])] == [0, 1]


def test_an_unknown_column_that_is_nearly_known_is_named_with_what_it_is() -> None:
    content = "Modell,operator,placement,input_id,repetition,latency_s\nn,identity,edge,a,0,1.5\n"
    with pytest.raises(ExchangeError, match="--column subject=Modell"):
        digest(content)


def test_rows_are_not_judged_again_for_every_file(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"net_{operator}_{tier}.csv" for operator, tier in (*STRATEGIES, ("quantized", "cloud"))]
    for file in files:
        file.write_text("image,latency_s\na,1.5\nb,1.25\n")
    judged: list[Session] = []

    def counted_rows(session: Session) -> AbstractContextManager[None]:
        judged.append(session)
        return sound_rows(session)

    # The package has a function of this name as well.
    monkeypatch.setattr(sys.modules[import_files.__module__], "sound_rows", counted_rows)
    import_files(database, files)
    assert len(judged) == 1
    assert stored_names(database)[0] == [tmp_path.name]


APART = "image,run,latency_s\n" + "".join(f"{item}.jpg,{run},0.{item + 1}\n" for run in (0, 1) for item in range(4))


def apart(folder: Path) -> Path:
    """Write latencies of ResNet-50, identity and `QEE`, by their paths, on two tiers."""
    for operator in ("Identity", "QEE"):
        for tier in ("mobile", "edge"):
            file = folder / tier / f"ResNet-50_{operator}.csv"
            file.parent.mkdir(exist_ok=True)
            file.write_text(APART)
    return folder


def stored_sizes(database: Database) -> dict[str, tuple[int | None, float | None]]:
    """Return size and accuracy by strategy."""
    with database.session() as session:
        return {
            f"{row.subject}/{row.operator}@{row.placement}": (
                row.size_bytes,
                row.accuracy and row.accuracy.accuracy_pct,
            )
            for row in strategy_evidence(session)
        }


def test_accuracies_and_sizes_apart_join_latencies_of_names_spelt_otherwise(database: Database, tmp_path: Path) -> None:
    """Another spelling was another subject, and a table of sizes was refused for its missing latencies."""
    folder = apart(tmp_path)
    (folder / "accuracy.csv").write_text(
        "model,operator,top1\nresnet_50,identity,82.5\nresnet_50,Quantized Early Exit,75\n"
    )
    (folder / "model sizes.csv").write_text("Model,Operator,Size (MiB)\nRESNET 50,Identity,10\nRESNET 50,QE,2.5\n")
    imported = import_files(database, files_in([folder]))
    expected = {
        f"ResNet_50/{operator}@{tier}": (size, accuracy)
        for operator, size, accuracy in (("identity", 10 * 2**20, 82.5), ("quantized_early_exit", 5 * 2**19, 75.0))
        for tier in ("mobile", "edge")
    }
    assert stored_sizes(database) == expected
    remarks = [remark for file in imported for remark in file.remarks]
    assert "subject resnet_50 is taken for ResNet_50, as another file of the environment calls it" in remarks
    # All latencies are read first, and the sizes alone go again.
    assert [file.format for file in imported][-2:] == ["accuracies", "sizes"]
    assert all(file.stored.known_before for file in import_files(database, files_in([folder])))
    forget_file(database, "model sizes.csv")
    assert stored_sizes(database) == {name: (None, accuracy) for name, (_, accuracy) in expected.items()}


def test_another_subject_of_accuracies_is_named_beside_those_with_latencies(database: Database, tmp_path: Path) -> None:
    folder = apart(tmp_path)
    (folder / "accuracy.csv").write_text("model,operator,tier,top1\nresnext,identity,mobile,82.5\n")
    imported = import_files(database, files_in([folder]))
    [remarks] = [file.remarks for file in imported if file.format == "accuracies"]
    assert any(remark.startswith("resnext: no latencies are called so in this environment") for remark in remarks)


def test_sizes_of_one_artifact_that_contradict_each_other_are_refused(database: Database, tmp_path: Path) -> None:
    folder = apart(tmp_path)
    (folder / "sizes.csv").write_text("model,operator,size_bytes\nresnet 50,Identity,10\nresnet 50,identity,11\n")
    with pytest.raises(ExchangeError, match=r"line 3: size_bytes of .* is 11, and 10 on line 2; keep one"):
        import_files(database, files_in([folder]))
    with pytest.raises(ExchangeError, match="placement: say its column"):
        import_files(database, [folder / "sizes.csv"])


def test_two_spellings_in_one_file_stay_two_subjects(database: Database, tmp_path: Path) -> None:
    (tmp_path / "first.csv").write_text(f"model,operator,tier,{APART.split()[0]}\nresnet,identity,mobile,a,0,0.1\n")
    more = "ResNet,identity,edge,a,0,0.1\nRESNET,identity,edge,a,0,0.1\n"
    (tmp_path / "first-more.csv").write_text(f"model,operator,tier,{APART.split()[0]}\n{more}")
    import_files(database, [tmp_path / "first.csv", tmp_path / "first-more.csv"])
    assert set(stored_sizes(database)) == {"resnet/identity@mobile", "ResNet/identity@edge", "RESNET/identity@edge"}


def test_a_column_that_the_user_names_must_be_in_some_file(database: Database, tmp_path: Path) -> None:
    folder = apart(tmp_path)
    (folder / "sizes.csv").write_text("model,operator,Size\nResNet-50,Identity,10\n")
    import_files(database, files_in([folder]), options=RowOptions({"Size": "size_bytes"}))
    with pytest.raises(ExchangeError, match="size_mib=Sise: no file has it"):
        import_files(database, [folder / "mobile" / "ResNet-50_QEE.csv"], options=RowOptions({"Sise": "size_mib"}))
