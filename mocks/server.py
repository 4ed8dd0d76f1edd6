"""The routes of a mock EHR. oauth, capability, search and bulk answer them; the manners have the vendors' differences."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mocks import bulk, bulk_files, capability, oauth, search
from mocks.answers import Refused
from mocks.dataset import Dataset
from mocks.ehr import STORE_PATH, Ehr
from mocks.gate import Gate
from mocks.mock_config import MockConfig


def load_dataset(config: MockConfig) -> Dataset:
    """Read the configured data, or make synthetic patients. Raises DataError."""
    if config.data is not None:
        return Dataset.load(config.data)
    from mocks.synthetic import generate
    from mocks.synthetic.documents import with_documents

    resources = generate(config.patients, config.seed)
    return Dataset.load(with_documents(resources) if config.documents else resources)


def create_app(config: MockConfig, clock: Callable[[], float] = time.time) -> Starlette:
    """Make the ASGI app of one mock EHR; `app.state.ehr` is its state. Raises DataError.

    Absolute URLs in answers need `ehr.set_origins`, which serving calls.
    """
    ehr = Ehr(config, load_dataset(config), clock)
    layout, base = ehr.layout, ehr.layout.base
    status_path = layout.status.partition("?")[0]
    routes = [
        Route(f"{base}/.well-known/smart-configuration", capability.smart_configuration),
        Route(f"{base}/metadata", capability.metadata),
        Route(status_path, bulk.status, methods=["GET", "DELETE"]),
        Route(layout.file, bulk_files.file),
        Route(STORE_PATH + "{key}", bulk_files.stored_object),
        Route(f"{base}/$export", bulk.kickoff, methods=["GET", "POST"]),
        Route(f"{base}/{{kind}}/$export", bulk.kickoff, methods=["GET", "POST"]),
        Route(f"{base}/{{kind}}/{{id}}/$export", bulk.kickoff, methods=["GET", "POST"]),
        Route(f"{base}/{{kind}}/_search", search.search, methods=["POST"]),
        Route(f"{base}/{{kind}}", search.search),
        Route(f"{base}/{{kind}}/{{id}}", search.read),
        *([Route(base, search.server_page)] if ehr.manner.paging == "server" else []),
        Route("/{path:path}", _unknown, methods=["GET", "POST", "PUT", "DELETE"]),
    ]
    if not config.open:
        routes.insert(0, Route(layout.token, oauth.token_endpoint, methods=["GET", "POST"]))
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Gate, ehr=ehr)],
        exception_handlers={Refused: _refused},
    )
    app.router.redirect_slashes = False
    app.state.ehr = ehr
    return app


async def _unknown(request: Request) -> Response:
    ehr: Ehr = request.app.state.ehr
    return ehr.manner.unknown_path()


async def _refused(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refused)
    request.scope["log_entry"].note = refusal.note
    return refusal.response
