"""The table from errors to problem details (RFC 9457, `application/problem+json`)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from recommender.errors import (
    BodyTooLarge,
    DatabaseMissing,
    DatabaseVersionMismatch,
    Draining,
    EmptyRange,
    EvidenceUnavailable,
    Exposed,
    HeadTooLarge,
    MalformedRequest,
    NoEvidence,
    NoRoom,
    NotAuthorized,
    NotDeclared,
    RequestTimeout,
    RequestTooSlow,
    TooManyRequests,
    UnknownEnvironment,
    UnknownEvidence,
    UnknownHost,
    UnknownLauncher,
    UnknownLink,
    UnknownOperator,
    UnknownScale,
    UnknownSlo,
    UnknownStrategy,
    UnknownSubject,
    UnknownTier,
    WrongHost,
)
from recommender.schemas import FieldProblem, Problem

MEDIA_TYPE = "application/problem+json"
_TYPE_PREFIX = "urn:problem-type:tierwise:"
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class ProblemKind:
    """The status, type and title of one kind of error."""

    status: int
    slug: str
    title: str


TABLE: Mapping[type[Exception], ProblemKind] = {
    UnknownSubject: ProblemKind(404, "unknown-subject", "Unknown subject"),
    UnknownSlo: ProblemKind(404, "unknown-slo", "Unknown SLO"),
    UnknownEnvironment: ProblemKind(404, "unknown-environment", "Unknown environment"),
    UnknownLink: ProblemKind(404, "unknown-link", "Unknown link"),
    UnknownHost: ProblemKind(404, "unknown-host", "Unknown host"),
    UnknownScale: ProblemKind(404, "unknown-scale", "Unknown scale"),
    UnknownLauncher: ProblemKind(404, "unknown-launcher", "Unknown launcher"),
    UnknownTier: ProblemKind(404, "unknown-tier", "Unknown tier"),
    UnknownOperator: ProblemKind(404, "unknown-operator", "Unknown operator"),
    UnknownStrategy: ProblemKind(404, "unknown-strategy", "Unknown strategy"),
    UnknownEvidence: ProblemKind(404, "unknown-evidence", "Unknown evidence"),
    NotDeclared: ProblemKind(404, "not-declared", "Unknown name"),
    NotAuthorized: ProblemKind(401, "not-authorized", "The API key is missing or wrong"),
    Exposed: ProblemKind(403, "exposed", "No API key protects this service"),
    # RFC 9110, section 15.5.20: this server does not answer for the name that it was reached by.
    WrongHost: ProblemKind(421, "wrong-host", "The request is meant for another host"),
    RequestValidationError: ProblemKind(422, "invalid-request", "The request is not valid"),
    EmptyRange: ProblemKind(422, "empty-range", "The range of bandwidths is empty"),
    MalformedRequest: ProblemKind(400, "malformed-request", "The request is not well-formed HTTP"),
    RequestTimeout: ProblemKind(408, "request-timeout", "The request did not arrive in time"),
    # 431 and 429 are of RFC 6585.
    HeadTooLarge: ProblemKind(431, "head-too-large", "The head of the request is too large"),
    TooManyRequests: ProblemKind(429, "too-many-requests", "One client asks too much at once"),
    NoRoom: ProblemKind(503, "no-room", "The service has no room for another connection"),
    Draining: ProblemKind(503, "draining", "The service is about to stop"),
    BodyTooLarge: ProblemKind(413, "body-too-large", "The request body is too large"),
    RequestTooSlow: ProblemKind(503, "too-slow", "The request took too long"),
    DatabaseMissing: ProblemKind(503, "database-missing", "There is no evidence database"),
    NoEvidence: ProblemKind(503, "no-evidence", "Nothing has been measured yet"),
    DatabaseVersionMismatch: ProblemKind(503, "database-version", "The evidence database has another version"),
    EvidenceUnavailable: ProblemKind(503, "evidence-unavailable", "The evidence cannot be read now"),
    Exception: ProblemKind(500, "internal-error", "Something went wrong inside the service"),
}


def install(app: FastAPI) -> None:
    """Register the table; the most specific class of an error decides."""
    # The framework's own errors, such as 404 and 405 of unknown routes, become problems too.
    for error in (*TABLE, HTTPException):
        app.add_exception_handler(error, _handle)


def problem_response(error: Exception, instance: str) -> Response:
    """Return the response for an error raised while answering `instance`."""
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else _headers(error)
    return _render(problem_for(error, instance), headers)


def problem_for(error: Exception, instance: str) -> Problem:
    """Return the problem document alone, for answers that hold several."""
    if isinstance(error, HTTPException):
        return _http_problem(error, instance)
    # From the most specific class up: a subclass without a row is its parent's kind.
    kind = next(TABLE[error_class] for error_class in type(error).__mro__ if error_class in TABLE)
    extra: dict[str, Any] = {}
    detail = str(error)
    if isinstance(error, NotDeclared):
        extra = {"known": list(error.existing), "nearest": error.nearest}
    elif isinstance(error, RequestValidationError):
        refused = [field_problem(detail) for detail in error.errors()]
        extra = {"errors": refused}
        # The first five in words; `errors` holds all.
        detail = "; ".join(f"{field.field}: {field.allowed}, got {field.got}" for field in refused[:5])
    elif kind.status == 500:
        # What failed inside may name paths or rows, which are no business of a client.
        detail = "the error is in the service's log; the request was not at fault"
    return Problem(
        type=_TYPE_PREFIX + kind.slug, title=kind.title, status=kind.status, detail=detail, instance=instance, **extra
    )


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the problem responses of a route for the OpenAPI document."""
    titles = {status: [kind.title for kind in TABLE.values() if kind.status == status] for status in statuses}
    return {status: {"model": Problem, "description": " / ".join(titles[status])} for status in statuses}


