"""The two roles that medvec's users of a Milvus server need.

Belongs here: which privileges, and granting them. Does not belong here: users and their passwords, which are the
operator's. That they are enough on Milvus 2.3.5 is shown by tests/integration/test_milvus_roles.py.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from resources.errors import ConfigError
from resources.settings import Settings
from resources.vector_index.connection import is_server, to_server

if TYPE_CHECKING:
    from pymilvus import MilvusClient

READER, WRITER = "medvec_reader", "medvec_writer"
_READS = [
    ("Global", "DescribeCollection"),
    ("Global", "ShowCollections"),
    ("Collection", "GetLoadState"),
    ("Collection", "Load"),
    ("Collection", "Query"),
    ("Collection", "Search"),
    ("Collection", "GetStatistics"),
    ("Collection", "IndexDetail"),
]
_WRITES = [
    ("Global", "CreateCollection"),
    ("Global", "DropCollection"),
    ("Global", "CreateAlias"),
    ("Global", "DescribeAlias"),
    ("Global", "ListAliases"),
    ("Global", "DropAlias"),
    ("Collection", "Compaction"),
    ("Collection", "CreateIndex"),
    ("Collection", "DropIndex"),
    ("Collection", "Delete"),
    ("Collection", "Flush"),
    ("Collection", "GetFlushState"),
    ("Collection", "GetLoadingProgress"),
    ("Collection", "Import"),
    ("Collection", "Insert"),
    ("Collection", "Release"),
    ("Collection", "Upsert"),
]
PRIVILEGES = {READER: _READS, WRITER: _READS + _WRITES}
"""Role -> (object type, privilege), on every collection of the database: generations are collections made later."""


def ensure_roles(settings: Settings) -> dict[str, list[str]]:
    """Make both roles and grant what they lack; role -> its privileges. ConfigError where the index is Milvus Lite.

    The token of `settings` is an administrator's. Raises IndexUnavailable if it may not, or nothing answers.
    """
    if not is_server(settings):
        raise ConfigError("Milvus Lite knows no roles", remedy="point MEDVEC_INDEX_URI at a Milvus server")

    def grant(client: MilvusClient) -> None:
        known = set(client.list_roles())
        for role, privileges in PRIVILEGES.items():
            if role not in known:
                client.create_role(role)
            for kind, privilege in privileges:
                client.grant_privilege(role, kind, privilege, "*")

    with closing(to_server(settings)) as connection:
        connection.call("grant privileges", grant)
    return {role: [privilege for _, privilege in privileges] for role, privileges in PRIVILEGES.items()}
