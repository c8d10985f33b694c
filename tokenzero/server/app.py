"""The application: an opened model behind its routes, with its middleware around them.

It opens no sockets (see ``process``) and answers nothing itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.responses import HTMLResponse, JSONResponse, Response

from tokenzero import __version__
from tokenzero.checkpoint import Opened
from tokenzero.server import chat, completions, tokenization
from tokenzero.server.asking import Gone
from tokenzero.server.auth import Keys
from tokenzero.server.config import ServeConfig
from tokenzero.server.errors import install, unavailable
from tokenzero.server.limits import BodyLimit
from tokenzero.server.metrics import GONE, Metrics, Watch
from tokenzero.server.service import Service


class ErrorDetail(BaseModel):
    """What went wrong; ``param`` names the field at fault."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every refusal."""

    error: ErrorDetail


_REFUSALS = {
    400: "The request is not understood or asks for what the model cannot do",
    401: "No API key, or a wrong one",
    404: "Another model's name",
    413: "The body is too large",
    429: "The queue is full",
    503: "Not now",
}
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorBody, "description": text} for code, text in _REFUSALS.items()
}


def create_app(opened: Opened, config: ServeConfig | None = None) -> FastAPI:
    """The application of an opened model, which it owns while it runs. ``app.state.service`` holds the rest.

    The conductor's thread begins and ends with the application's lifespan.
    """
    service = Service(opened, config or ServeConfig())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.conductor.start()
        yield
        service.conductor.close()

    app = FastAPI(title="tokenzero", version=__version__, lifespan=lifespan)
    app.state.service = service
    for routes in (completions.routes, chat.routes, tokenization.routes, _other_routes):
        app.include_router(routes(service, DOCUMENTED))
    install(app)

    @app.exception_handler(Gone)
    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=GONE)

    # The last one added is the outermost.
    app.add_middleware(BodyLimit, most=service.config.body_bytes)
    if service.config.api_keys:
        app.add_middleware(Keys, keys=service.config.api_keys)
    app.add_middleware(Watch, metrics=service.metrics)
    app.openapi = lambda: _schema(app)  # type: ignore[method-assign]
    return app


def _schema(app: FastAPI) -> dict[str, Any]:
    """FastAPI's, without its own shape of a 422: here a body that is not understood is a 400."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        for path in schema["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
        app.openapi_schema = schema
    return app.openapi_schema


def _other_routes(service: Service, documented: dict[int | str, dict[str, Any]]) -> APIRouter:
    """Models, health, metrics and trees."""
    router = APIRouter()
    metrics: Metrics = service.metrics

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [_model(service)]}

    @router.get("/v1/models/{name:path}", responses={404: documented[404]})
    async def model(name: str) -> dict[str, Any]:
        """A model by its name."""
        service.check_model(name)
        return _model(service)

    @router.get("/health", responses={503: documented[503]})
    async def health() -> dict[str, Any]:
        """Whether the model answers."""
        if not service.conductor.alive:
            raise unavailable("the server is stopping", 5)
        return {"status": "ok"}

    @router.get("/metrics", response_class=Response)
    async def prometheus() -> Response:
        """What Prometheus reads."""
        return Response(metrics.page(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/trees/{name}", response_class=HTMLResponse, responses={404: documented[404]})
    def tree(name: str) -> HTMLResponse:
        """A search tree to look at."""
        return HTMLResponse(service.trees.page(name))

    @router.get("/trees/{name}/json", responses={404: documented[404]})
    def tree_document(name: str) -> JSONResponse:
        """The same tree as data, for ``tokenzero view``."""
        return JSONResponse(service.trees.document(name))

    return router


def _model(service: Service) -> dict[str, Any]:
    return {
        "id": service.name,
        "object": "model",
        "created": service.created,
        "owned_by": "tokenzero",
        "max_model_len": service.room,
        "task": service.opened.parts.task.name,
        "search": {
            "method": service.opened.search.method,
            "simulations": service.opened.search.simulations,
            "tokens": service.opened.search.tokens,
        },
    }
