"""Which other cohorts look like this one: counts of subjects alone, suppressed where they are too small.

python docs/examples/neighbours_of_a_cohort.py http://127.0.0.1:8087 tcia_catalog tcga_lihc      (key: MEDVEC_KEY)
"""

import os
import sys

from api.client import Client, Refused

url, dataset, cohort = sys.argv[1:]
with Client(url, os.environ["MEDVEC_KEY"], purpose="HRESCH") as medvec:
    try:
        counted = medvec.neighbours(dataset, cohort=cohort, top_k=20, by=["cohort"])
    except Refused as refusal:
        sys.exit(f"{refusal}\n{refusal.remedy}")
    for line in counted.counts:
        shown = line["subjects"] if line["subjects"] is not None else f"fewer than {counted.smallest_count}, or hidden"
        print(f"{line['cohort']:>30}  {shown}")
