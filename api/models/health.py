"""Bodies of the health routes. Belongs here: alive, ready. Does not belong here: what is looked at (service)."""

from __future__ import annotations

from pydantic import BaseModel


class Alive(BaseModel):
    alive: bool = True


class Ready(BaseModel):
    ready: bool = True
