"""Whether a thing may be here. Deny is the default: what no rule allows is refused, with the rule named.

Belongs here: residency, agreement and egress rules as pure functions of a deployment's settings and the day.
Does not belong here: who a caller is (api), which rule a dataset has (catalog), recording a refusal (stages.context).

    agreement   the one that the dataset requires is on file
    scope       it covers this dataset
    expiry      it is valid today
    residency   this site is where the dataset's vectors may be
    egress      lake and index are at this site: a vector that may not leave is never sent
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from urllib.parse import urlsplit

from resources.errors import PolicyRefused
from resources.settings import Agreement, Settings

_HERE = frozenset({"localhost", "127.0.0.1", "::1"})
_ENCLAVE = "enclave:"


@dataclass(frozen=True)
class Terms:
    """What a dataset demands. `where`: `anywhere`, `holders` (of `agreement`) or `enclave:<site>`."""

    dataset: str
    where: str
    agreement: str | None


def refusal(settings: Settings, terms: Terms, today: date) -> PolicyRefused | None:
    """Why the dataset of `terms` may not be worked on, kept or shown here on that day, or None if it may."""
    if terms.agreement is not None:
        found = _agreement_refusal(settings, terms, terms.agreement, today)
        if found is not None:
            return found
    if terms.where == "anywhere" or (terms.where == "holders" and terms.agreement is not None):
        return None
    if not terms.where.startswith(_ENCLAVE) or settings.site != terms.where.removeprefix(_ENCLAVE):
        return PolicyRefused(
            f"dataset {terms.dataset}: rule 'residency' allows it only at {terms.where!r}, and this site is {settings.site!r}",
            remedy="run it where it may be, or set MEDVEC_SITE if this is that place",
            rule="residency",
        )
    return _egress_refusal(settings, terms)


def agreement_of(settings: Settings, terms: Terms) -> Agreement | None:
    """The agreement on file that covers the dataset and is valid the longest; None without one, or if none is needed."""
    covering = [one for one in settings.agreements if one.id == terms.agreement and terms.dataset in one.datasets]
    return max(covering, key=lambda one: one.expires, default=None)


def _agreement_refusal(settings: Settings, terms: Terms, needed: str, today: date) -> PolicyRefused | None:
    what = f"dataset {terms.dataset}"
    if all(one.id != needed for one in settings.agreements):
        return PolicyRefused(
            f"{what}: rule 'agreement' requires {needed!r}, which is not on file here",
            remedy=f"conclude it with the source, then add it to MEDVEC_AGREEMENTS with id {needed!r}",
            rule="agreement",
        )
    agreement = agreement_of(settings, terms)
    if agreement is None:
        return PolicyRefused(
            f"{what}: rule 'scope' requires that agreement {needed!r} covers it, and it does not name it",
            remedy="if the agreement does cover it, add the dataset to its entry in MEDVEC_AGREEMENTS",
            rule="scope",
        )
    if agreement.expires < today:
        return PolicyRefused(
            f"{what}: rule 'expiry': agreement {needed!r} ended on {agreement.expires}",
            remedy="renew it with the source and correct its entry in MEDVEC_AGREEMENTS, or remove the dataset from here",
            rule="expiry",
        )
    return None


def _egress_refusal(settings: Settings, terms: Terms) -> PolicyRefused | None:
    for variable, uri in (("MEDVEC_LAKE_URI", settings.lake), ("MEDVEC_INDEX_URI", settings.index)):
        parts = urlsplit(uri)
        if parts.scheme in ("", "file") or parts.hostname in _HERE | settings.site_hosts:
            continue
        return PolicyRefused(
            f"dataset {terms.dataset}: rule 'egress' keeps its vectors at {terms.where!r}, and {variable} names "
            f"{parts.hostname!r}",
            remedy=f"use a folder, or name the host in MEDVEC_SITE_HOSTS if it stands at {settings.site!r}",
            rule="egress",
        )
    return None
