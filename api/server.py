"""Runs the service under uvicorn.

Belongs here: the process and its log format. Uvicorn's own access log is off, because it writes query strings; the
service writes its own line with the route's template (api.app). Does not belong here: the app.
"""

from __future__ import annotations

from typing import Any

from api.app import create_app
from api.exposure import uvicorn_options
from resources.settings import Settings

LOG_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        name: {"handlers": ["stderr"], "level": "INFO", "propagate": False} for name in ("medvec", "uvicorn.error")
    },
}


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raises ConfigError where others would reach the service unprotected."""
    import uvicorn

    uvicorn.run(
        create_app(settings),
        host=settings.api_host,
        port=settings.api_port,
        log_config=LOG_CONFIG,
        access_log=False,
        server_header=False,
        **uvicorn_options(settings),
    )