def field_problem(error: Mapping[str, Any]) -> FieldProblem:
    """Return one of pydantic's errors as the field, what it got and what it allows."""
    place: Sequence[Any] = error.get("loc", ())
    # FastAPI's place begins with where a field was sent (body, query, path), which is no part of its name.
    names = [str(name) for name in place if name not in ("body", "query", "path")]
    match error.get("type"):
        case "missing":
            allowed, got = "required", "nothing"
        case "json_invalid":
            reason = error.get("ctx", {}).get("error", "malformed")
            # FastAPI puts the position of the first wrong character last.
            return FieldProblem(field="(body)", got=f"{reason} at character {place[-1]}", allowed="one JSON object")
        case "extra_forbidden":
            allowed, got = "no such field", _shown(error.get("input"))
        case "model_attributes_type" | "dict_type" | "model_type":
            allowed, got = "a JSON object sent as application/json", _shown(error.get("input"))
        case _:
            allowed, got = str(error.get("msg", "another value")), _shown(error.get("input"))
    return FieldProblem(field=".".join(names)[:_SHOWN_CHARACTERS] or "(body)", got=got, allowed=allowed)


def _headers(error: Exception) -> dict[str, str]:
    status = next(TABLE[error_class].status for error_class in type(error).__mro__ if error_class in TABLE)
    # A 401 must name a scheme (RFC 9110, section 15.5.2); the seconds are when asking again may succeed.
    return {503: {"retry-after": "5"}, 429: {"retry-after": "1"}, 401: {"www-authenticate": "Bearer"}}.get(status, {})


def _http_problem(error: HTTPException, instance: str) -> Problem:
    detail = str(error.detail)
    if error.status_code == 404:
        detail = "there is nothing here; /docs lists what there is"
    elif error.status_code == 400:  # the framework does not say why Python's JSON parser failed
        detail = (
            "the body cannot be read: it is not UTF-8, nests too deeply, or has a number of too many digits; allowed: "
            "one small JSON object in UTF-8"
        )
    elif error.status_code == 405:
        detail = f"allowed here: {(error.headers or {}).get('Allow') or (error.headers or {}).get('allow', '')}"
    # RFC 9457, section 4.2.1: with `about:blank` the title is the status's own phrase.
    return Problem(
        type="about:blank", title=_phrase(error.status_code), status=error.status_code, detail=detail, instance=instance
    )


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase


def refuse_unknown_parameters(request: Request) -> None:
    """Refuse parameters of the address that a route does not have: a misspelt one would be ignored in silence."""
    route = request.scope["route"]
    allowed = [parameter.alias for parameter in route.dependant.query_params]
    words = f"no such parameter; allowed: {', '.join(allowed) or 'none'}"
    errors = [
        {"type": "unknown_parameter", "loc": ("query", name), "msg": words, "input": value}
        for name, value in request.query_params.items()
        if name not in allowed
    ]
    if errors:
        raise RequestValidationError(errors)


async def _handle(request: Request, error: Exception) -> Response:
    return problem_response(error, request.url.path)


def _render(problem: Problem, headers: Mapping[str, str]) -> Response:
    """Encode as ASCII JSON, so that anything a client sent can be echoed (lone surrogates have no UTF-8)."""
    body = json.dumps(problem.model_dump(exclude_none=True), ensure_ascii=True, allow_nan=False)
    # Some refusals are sent past the middleware, and a cache may keep a 404 that does not forbid it.
    stored = {"cache-control": "no-store"}
    return Response(body, status_code=problem.status, media_type=MEDIA_TYPE, headers={**stored, **headers})


def _shown(value: object) -> str:
    """Return a value, short and printable, as JSON spells it where it can."""
    if isinstance(value, bytes):
        text = value[:_SHOWN_CHARACTERS].decode("utf-8", "replace")
    else:
        try:
            text = json.dumps(value)
        except (TypeError, ValueError):
            text = ascii(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
