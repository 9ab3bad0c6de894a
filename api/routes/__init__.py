"""The endpoints, a module a subject. Each signature shows who may call; what blocks is a plain `def`, run in the thread pool.

Belongs here: one short function per route. Does not belong here: logic (medvec_assets.query), error shapes (problems).
"""

from __future__ import annotations

from api.routes import datasets, health, lineage, metrics, search

ROUTERS = (health.router, metrics.router, search.router, lineage.router, datasets.router)
