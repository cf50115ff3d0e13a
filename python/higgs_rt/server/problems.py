"""Errors as clients of the OpenAI API expect them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from higgs_rt.errors import AudioError, HiggsError, InvalidRequestError, QueueFullError, VoiceError

logger = logging.getLogger("higgs_rt.server")


class Problem(HTTPException):
    """A request that gets an error for an answer."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """retry_after: seconds."""
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after


class ErrorDetail(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorDetail


# For the OpenAPI document.
RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The request is wrong; the message names the field."},
    401: {"model": ErrorBody, "description": "No valid API key."},
    403: {"model": ErrorBody, "description": "Not permitted here."},
    404: {"model": ErrorBody, "description": "No such model, voice or request."},
    408: {"model": ErrorBody, "description": "The request came too slowly."},
    413: {"model": ErrorBody, "description": "The request is too large."},
    415: {"model": ErrorBody, "description": "Another content type is expected."},
    429: {"model": ErrorBody, "description": "Too many requests; Retry-After says when to return."},
    503: {"model": ErrorBody, "description": "All places are taken; Retry-After says when."},
}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def problem_of(error: BaseException) -> Problem:
    """What to answer for an error."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, QueueFullError):
        return Problem(503, "all places in the queue are taken", "queue_full", retry_after=1)
    if isinstance(error, VoiceError | AudioError | InvalidRequestError):
        return Problem(400, str(error), "invalid_value", _param(str(error)))
    if isinstance(error, HTTPException):
        return Problem(error.status_code, str(error.detail))
    if isinstance(error, HiggsError) and "shut" in str(error):
        return Problem(503, "the server is shutting down", "shutting_down", retry_after=5)
    logger.error("request failed", exc_info=error)
    return Problem(500, "the server failed; its log says why", "internal_error")


def is_fault(error: BaseException) -> bool:
    """Whether this server is to blame: neither the request, nor its limits, nor its end."""
    if isinstance(error, VoiceError | AudioError | InvalidRequestError | QueueFullError):
        return False
    if isinstance(error, HTTPException | OSError | asyncio.TimeoutError):
        return False
    return not (isinstance(error, HiggsError) and "shut" in str(error))


def _param(message: str) -> str | None:
    """The field that a message of the runtime names: "[seed] expected …"."""
    if message.startswith("[") and "]" in message:
        return message[1 : message.index("]")].split()[0].rstrip(",")
    return None


def body_of(problem: Problem) -> dict[str, Any]:
    """The JSON of an error."""
    kind = _TYPES.get(problem.status)
    kind = kind or ("server_error" if problem.status >= 500 else "invalid_request_error")
    return {
        "error": {
            "message": problem.message,
            "type": kind,
            "param": problem.param,
            "code": problem.code,
        }
    }


def response_of(problem: Problem) -> Response:
    """The response of an error."""
    headers = {}
    if problem.retry_after is not None:
        headers["Retry-After"] = str(problem.retry_after)
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body_of(problem), problem.status, headers)


def validation_problem(error: RequestValidationError) -> Problem:
    """The first thing that is wrong with a body."""
    first = error.errors()[0]
    place = [str(part) for part in first.get("loc", ()) if part not in ("body", "query", "path")]
    message = str(first.get("msg", "is not valid"))
    where = ".".join(place)
    return Problem(400, f"[{where or 'body'}] {message}", "invalid_value", where or None)


def install(app: FastAPI) -> None:
    """Answer every exception of an endpoint in this form."""

    async def handle(_: Request, error: Exception) -> Response:
        if isinstance(error, RequestValidationError):
            return response_of(validation_problem(error))
        response = response_of(problem_of(error))
        if isinstance(error, HTTPException) and error.headers:
            response.headers.update(error.headers)
        return response

    for kind in (Problem, HiggsError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, handle)
