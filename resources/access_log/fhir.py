"""Events as FHIR R4 AuditEvent, by the patterns of IHE BALP (Basic Audit Log Patterns): Query and Read, each with and
without a patient.

Belongs here: the mapping. Does not belong here: choosing events (reading).

- A route with an id in its path is a Read, every other one a Query. What was asked stands as its keyed hash.
- BALP wants one AuditEvent for each patient of an answer: an event of which n subjects surfaced becomes n, with one event
  hash in their tags. A subject is its keyed pseudonym.
- The profiles are of successes: a refusal or failure follows the pattern, claims no profile and says its reason.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from resources.access_log.events import Line

Resource = dict[str, Any]
BUNDLE_ENTRIES = 1_000
_PROFILE = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
_DICOM = "http://dicom.nema.org/resources/ontology/DCM"
_ENTITY = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
_SOURCE, _DESTINATION = ("110153", "Source Role ID"), ("110152", "Destination Role ID")
_OUTCOMES = {"answered": "0", "refused": "4", "failed": "8"}


def bundles(lines: Iterable[Line]) -> Iterator[Resource]:
    """Every answer and refusal among `lines`, in Bundles of at most BUNDLE_ENTRIES."""
    entries = (
        {"fullUrl": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, one['id'])}", "resource": one}
        for line in lines
        if line.facts["kind"] == "answer"
        for one in audit_events(line)
    )
    while page := list(islice(entries, BUNDLE_ENTRIES)):
        yield {"resourceType": "Bundle", "type": "collection", "entry": page}


def audit_events(line: Line) -> list[Resource]:
    """One AuditEvent for each subject that surfaced, or one."""
    subjects = line.facts.get("subjects", [])
    named = f"{line.writer}-{line.sequence}"
    if not subjects:
        return [_audit_event(line, named, None)]
    return [_audit_event(line, f"{named}.{number}", subject) for number, subject in enumerate(subjects, 1)]


def _audit_event(line: Line, named: str, subject: str | None) -> Resource:
    facts = line.facts
    is_read = "{" in facts.get("route", "")
    answered = facts["outcome"] == "answered"
    profile = f"{_PROFILE}{'Patient' if subject else ''}{'Read' if is_read else 'Query'}"
    asked = facts.get("question") or facts["request"]
    return {
        "resourceType": "AuditEvent",
        "id": named,
        "meta": {
            **({"profile": [profile]} if answered else {}),
            "tag": [{"system": "urn:medvec:event-hash", "code": line.hash}],
        },
        "type": _coding("http://terminology.hl7.org/CodeSystem/audit-event-type", "rest", "Restful Operation"),
        "subtype": [_coding("http://hl7.org/fhir/restful-interaction", *(["read"] * 2 if is_read else ["search"] * 2))],
        "action": "R" if is_read else "E",
        "recorded": facts["at"],
        "outcome": _OUTCOMES[facts["outcome"]],
        "outcomeDesc": facts.get("reason") or f"{facts.get('results', 0)} results",
        "agent": _agents(line, is_read),
        "source": {
            "observer": _identified("urn:medvec:writer", line.writer),
            "type": [_coding("http://terminology.hl7.org/CodeSystem/security-source-type", "4", "Application Server")],
        },
        "entity": [
            _transaction(facts["correlation"]),
            _read_object(asked) if is_read else _query(asked),
            *(_dataset(name, facts.get("versions", {})) for name in facts.get("datasets", [])),
            *([_patient(subject)] if subject else []),
        ],
    }


def _agents(line: Line, is_read: bool) -> list[Resource]:
    """Client, server and, where known, the caller. Of a query the client is the source, of a read the server is."""
    facts = line.facts
    roles = (_DESTINATION, _SOURCE) if is_read else (_SOURCE, _DESTINATION)
    client, server = ({"coding": [_coding(_DICOM, *role)]} for role in roles)
    who = facts.get("who", "")
    agents: list[Resource] = [
        {
            "type": client,
            "who": _identified("urn:medvec:key", facts.get("key_id") or who or "unknown"),
            "requestor": not who,
            "network": {"address": facts.get("client") or "unknown", "type": "2"},
        },
        {
            "type": server,
            "who": _identified("urn:medvec:writer", line.writer),
            "requestor": False,
            "network": {"address": facts["route"], "type": "5"},
        },
    ]
    if who:
        participation = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
        agents.append(
            {
                "type": {"coding": [_coding(participation, "IRCP", "information recipient")]},
                "who": _identified("urn:medvec:caller", who),
                "name": who,
                "requestor": True,
                **_codes("role", "urn:medvec:role", facts.get("roles", [])),
                **_codes("purposeOfUse", "http://terminology.hl7.org/CodeSystem/v3-ActReason", [facts.get("purpose")]),
            }
        )
    return agents


def _transaction(correlation: str) -> Resource:
    kind = _coding("https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType", "XrequestId")
    return {"type": kind, "what": {"identifier": {"value": correlation}}}


def _query(asked: str) -> Resource:
    return {
        "type": _coding(_ENTITY, "2", "System Object"),
        "role": _coding(_ROLE, "24", "Query"),
        "query": base64.b64encode(f"hmac-sha256:{asked}".encode()).decode(),
    }


def _read_object(asked: str) -> Resource:
    return {
        "type": _coding(_ENTITY, "2", "System Object"),
        "role": _coding(_ROLE, "4", "Domain Resource"),
        "what": _identified("urn:medvec:hmac-sha256", asked),
    }


def _dataset(name: str, versions: dict[str, int]) -> Resource:
    """Of a type of its own: BALP tells its entities apart by type."""
    detail = [
        {"type": "delta_version", "valueString": f"{space}@{version}"}
        for space, version in versions.items()
        if space.partition("/")[0] == name
    ]
    return {
        "type": _coding("urn:medvec:entity-type", "dataset"),
        "what": _identified("urn:medvec:dataset", name),
        **({"detail": detail} if detail else {}),
    }


def _patient(subject: str) -> Resource:
    return {
        "type": _coding(_ENTITY, "1", "Person"),
        "role": _coding(_ROLE, "1", "Patient"),
        "what": {"type": "Patient", **_identified("urn:medvec:subject", subject)},
    }


def _identified(system: str, value: str) -> Resource:
    return {"identifier": {"system": system, "value": value}}


def _coding(system: str, code: str, display: str = "") -> Resource:
    return {"system": system, "code": code, **({"display": display} if display else {})}


def _codes(field: str, system: str, codes: Iterable[str | None]) -> Resource:
    """A field of concepts; no field where there are none, as FHIR has no empty lists."""
    concepts = [{"coding": [_coding(system, code)]} for code in codes if code]
    return {field: concepts} if concepts else {}
