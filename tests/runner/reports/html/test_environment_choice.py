"""A report and an answer name the same environment."""

from typing import Any

from recommender.evidence.loading import load
from runner.reports.html import gather_report


def test_a_report_shows_the_environment_that_an_answer_rests_on(filling: Any, made: Any) -> None:
    """The newer environment has its rounds but no accuracy yet: it is not complete for either."""
    subject, strategies = made.Subject("net"), [("identity", "mobile"), ("identity", "edge")]
    older, newer = filling.environment("a" * 64), filling.environment("b" * 64, host="laptop")
    for environment, rounds in ((older, 2), (newer, 3)):
        filling.declare(environment, [subject], strategies, rounds=2)
        filling.exact(environment, subject, dict.fromkeys(strategies, 0.05), rounds=rounds)
    filling.judge(older, [subject], ["identity"])
    shown = gather_report(filling.database).environments
    answered = load(filling.database).select("net").environment
    assert [report.environment.key for report in shown] == [answered.key] == ["a" * 64]
