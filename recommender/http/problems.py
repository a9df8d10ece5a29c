"""One table from errors to problem details (RFC 9457, `application/problem+json`); nothing else answers an error."""

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
    TooManyRequests,
    TooSlow,
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
class Kind:
    """How one sort of error is told to a client."""

    status: int
    slug: str
    title: str


TABLE: Mapping[type[Exception], Kind] = {
    UnknownSubject: Kind(404, "unknown-subject", "Unknown subject"),
    UnknownSlo: Kind(404, "unknown-slo", "Unknown SLO"),
    UnknownEnvironment: Kind(404, "unknown-environment", "Unknown environment"),
    UnknownLink: Kind(404, "unknown-link", "Unknown link"),
    UnknownHost: Kind(404, "unknown-host", "Unknown host"),
    UnknownScale: Kind(404, "unknown-scale", "Unknown scale"),
    UnknownLauncher: Kind(404, "unknown-launcher", "Unknown launcher"),
    UnknownTier: Kind(404, "unknown-tier", "Unknown tier"),
    UnknownOperator: Kind(404, "unknown-operator", "Unknown operator"),
    UnknownStrategy: Kind(404, "unknown-strategy", "Unknown strategy"),
    UnknownEvidence: Kind(404, "unknown-evidence", "Unknown evidence"),
    NotDeclared: Kind(404, "not-declared", "Unknown name"),
    NotAuthorized: Kind(401, "not-authorized", "The API key is missing or wrong"),
    Exposed: Kind(403, "exposed", "No API key protects this service"),
    WrongHost: Kind(421, "wrong-host", "The request is meant for another host"),
    RequestValidationError: Kind(422, "invalid-request", "The request is not valid"),
    EmptyRange: Kind(422, "empty-range", "The range of bandwidths is empty"),
    MalformedRequest: Kind(400, "malformed-request", "The request is not well-formed HTTP"),
    RequestTimeout: Kind(408, "request-timeout", "The request did not arrive in time"),
    HeadTooLarge: Kind(431, "head-too-large", "The head of the request is too large"),
    TooManyRequests: Kind(429, "too-many-requests", "One client asks too much at once"),
    NoRoom: Kind(503, "no-room", "The service has no room for another connection"),
    BodyTooLarge: Kind(413, "body-too-large", "The request body is too large"),
    TooSlow: Kind(503, "too-slow", "The request took too long"),
    DatabaseMissing: Kind(503, "database-missing", "There is no evidence database"),
    NoEvidence: Kind(503, "no-evidence", "Nothing has been measured yet"),
    DatabaseVersionMismatch: Kind(503, "database-version", "The evidence database has another version"),
    EvidenceUnavailable: Kind(503, "evidence-unavailable", "The evidence cannot be read now"),
    Exception: Kind(500, "internal-error", "Something went wrong inside the service"),
}


def install(app: FastAPI) -> None:
    """Register the table; the most specific class of an error decides."""
    for error in (*TABLE, HTTPException):
        app.add_exception_handler(error, _handle)


def problem_response(error: Exception, instance: str) -> Response:
    """The response for an error raised while answering `instance`."""
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else _headers(error)
    return _render(problem_for(error, instance), headers)


def problem_for(error: Exception, instance: str) -> Problem:
    """The problem document alone, for answers that hold several."""
    if isinstance(error, HTTPException):
        return _http_problem(error, instance)
    kind = next(TABLE[each] for each in type(error).__mro__ if each in TABLE)
    extra: dict[str, Any] = {}
    detail = str(error)
    if isinstance(error, NotDeclared):
        extra = {"known": list(error.known), "nearest": error.nearest}
    elif isinstance(error, RequestValidationError):
        refused = [field_problem(each) for each in error.errors()]
        extra = {"errors": refused}
        detail = "; ".join(f"{each.field}: {each.allowed}, got {each.got}" for each in refused[:5])
    elif kind.status == 500:
        detail = "the error is in the service's log; the request was not at fault"
    return Problem(
        type=_TYPE_PREFIX + kind.slug, title=kind.title, status=kind.status, detail=detail, instance=instance, **extra
    )


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem responses of a route, for OpenAPI."""
    titles = {status: [kind.title for kind in TABLE.values() if kind.status == status] for status in statuses}
    return {status: {"model": Problem, "description": " / ".join(titles[status])} for status in statuses}


def field_problem(error: Mapping[str, Any]) -> FieldProblem:
    """One of pydantic's errors as field, what was got, what is allowed."""
    place: Sequence[Any] = error.get("loc", ())
    names = [str(each) for each in place if each not in ("body", "query", "path")]
    match error.get("type"):
        case "missing":
            allowed, got = "required", "nothing"
        case "json_invalid":
            reason = error.get("ctx", {}).get("error", "malformed")
            return FieldProblem(field="(body)", got=f"{reason} at character {place[-1]}", allowed="one JSON object")
        case "extra_forbidden":
            allowed, got = "no such field", _shown(error.get("input"))
        case "model_attributes_type" | "dict_type" | "model_type":
            allowed, got = "a JSON object sent as application/json", _shown(error.get("input"))
        case _:
            allowed, got = str(error.get("msg", "another value")), _shown(error.get("input"))
    return FieldProblem(field=".".join(names)[:_SHOWN_CHARACTERS] or "(body)", got=got, allowed=allowed)


def _headers(error: Exception) -> dict[str, str]:
    status = next(TABLE[each].status for each in type(error).__mro__ if each in TABLE)
    return {503: {"retry-after": "5"}, 429: {"retry-after": "1"}, 401: {"www-authenticate": "Bearer"}}.get(status, {})


def _http_problem(error: HTTPException, instance: str) -> Problem:
    detail = str(error.detail)
    if error.status_code == 404:
        detail = "there is nothing here; /docs lists what there is"
    elif error.status_code == 400:  # the framework does not say what: Python's JSON parser gave up
        detail = (
            "the body cannot be read: it is not UTF-8, nests too deeply, or has a number of too many digits; allowed: "
            "one small JSON object in UTF-8"
        )
    elif error.status_code == 405:
        detail = f"allowed here: {(error.headers or {}).get('Allow') or (error.headers or {}).get('allow', '')}"
    return Problem(
        type="about:blank", title=_phrase(error.status_code), status=error.status_code, detail=detail, instance=instance
    )


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase


async def _handle(request: Request, error: Exception) -> Response:
    return problem_response(error, request.url.path)


def _render(problem: Problem, headers: Mapping[str, str]) -> Response:
    """ASCII JSON, so that whatever a client sent can be echoed (lone surrogates have no UTF-8)."""
    body = json.dumps(problem.model_dump(exclude_none=True), ensure_ascii=True, allow_nan=False)
    return Response(body, status_code=problem.status, media_type=MEDIA_TYPE, headers=dict(headers))


def _shown(value: object) -> str:
    """What was got, short and printable, as JSON would spell it where it can."""
    if isinstance(value, bytes):
        text = value[:_SHOWN_CHARACTERS].decode("utf-8", "replace")
    else:
        try:
            text = json.dumps(value)
        except (TypeError, ValueError):
            text = ascii(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
