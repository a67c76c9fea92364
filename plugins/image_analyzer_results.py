"""The Results view in Airflow's UI: the gallery, the last runs, and each run's report and contact sheet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Receive, Scope, Send

_PREFIX = "/image-analyzer"
# An API server may live below a path of its host; links of views are taken as they are.
_LINKS = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/") + _PREFIX
_DAG_ID = "caption_images"
_RUNS, _PICTURES = 20, 60
# Pages of ours need no script; the contact sheet lies in a bucket that others may write to.
_HEADERS = {
    "content-security-policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"
}


def make_app() -> FastAPI:
    """Build the pages. Who may see the DAG in Airflow may see them, by Airflow's own session."""
    from airflow.api_fastapi.core_api.security import requires_access_dag
    from fastapi import Depends, FastAPI, HTTPException
    from fastapi.responses import HTMLResponse, PlainTextResponse

    from image_analyzer.errors import ImageAnalyzerError
    from image_analyzer.steps import runpages
    from image_analyzer.wiring import make_work_area
    from image_analyzer_airflow import make_desk, make_settings, make_store, make_warehouse

    may_see = Depends(requires_access_dag("GET", param_dag_id=_DAG_ID))
    app = FastAPI(title="Smart Image Analyzer", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[may_see])

    @app.exception_handler(ImageAnalyzerError)
    def say(_request: Any, error: Exception) -> PlainTextResponse:
        return PlainTextResponse(str(error), 503, _HEADERS)

    @app.get("/results")
    def show_results() -> HTMLResponse:
        settings = make_settings()
        store, warehouse, desk = make_store(settings), make_warehouse(settings), make_desk(settings)
        page = runpages.render_results(store, warehouse, desk, runs=_RUNS, pictures=_PICTURES)
        return HTMLResponse(page, headers=_HEADERS)

    @app.get("/runs/{run_id}")
    def show_run(run_id: str) -> HTMLResponse:
        settings = make_settings()
        page = runpages.render_run(make_store(settings), make_work_area(settings), run_id)
        return HTMLResponse(page, headers=_HEADERS)

    @app.get("/runs/{run_id}/contact-sheet")
    def show_sheet(run_id: str) -> HTMLResponse:
        settings = make_settings()
        page = runpages.read_sheet(make_store(settings), make_work_area(settings), run_id)
        if page is None:
            raise HTTPException(404, f"run {run_id} has no contact sheet")
        return HTMLResponse(page, headers=_HEADERS)

    return app


class _WhenAsked:
    """Builds the app with the first request: plugins are loaded in every component, pages are served by one."""

    _app: FastAPI | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            self._app = make_app()
        await self._app(scope, receive, send)


class ImageAnalyzerPlugin(AirflowPlugin):
    """Adds the view to the menu, and a tab to each run."""

    name = "image_analyzer"
    fastapi_apps = [{"app": _WhenAsked(), "url_prefix": _PREFIX, "name": "Smart Image Analyzer"}]  # noqa: RUF012 - Airflow's form
    external_views = [  # noqa: RUF012
        {"name": "Results", "href": f"{_LINKS}/results", "destination": "nav", "url_route": "image_results"},
        {
            "name": "Results",
            "href": f"{_LINKS}/runs/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "image_results_of_run",
        },
    ]
