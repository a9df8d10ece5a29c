"""The table of commands: for each its name, its panel in `--help`, its help line and the module that implements it.

`runner --help` and the completion of command names read this table only. A module is imported when its command runs or
when the help of that command is requested, so that no command pays for the libraries of another.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class CommandEntry:
    """One command as `runner --help` lists it; `summary` equals the first paragraph of the function's docstring."""

    name: str
    panel: str
    module: str
    summary: str


# `--help` shows panels in the order of their first command, so the table's order is that of a first use.
_START, _MEASURE, _ASK, _EVIDENCE, _MODELS = "Start", "Measure", "Ask", "Evidence", "Models"

COMMANDS = (
    CommandEntry("init", _START, "init", "Write a commented catalog to start from; existing files are kept."),
    CommandEntry(
        "doctor", _START, "doctor", "Show what the machine of the tiers can do, and how to get what it lacks."
    ),
    CommandEntry("schema", _START, "schema", "Print the JSON schema of the catalog file, for editors."),
    CommandEntry("validate", _START, "validate", "Check the catalog file and show each error with its line."),
    CommandEntry("plan", _MEASURE, "plan", "Show what is missing, why, and how long measuring it takes."),
    CommandEntry("fill-catalog", _MEASURE, "fill_catalog", "Measure what is missing and store it."),
    CommandEntry("status", _MEASURE, "verify", "Count the evidence and list failed or invalid measurements."),
    CommandEntry("verify", _MEASURE, "verify", "Judge every stored measurement again by every rule."),
    CommandEntry(
        "selftest", _MEASURE, "selftest", "Measure one strategy under several names, as a test of the analysis."
    ),
    CommandEntry("clean", _MEASURE, "fill_catalog", "Remove what a killed run left behind."),
    CommandEntry("recommend", _ASK, "question", "Recommend an operator and a placement for given budgets."),
    CommandEntry("slo", _ASK, "slo", "Check every declared SLO against the evidence of every subject."),
    CommandEntry("whatif", _ASK, "whatif", "Predict the latency of every strategy for another link bandwidth."),
    CommandEntry("leaderboard", _ASK, "leaderboard", "Print every strategy with evidence, fastest first."),
    CommandEntry("rank", _ASK, "rank", "Rank strategies; those that share a letter are not shown to differ."),
    CommandEntry("report", _ASK, "report", "Write a report as one self-contained HTML page."),
    CommandEntry("sql", _EVIDENCE, "sql", "Query the evidence in SQL, read-only."),
    CommandEntry("export", _EVIDENCE, "exchange", "Write all evidence to one file that `runner import` reads."),
    CommandEntry("import", _EVIDENCE, "exchange", "Store evidence from files."),
    CommandEntry("forget", _EVIDENCE, "exchange", "Remove the evidence of an imported file."),
    CommandEntry("compare", _EVIDENCE, "compare", "Compare two databases, strategy by strategy."),
    CommandEntry("operators", _MODELS, "operators", "Analyse where a model can be shortened or cut."),
    CommandEntry("apply", _MODELS, "operators", "Apply an operator to a model and write the verified files."),
    CommandEntry("bundle", _MODELS, "bundle", "Write the recommended strategy to a directory, ready to deploy."),
)
