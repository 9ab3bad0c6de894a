"""The endpoints, a module a subject. Each signature shows who may call; what blocks is a plain `def`, run in a thread.

Belongs here: one short function per route. Does not belong here: logic (medvec_assets.query), error shapes (problems).
"""

from __future__ import annotations

from api.routes import assistants, cohorts, datasets, health, lineage, metrics, page, pictures, replay, search

ROUTERS = (
    search.router,  # first, for a path is compared with one route after the other
    health.router,
    metrics.router,
    lineage.router,
    replay.router,
    datasets.router,
    cohorts.router,
    pictures.router,
    assistants.router,
    page.router,
)
