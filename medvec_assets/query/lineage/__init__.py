"""The way of one vector: as an object, and in the forms that others read.

    chain        walks gold -> silver -> bronze -> audit
    prov         W3C PROV-JSON
    openlineage  OpenLineage run events
    picture      the chain drawn, as SVG
    page         the picture and the facts as one HTML page

Belongs here: reading and telling one chain. Does not belong here: checking all of them (lineage_audit), HTTP.
"""

from medvec_assets.query.lineage.chain import VECTOR_ID, Traced, lineage, trace

__all__ = ["VECTOR_ID", "Traced", "lineage", "trace"]
