"""Whether a thing may be here. Deny is the default: what no rule allows is refused, with the rule named.

Belongs here: residency, agreement and licence rules as pure functions of a deployment's settings.
Does not belong here: who a caller is (api), or which rule a dataset has (catalog).
"""

from __future__ import annotations

from resources.errors import PolicyRefused
from resources.settings import Settings


def residency_refusal(settings: Settings, where: str, agreement: str | None, what: str) -> PolicyRefused | None:
    """Why `what` may not be materialized at this site, or None if it may.

    `where` is a spec's residency (`anywhere`, `holders`, `enclave:<site>`), `agreement` the one it requires.
    """
    if agreement is not None and agreement not in settings.agreements:
        return PolicyRefused(
            f"{what}: rule 'agreement' requires {agreement!r}, which is not on file here",
            remedy=f"file the agreement and add {agreement!r} to MEDVEC_AGREEMENTS",
        )
    if where == "anywhere" or (where == "holders" and agreement is not None):
        return None
    if where.startswith("enclave:") and settings.site == where.removeprefix("enclave:"):
        return None
    return PolicyRefused(
        f"{what}: rule 'residency' allows it only at {where!r}, and this site is {settings.site!r}",
        remedy="run it where it may be, or set MEDVEC_SITE if this is that place",
    )
