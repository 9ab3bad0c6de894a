"""The main job on S3 over TLS, Milvus with TLS and users, and PostgreSQL: the laptop's state."""

from __future__ import annotations

from command import DATASET, SPACE, Home, Undisturbed, commits, index_state, lake_state


def test_the_main_job_on_servers_ends_where_it_ends_on_a_laptop(cluster: Home, undisturbed: Undisturbed) -> None:
    told = cluster.fine("run", "--dataset", DATASET)
    assert told["datasets"] == undisturbed.run.json["datasets"]
    assert lake_state(cluster) == undisturbed.lake
    assert index_state(cluster) == undisturbed.index
    assert cluster.fine("verify", "--vectors")["ok"]

    before = commits(cluster)
    again = cluster.fine("run", "--dataset", DATASET)["datasets"][DATASET]["spaces"][SPACE]
    assert (again["embeddings_computed"], again["vectors_upserted"]) == (0, 0)
    assert commits(cluster) == before
    [hit] = cluster.fine("search", "CT of the lung", "--limit", "1")["hits"]
    assert cluster.fine("lineage", hit["vector_id"])["upstream"]
