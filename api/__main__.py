"""`python -m api`: the service on MEDVEC_API_HOST and MEDVEC_API_PORT."""

from __future__ import annotations

from api.server import serve
from resources.settings import Settings

if __name__ == "__main__":
    serve(Settings())
