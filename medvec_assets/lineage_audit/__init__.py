"""The lineage audit: the chain of every vector derived again from gold, and every link that does not hold, by name.

    findings   a broken link, and the ledger of them
    rules      what is compared within the tables, column by column
    recorded   the rows that stand against those the audit recorded
    indexed    gold against the index, entity by entity and float by float
    sources    the bytes of source objects against their checksums
    again      records and vectors made again from the source objects
    audit      one dataset, and all of them
    report     what is written and signed

Belongs here: telling. Does not belong here: repairing anything, the way of one vector (query.lineage), Dagster.
"""
