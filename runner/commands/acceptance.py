"""`--accept`: how sure an answer has to be for a pipeline to go on. By default, proven."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, get_args

import typer

from recommender.ranking.model import LIKELY_FROM
from recommender.schemas import ProspectOut, RecommendationOut, RecommendRequest, RecommendResponse
from recommender.schemas.answer import Status

AcceptOption = Annotated[
    str,
    typer.Option(
        "--accept",
        help="How sure is sure enough: proven, likely, likely=0.9 (its least probability), open or estimated",
        metavar="STATUS",
    ),
]
# The largest that a question may ask for: a percent of risk weighs as much as a tenth of the latency.
_MOST_CAREFUL = 10.0
_ALLOWED = "proven, likely, a probability such as likely=0.9, open or estimated"


@dataclass(frozen=True)
class Acceptance:
    """The least status that is accepted; `probability` is the least one where that is likely.

    Examples
    --------
    >>> Acceptance.parse("likely=0.9"), Acceptance.parse("likely").probability
    (Acceptance(status='likely', probability=0.9), 0.8)
    """

    status: Status
    probability: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Acceptance":
        """Read what was typed; raises `typer.BadParameter`."""
        name, equals, value = text.partition("=")
        status = next((status for status in get_args(Status) if status == name), None)
        if status is None or (equals and status != "likely"):
            raise typer.BadParameter(f"got {text!r}; allowed: {_ALLOWED}", param_hint="--accept")
        if status != "likely":
            return cls(status)
        try:
            probability = float(value) if equals else LIKELY_FROM
        except ValueError:
            probability = -1.0
        if not 0 < probability < 1:
            raise typer.BadParameter(f"a probability is above 0 and below 1, got {value!r}", param_hint="--accept")
        return cls(status, probability)

    def __str__(self) -> str:
        return f"likely enough ({self.probability:g})" if self.status == "likely" else self.status

    def accepts(self, prospect: ProspectOut) -> bool:
        """Return whether a strategy is sure enough."""
        if prospect.status == "proven" or self.status == "estimated":
            return True
        # Without a probability nothing is known that could be accepted.
        if self.status == "proven" or prospect.probability is None:
            return False
        return prospect.probability >= self.probability

    def answer(
        self, request: RecommendRequest, respond: Callable[[RecommendRequest], RecommendResponse]
    ) -> RecommendResponse:
        """Return the answer; if its strategy is not sure enough, the one that avoids risk where that has one."""
        answer = respond(request)
        if self.status == "proven" or self.strategy(answer) is not None:
            return answer
        # A surer strategy may be within the budgets, only not worth its latency at the cost that was asked.
        careful = respond(request.model_copy(update={"cost_of_breaking": _MOST_CAREFUL}))
        return answer if self.strategy(careful) is None else careful

    def strategy(self, answer: RecommendResponse) -> RecommendationOut | None:
        """Return the strategy to go on with: the recommendation, else the proven one; None where neither will do."""
        # A strategy whose estimates miss a budget is worth a try and passes no gate.
        if answer.infeasible is not None:
            return None
        # Without a budget there is nothing to be sure of.
        if not answer.budgets.any_set:
            return answer.recommendation
        offered = [best for best in (answer.recommendation, answer.proven) if best is not None]
        return next((best for best in offered if self.accepts(best)), None)
