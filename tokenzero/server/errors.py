"""Whatever goes wrong, as the OpenAI API says it: ``{"error": {"message", "type", "param", "code"}}``.

An error that nobody foresaw is a 503 with a line in the log, never a 500; it says nothing of the inside.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from difflib import get_close_matches
from itertools import takewhile
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from tokenzero.mcts.errors import InputError

log = logging.getLogger("tokenzero.server")
LONGEST_MESSAGE = 500
_FIELD = re.compile(r"[a-z0-9_]+")


class ApiError(Exception):
    """A refusal: its HTTP ``status`` and what the client is told. ``param`` names the field at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The JSON object of the answer."""
        if self.status == 429:
            kind = "rate_limit_error"
        else:
            kind = "server_error" if self.status >= 500 else "invalid_request_error"
        text = self.message.encode(
            "utf-8", "replace"
        ).decode()  # a client may have sent half a surrogate pair
        text = text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE] + "..."
        return {"error": {"message": text, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The answer itself."""
        return JSONResponse(self.body(), self.status, self.headers)


def refused(message: str, param: str | None = None) -> ApiError:
    """400: the request cannot be served as it is."""
    return ApiError(400, message, param=param)


def unavailable(message: str, retry_after: int) -> ApiError:
    """503: not now; the client may ask again after so many seconds."""
    return ApiError(503, message, code="unavailable", headers={"Retry-After": str(retry_after)})


def failed(error: BaseException, doing: str) -> ApiError:
    """503 for a failure that nobody foresaw, which goes to the log with its traceback."""
    log.error("%s failed", doing, exc_info=error)
    return unavailable(f"{doing} failed ({type(error).__name__}); the server's log has more, try again", 1)


def as_api_error(error: BaseException, doing: str = "the request") -> ApiError:
    """Any exception as what a client is told."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, InputError):
        return refused(str(error))
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail), headers=error.headers)
    return failed(error, doing)


def _invalid(error: RequestValidationError) -> ApiError:
    """The first complaint of pydantic in one line. What was sent is not repeated: it may be anything."""
    first: dict[str, Any] = dict(error.errors()[0])
    path = [str(part) for part in first["loc"] if part != "body"]
    path = list(takewhile(_FIELD.fullmatch, path))  # beyond it stand pydantic's own names of alternatives
    kind, message = first["type"], str(first["msg"]).removeprefix("Value error, ")
    if kind == "json_invalid":
        return refused(f"the body is no valid JSON: {first['ctx']['error']} at byte {first['loc'][-1]}")
    param = ".".join(path) or None
    if kind == "extra_forbidden":
        return refused(f"there is no parameter {str(first['loc'][-1])!r} here; leave it out", param)
    return refused(f"{param}: {message}" if param else message, param)


def nearest(word: str, known: list[str]) -> str:
    """A hint after an unknown word."""
    near = get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def install(app: FastAPI) -> None:
    """Make every refusal of ``app`` look alike."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return as_api_error(error).response()

    for kind in (ApiError, InputError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)
