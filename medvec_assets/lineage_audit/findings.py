"""A broken link, and the ledger that counts all of them and names as many as a reader can use.

Belongs here: the rules' names, sentences and remedies. Does not belong here: how a rule is checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_NAMED = 1_000  # of one rule in one dataset; the count stays exact


@dataclass(frozen=True)
class Rule:
    """`link` is the place in the chain; `says` what holds where nothing is broken."""

    link: str
    says: str
    remedy: str


_EMBED = "materialize the embeddings of this partition again; if it stays, report it"
_RECORDS = "materialize the records of this partition again, then its embeddings and vectors"
_REPAIR = "find out who wrote to the table beside medvec, then {}"

RULES = {
    "vector_id": Rule("embedding", "the id is that of its dataset, space, record and part", _EMBED),
    "fingerprint": Rule("embedding", "the fingerprint is that of content, preprocessing, encoder and weights", _EMBED),
    "weights": Rule(
        "embedding",
        "the weights' digest is the encoder's",
        "point MEDVEC_WEIGHTS at the weights it was made with, or raise the encoder's version and run",
    ),
    "vector_valid": Rule("embedding", "the vector has the encoder's dimension, unit norm and only numbers", _EMBED),
    "vector_shared": Rule("embedding", "equal fingerprints have equal vectors", _EMBED),
    "vector_exists": Rule("embedding", "a record with an input has a vector, or is in quarantine", _EMBED),
    "record_exists": Rule("record", "the vector's record exists in the same partition", _EMBED),
    "record_copied": Rule("record", "the columns that the vector's row repeats are the record's", _RECORDS),
    "content_digest": Rule("record", "the record's digest of the model input is the vector's", _RECORDS),
    "record_text": Rule("record", "the digest is that of the record's text", _RECORDS),
    "suppressed": Rule("record", "no record of a suppressed subject is left", "medvec run --all, then medvec sync"),
    "license": Rule("record", "the licence is one of the source objects' and the spec allows it", _RECORDS),
    "payload_whole": Rule(
        "record",
        "the record's de-identified payload is in the lake and is what its name says",
        "restore it from the lake's backup; a run that needs it for a vector makes it again from the source",
    ),
    "object_listed": Rule("object", "every source object is in the manifest, in the record's partition", _RECORDS),
    "object_published": Rule("object", "the source still publishes the object", _RECORDS),
    "release": Rule("release", "the object names the upstream release it comes from", "refresh the manifest"),
    "object_readable": Rule(
        "object", "the source object can be read", "restore the object at the source, or refresh the manifest"
    ),
    "object_bytes": Rule(
        "object",
        "the bytes have the checksum of the manifest",
        "restore the object from the source; if the source changed it, refresh the manifest and run",
    ),
    "rows_recorded": Rule(
        "audit", "the rows are those whose digest the audit recorded", _REPAIR.format("run medvec run --all")
    ),
    "audit_chain": Rule(
        "audit",
        "the hash chain of audit/materializations is whole",
        "restore the table's version of before the change (Delta history), and find out who wrote to it",
    ),
    "entity_indexed": Rule("index", "the index holds the vector's content", "medvec sync --full"),
    "entity_fields": Rule("index", "the entity's fields are those that gold gives", "medvec sync --full"),
    "entity_extra": Rule("index", "the index holds nothing that gold does not", "medvec sync --full"),
    "entity_vector": Rule("index", "the index holds the same floats as gold", "medvec sync --vectors"),
    "record_again": Rule("record", "the source objects give the same record again", _RECORDS),
    "vector_again": Rule(
        "embedding",
        "the source objects and the encoder give the same vector again",
        "delete the row's partition from gold and materialize it again: a known fingerprint is not computed again",
    ),
}


@dataclass(frozen=True, order=True)
class Broken:
    """One link that does not hold. `object` is an id: of a vector, a record, a source object, a chain or an entity."""

    dataset: str
    rule: str
    object: str
    space: str = "-"
    partition: str = "-"
    detail: str = ""

    @property
    def link(self) -> str:
        return RULES[self.rule].link

    @property
    def remedy(self) -> str:
        return RULES[self.rule].remedy


@dataclass
class Ledger:
    """The broken links of one dataset: all are counted, MAX_NAMED of each rule kept."""

    dataset: str
    counts: Counter[str] = field(default_factory=Counter)
    named: list[Broken] = field(default_factory=list)

    def add(
        self, rule: str, objects: Iterable[str], *, space: str = "-", partition: str = "-", detail: str = ""
    ) -> None:
        for name in objects:
            self.counts[rule] += 1
            if self.counts[rule] <= MAX_NAMED:
                self.named.append(Broken(self.dataset, rule, name, space, partition, detail))

    @property
    def total(self) -> int:
        return self.counts.total()
