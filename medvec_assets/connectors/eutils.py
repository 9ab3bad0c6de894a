"""NCBI's E-utilities: search, summaries and records of its databases. A helper of connectors, not one itself.

Belongs here: requests, paging through the history server, what its failures look like, where a source's URI names the
service. Does not belong here: what a database's records mean (geo_series, sra_runs), files (resources.http_source).

NCBI allows 3 requests a second, 10 with a key (book NBK25497). Everything is sent as POST form fields: a key in a URL would
stand in logs. Many failures come with status 200: `<ERROR>` where a history has expired, an HTML page where the service
is being worked on. A wrong key comes with status 400, as a wrong parameter does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from resources.errors import ConfigError, ObjectRejected, SourceError, SourceUnavailable
from resources.http_source import HttpSource
from resources.settings import Settings

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

CREDENTIAL = "ncbi"  # of MEDVEC_CREDENTIALS: one key serves all of NCBI's databases
TOOL = "medvec"
PAGE_IDS = 500  # what NCBI asks batches to be; a page of SRA's XML is then about 5 MB
HISTORY_ATTEMPTS = 3  # searches of one listing: a history lives for hours, but not through a restart at NCBI
REQUESTS_PER_SECOND, WITH_KEY = 3.0, 10.0
MAX_PAGE_BYTES = 128 << 20  # 60 times an ordinary page: a bound on memory, not an expectation
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_NO_RECORDS = ("empty result", "cannot get document summary", "empty id list")
_HISTORY_GONE = ("unable to obtain query", "webenv", "query_key")


@dataclass(frozen=True)
class Place:
    """Where a source's URI says that a service is, and what of it is wanted."""

    base_url: str
    wanted: tuple[str, ...]
    """The accessions that are listed, in the order and spelling of the URI, upper case."""
    files: str
    """Where the files are, or "" for the connector's own default."""


