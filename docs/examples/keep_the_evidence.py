"""Keep what a regulator asks for: the best hit's lineage as W3C PROV-JSON, and the same answer from the versions of then.

python docs/examples/keep_the_evidence.py http://127.0.0.1:8087 "brain MR" lineage.json      (key: MEDVEC_KEY)
"""

import os
import sys
from pathlib import Path

from api.client import Client

url, question, file = sys.argv[1:]
with Client(url, os.environ["MEDVEC_KEY"], purpose="HOPERAT") as medvec:
    found = medvec.search(question, limit=1, explain=True)
    best = found.hits[0]
    Path(file).write_text(medvec.lineage_as(best.vector_id, "prov"))
    assert found.explain is not None  # it was asked for
    as_of = {f"{one.dataset}/{one.space}": one.delta_version for one in found.explain.collections}
    again = medvec.replay(text=question, as_of=as_of, limit=1)
    print(f"{best.record_id} then, {again.hits[0].record_id} again at {again.versions}")
