"""Runs the service under uvicorn, in one process or several.

Belongs here: the processes and their log format. Uvicorn's own access log is off, because it writes query strings; the
service writes its own line with the route's template (api.app). Does not belong here: the app.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

from fastapi import FastAPI

from api.app import create_app
from api.exposure import uvicorn_options
from resources.settings import Settings

GRACE_SECONDS = 20  # what is at work when the end comes gets so long to finish


def log_config(log_format: str) -> dict[str, Any]:
    """Lines for people, or JSON in the Elastic Common Schema; never a path, a query or a question."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"},
            "ecs": {"()": "ecs_logging.StdlibFormatter", "exclude_fields": ["log.original", "process"]},
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": log_format}},
        "loggers": {
            name: {"handlers": ["stderr"], "level": "INFO", "propagate": False} for name in ("medvec", "uvicorn.error")
        },
    }


def application() -> FastAPI:
    """The app of a worker, which reads its settings from the environment as its parent did."""
    return create_app(Settings())


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raises ConfigError where others would reach the service unprotected."""
    import uvicorn

    app = create_app(settings)  # refuses wrong settings here, not in each worker
    with tempfile.TemporaryDirectory(prefix="medvec-metrics-") as shared:
        if settings.api_workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
        uvicorn.run(
            app if settings.api_workers == 1 else "api.server:application",
            factory=settings.api_workers > 1,
            workers=settings.api_workers,
            host=settings.api_host,
            port=settings.api_port,
            log_config=log_config(settings.log_format),
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            **uvicorn_options(settings),
        )
