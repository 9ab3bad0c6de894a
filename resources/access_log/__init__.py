"""The access log as evidence: who was answered what, kept so that no later change goes unseen.

    keys       one secret, three keys: chain, question, seal
    events     one event, and the line that it becomes
    places     the folder of a writer's segments, its lock and its head record
    writer     one process' chain: one thread, one sync for all who wait
    unsealed   how much of a chain is not sealed yet
    keeping    the log of a running service: when it is sealed
    sealing    closed segments go, signed, to Delta `audit/access`
    chains     what is wrong with the lines of one segment
    verifying  every changed, missing, reordered event or segment, and a cut tail
    reading    events back, from lake and folder together
    fhir       events as FHIR R4 AuditEvent (IHE BALP)
    alerts     a caller who walks through a dataset

Belongs here: the log as such. Does not belong here: HTTP (api.recording), what a route looked at (api.access).
"""

from resources.access_log.events import Event, Receipt
from resources.access_log.keys import Keys
from resources.access_log.writer import Writer

__all__ = ["Event", "Keys", "Receipt", "Writer"]
