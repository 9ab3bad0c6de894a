"""The pipeline's steps, free of Dagster: manifest, records, embeddings, vectors, and what is due.

Belongs here: one module per asset of the chain. Each stage is level-triggered: it compares what should be with what
is, does the difference, and ends in one commit or none; killed anywhere and run again, it converges.
Does not belong here: how assets are wired (factory), how a source is listed (connectors), how bytes are read (modalities).
"""
