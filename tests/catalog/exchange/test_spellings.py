"""Rows as scripts of others write them: understood as the same rows, or refused with what to write instead."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.errors import ExchangeError
from catalog.evidence.database import Database
from catalog.exchange import import_files
from catalog.exchange.row_collector import gather_rows
from catalog.exchange.rows import read_rows
from catalog.exchange.rows_to_document import rows_digest
from catalog.exchange.serialization import ContentStream

LATENCIES = """subject,operator,placement,input_id,repetition,latency_s,round,compute_s,mobile-edge_bit_per_s
net,identity,edge,a.jpg,0,0.0125,1,0.01,2000000
net,quantized_early_exit,edge,a.jpg,0,0.25,1,0.01,1000000
net,identity,mobile,a.jpg,0,8.94,1,0.5,
"""
ACCURACIES = """subject,operator,placement,metric,value_pct
net,identity,edge,top1,93.5
net,identity,edge,top5,99
fcn,partition,mobile-edge,miou,61.25
"""
UNDERSTOOD: dict[str, tuple[str, Callable[[str], str]]] = {
    "upper case": (LATENCIES, lambda text: text.splitlines()[0].upper() + "\n" + text.partition("\n")[2]),
    "blanks": (LATENCIES, lambda text: text.replace("input_id", "Input ID").replace("latency_s", " Latency s")),
    "quoted": (LATENCIES, lambda text: re.sub("[^,\n]+", r'"\g<0>"', text)),
    "milliseconds": (
        LATENCIES,
        lambda text: re.sub(
            r",0,([\d.]+),", lambda match: f",0,{float(match[1]) * 1000:g},", text.replace("latency_s", "latency_ms")
        ),
    ),
    "Mbit/s": (
        LATENCIES,
        lambda text: text.replace("mobile-edge_bit", "mobile-edge_Mbit").replace("000000", ""),
    ),
    "tiers": (LATENCIES, lambda text: text.replace("edge", "Edge").replace("mobile", "MOBILE")),
    "operators": (
        LATENCIES,
        lambda text: text.replace("identity", "Identity").replace("quantized_early_exit", "Quantized Early-Exit"),
    ),
    "JSON": (
        LATENCIES,
        lambda text: json.dumps(
            [
                dict(zip(text.splitlines()[0].title().split(","), line.split(","), strict=True))
                for line in text.splitlines()[1:]
            ]
        ),
    ),
    "percent signs": (ACCURACIES, lambda text: text.replace("93.5", "93.5%").replace("61.25", "61.25 %")),
    "an arrow": (ACCURACIES, lambda text: text.replace("mobile-edge", "Mobile -> Edge")),
    "one word": (ACCURACIES, lambda text: text.replace("mobile-edge", "mobile_edge")),
    "metrics": (ACCURACIES, lambda text: text.replace("top1", "Top-1").replace("miou", "mIoU")),
    "pairs of tiers": (
        ACCURACIES,
        lambda text: text.replace("edge", "Edge").replace("mobile", "Mobile").replace("pct", "Pct"),
    ),
}


def digest(content: str) -> str:
    stream = ContentStream(io.BytesIO(content.encode()), file="f")
    return rows_digest(gather_rows(read_rows(stream, file="f"), "lab", file="f"))


@pytest.mark.parametrize(("content", "written"), UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_other_spellings_are_the_same_rows(content: str, written: Callable[[str], str]) -> None:
    assert written(content) != content
    assert digest(written(content)) == digest(content)


REFUSED = {
    "a column of another name": (
        LATENCIES,
        "subject",
        "Mode",
        "unknown column 'Mode'; .* or leave it out with --ignore",
    ),
    "no unit": (LATENCIES, "latency_s", "latency", "nothing says the unit of 'latency'; say it: --set unit=s"),
    "the same column twice": (
        LATENCIES,
        "input_id",
        "Subject",
        "column 'subject' is there 2 times, as 'subject' and 'Subject'; keep one",
    ),
    "two units": (LATENCIES, "round", "latency_ms", "is there 2 times, as 'latency_s' and 'latency_ms'; keep one"),
    "units in cells": (
        LATENCIES,
        "8.94",
        "8940 ms",
        "latency_s is '8940 ms'; expected seconds above 0, without its unit",
    ),
    "nothing measured": (LATENCIES, "8.94", "", "seconds above 0, or no row where nothing was measured"),
    "negative milliseconds": (
        LATENCIES.replace("latency_s", "Latency_ms"),
        "8.94",
        "-1",
        "line 4: Latency_ms is '-1'; expected milliseconds above 0",
    ),
    "shares": (
        ACCURACIES.replace("99", "0.99").replace("61.25", "0.61"),
        "93.5",
        "0.935",
        "value_pct is at most 0.99 in every row; expected percent, such as 99",
    ),
    "a cut on one tier": (ACCURACIES, "mobile-edge", "mobile", "placement is 'mobile'; expected two tiers"),
    "an arrow to a tier of one's own": (
        ACCURACIES,
        "mobile-edge",
        "mobile->fog",
        "expected a tier, or tiers joined by '-'",
    ),
}


@pytest.mark.parametrize(("content", "part", "written", "message"), REFUSED.values(), ids=REFUSED)
def test_what_may_mean_several_things_is_refused(content: str, part: str, written: str, message: str) -> None:
    with pytest.raises(ExchangeError, match=message):
        digest(content.replace(part, written, 1))


def test_two_spellings_of_a_column_in_one_json_row_are_refused() -> None:
    with pytest.raises(ExchangeError, match="row 1: two of its columns are one here, written otherwise; keep one"):
        digest(
            json.dumps(
                [
                    {
                        **dict(zip(*(line.split(",") for line in LATENCIES.splitlines()[:2]), strict=True)),
                        "Subject": "net",
                    }
                ]
            )
        )


def json_rows(content: str) -> list[dict[str, str]]:
    header, *lines = content.splitlines()
    return [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]


@pytest.mark.parametrize("plain", ["latency_s", "mobile-edge_bit_per_s"])
def test_json_in_another_unit_is_the_same_rows(plain: str) -> None:
    """A column that every row must have is laid out before its unit is read."""
    unit, factor = {"latency_s": ("latency_ms", 1e3), "mobile-edge_bit_per_s": ("mobile-edge_kbit_per_s", 1e-3)}[plain]
    rows = json_rows(LATENCIES)
    for row in rows:
        text = row.pop(plain)
        row[unit] = text and f"{float(text) * factor:g}"
    assert digest(json.dumps(rows)) == digest(LATENCIES)


def test_json_rows_in_two_units_are_refused() -> None:
    rows = json_rows(LATENCIES)
    rows[1]["latency_ms"] = rows[1].pop("latency_s")
    with pytest.raises(ExchangeError, match="row 2: latency_ms is latency_s in earlier rows; write all rows in one"):
        digest(json.dumps(rows))


def test_an_import_says_what_its_names_keep_from_being_compared(database: Database, tmp_path: Path) -> None:
    """Operators of unknown passes are in no research question; without identity nothing has a reference."""
    (tmp_path / "f.csv").write_text(LATENCIES)
    (tmp_path / "g.csv").write_text(LATENCIES.replace("identity", "mine"))
    (plain,) = import_files(database, [tmp_path / "f.csv"])
    assert plain.remarks == ()
    (named,) = import_files(database, [tmp_path / "g.csv"], environment="g")
    assert "mine: no column `passes` says what is done to the model" in named.remarks[0]
    (tmp_path / "h.csv").write_text(LATENCIES.replace("identity", "mine").replace("net,", "other,"))
    (lacking,) = import_files(database, [tmp_path / "h.csv"], environment="h")
    assert "other: no operator is called `identity`" in lacking.remarks[1]