def place(uri: str, names: str, files: str) -> Place:
    """`https://eutils.ncbi.nlm.nih.gov/entrez/eutils?series=GSE1,GSE2&files=https://...`: `names` and `files` are the
    query's two keys. Raises ConfigError; plain http is only for a stand-in on this machine, as a key is sent."""
    parts = urlsplit(uri)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise ConfigError(f"{parts.hostname} is asked by plain http", remedy="write https:// in MEDVEC_SOURCES")
    query = parse_qs(parts.query)
    wanted = tuple(dict.fromkeys(one.strip().upper() for given in query.get(names, []) for one in given.split(",")))
    if not all(one.isalnum() for one in wanted) or not wanted or query.keys() - {names, files}:
        raise ConfigError(
            f"the source at {parts.hostname} must name what is wanted of it, and nothing else",
            remedy=f"write {parts.scheme}://{parts.netloc}{parts.path}?{names}=ACCESSION,ACCESSION in MEDVEC_SOURCES"
            f" (and &{files}=PLACE if the files are not at NCBI)",
        )
    return Place(f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/"), wanted, query.get(files, [""])[0])


@dataclass(frozen=True)
class Search:
    """The answer to a search: how many records, and the words that NCBI did not know."""

    count: int
    unknown: tuple[str, ...]
    web_env: str
    query_key: str


class Eutils:
    """One deployment's access to E-utilities; safe to share between threads."""

    def __init__(self, base_url: str, settings: Settings) -> None:
        """The credential `ncbi` is a key, or `email:key`; either half may be left out."""
        secret = settings.credentials.get(CREDENTIAL)
        given = secret.get_secret_value() if secret else ""
        email, _, key = given.rpartition(":") if ":" in given else ("", "", given)
        if "@" in key:
            email, key = key, ""
        self._has_key = bool(key)
        self._identity = {"tool": TOOL, **({"email": email} if email else {}), **({"api_key": key} if key else {})}
        pace = WITH_KEY if key else REQUESTS_PER_SECOND
        self._service = HttpSource(base_url, requests_per_second=pace, credential=CREDENTIAL)

    def search(self, database: str, term: str) -> Search:
        """`term` in NCBI's query language; the records are kept by its history server for `records`."""
        root = _root(self._post("esearch.fcgi", db=database, term=term, usehistory="y", retmax="0"), "eSearchResult")
        unknown = tuple(found.text or "" for found in root.iterfind("ErrorList/PhraseNotFound"))
        count = _text(root, "Count")
        if not count.isdecimal():
            raise _drift("its search tells no count")
        return Search(int(count), unknown, _text(root, "WebEnv"), _text(root, "QueryKey"))

    def records(self, database: str, term: str, utility: str, **form: str) -> Iterator[str]:
        """Every record that `term` finds, as the text answers of `utility` (`efetch`, `esummary`) a page at a time.

        An expired history is searched anew, and read on from the page that was missing; if the number of records has
        changed in between, SourceUnavailable: pages of two states would be mixed.
        """
        found = self.search(database, term)
        start, searches = 0, 1
        while start < found.count:
            try:
                page = self._post(
                    f"{utility}.fcgi",
                    db=database,
                    WebEnv=found.web_env,
                    query_key=found.query_key,
                    retstart=str(start),
                    retmax=str(PAGE_IDS),
                    **form,
                )
                _refuse_error(page)
            except _HistoryGone:
                if searches == HISTORY_ATTEMPTS:
                    raise SourceUnavailable(
                        f"NCBI forgot a search of {database} {searches} times", remedy="run again later"
                    ) from None
                count, searches = found.count, searches + 1
                found = self.search(database, term)
                if found.count != count:
                    raise SourceUnavailable(
                        f"a search of {database} gave {count} records, and then {found.count}: it changed meanwhile",
                        remedy="run again; nothing that was read is lost",
                    ) from None
                continue
            yield page
            start += PAGE_IDS

    def _post(self, path: str, **form: str) -> str:
        try:
            data = self._service.bytes(path, max_bytes=MAX_PAGE_BYTES, form={**form, **self._identity})
        except SourceError as refusal:
            if refusal.code == "request_refused" and self._has_key and path != "einfo.fcgi":
                self._prove_key(refusal)
            raise
        except ObjectRejected as refusal:  # no object's fault: the service itself is not there
            raise SourceError(
                "there are no E-utilities at the source's URI", remedy="correct it in MEDVEC_SOURCES", code=refusal.code
            ) from None
        return data.decode("utf-8", "replace")

    def _prove_key(self, refusal: SourceError) -> None:
        """Told apart by the one request that cannot be wrong in itself: if it is refused too, the key is."""
        try:
            self._post("einfo.fcgi")
        except SourceError:
            raise SourceError(
                "NCBI refuses the API key: it is wrong, or was revoked",
                remedy=f'make a new one in the account\'s settings at NCBI: MEDVEC_CREDENTIALS=\'{{"{CREDENTIAL}": "..."}}\'',
                code="credentials_refused",
            ) from refusal


class _HistoryGone(Exception):
    """The history server does not know the search any more."""


def parsed(text: str) -> Element:
    """XML of NCBI by a parser that expands no entity and fetches nothing. SourceError `schema_drift` if it is none."""
    import defusedxml.ElementTree as safe
    from defusedxml import DefusedXmlException

    try:
        root: Element = safe.fromstring(text)
    except (safe.ParseError, DefusedXmlException, ValueError):
        raise _drift("it answered with something that is not plain XML") from None
    return root


def _root(text: str, tag: str) -> Element:
    _refuse_error(text)
    root = parsed(text)
    if root.tag != tag:
        raise _drift(f"it answered with <{root.tag}> where <{tag}> was asked for")
    return root


def _refuse_error(page: str) -> None:
    """Raises for a page that is an error with status 200. Its text is judged and not repeated."""
    start = page.lstrip()[:2_000].lower()
    if start.startswith(("<!doctype html", "<html")):
        raise SourceUnavailable("NCBI answered with a web page instead of data", remedy="run again later")
    _, found, message = start.partition("<error>")
    if not found and not start.startswith('{"error"'):
        return
    if any(phrase in message for phrase in _NO_RECORDS):
        return
    if any(phrase in message for phrase in _HISTORY_GONE):
        raise _HistoryGone
    raise _drift("it answered with an error")


def _text(root: Element, path: str) -> str:
    return (root.findtext(path) or "").strip()


def _drift(what: str) -> SourceError:
    return SourceError(
        f"NCBI's E-utilities: {what}",
        remedy="look at NCBI's status page; if it is well, compare medvec_assets/connectors/eutils.py with its documentation",
        code="schema_drift",
    )
