"""Ask in words, and write down what a paper needs of each hit: where it came from, its licence, the citation.

python docs/examples/search_and_cite.py http://127.0.0.1:8087 "contrast enhanced CT of the liver"      (key: MEDVEC_KEY)
"""

import os
import sys

from api.client import Client

url, question = sys.argv[1:]
with Client(url, os.environ["MEDVEC_KEY"], purpose="HRESCH") as medvec:
    found = medvec.search(question, limit=5)
    for hit in found.hits:
        print(f"{hit.score:.3f}  {hit.record_id}  {hit.license}  {hit.upstream_version}")
    for dataset in sorted({hit.dataset for hit in found.hits}):
        print(f"\n{medvec.dataset(dataset).citation}")
