"""The pages of docs/sources/, one per source, made from the specs: `python -m medvec_assets.source_pages [FOLDER]`.

Belongs here: what of a spec is told to people, and in which words. Does not belong here: facts about a dataset (catalog).
A test compares the pages with the specs, so that none tells what was true once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from medvec_assets.catalog import CATALOG
from medvec_assets.catalog.spec import SYNTHETIC, DatasetSpec, Withdrawal

FOLDER = Path(__file__).parents[1] / "docs" / "sources"
_INDEX = "README.md"


def pages(catalog: Sequence[DatasetSpec]) -> dict[str, str]:
    """File name -> text: a page for every source of `catalog`, and their index."""
    sources = {
        source: list(specs)
        for source, specs in groupby(sorted(catalog, key=lambda spec: spec.id), lambda spec: spec.source)
    }
    made = {f"{source}.md": "\n".join(_page(source, specs)) + "\n" for source, specs in sources.items()}
    return made | {_INDEX: "\n".join(_index(sources)) + "\n"}


def _index(sources: dict[str, list[DatasetSpec]]) -> Iterator[str]:
    yield "# Sources"
    yield "Made from the specs by `python -m medvec_assets.source_pages`. What a page demands, medvec enforces.\n"
    yield "| dataset | | access | may a vector leave? | sample |"
    yield "|---|---|---|---|---|"
    for source, specs in sources.items():
        for spec in specs:
            yield f"| [{spec.id}]({source}.md) | {spec.title} | {spec.access_tier} | {_leaves(spec)} | {spec.sample} |"


def _page(source: str, specs: list[DatasetSpec]) -> Iterator[str]:
    yield f"# Source {source}"
    for spec in specs:
        yield f"\n## {spec.title}"
        yield f"`{spec.id}`. {spec.description}\n"
        yield "| | |"
        yield "|---|---|"
        for name, value in _facts(spec):
            yield f"| {name} | {value} |"


def _facts(spec: DatasetSpec) -> Iterator[tuple[str, str]]:
    yield "home", spec.homepage
    yield "how to get access", spec.access
    yield "cite", spec.citation
    yield "size at the source", f"{spec.raw_terabytes:g} TB"
    yield "access tier", str(spec.access_tier)
    yield "agreement", spec.residency.agreement or "none is needed"
    yield "licences that may become vectors", ", ".join(sorted(spec.licenses))
    yield "may a vector leave?", _leaves(spec)
    yield "what an answer may show", ", ".join(f"`{name}`" for name in spec.index_attributes)
    yield "hits can be grouped by", "`subject`, `study`" if spec.has_studies else "`subject`"
    if spec.smallest_count > 1:
        yield "counts", f"of fewer than {spec.smallest_count} persons are never shown or exported"
    yield "what the source takes back", _withdrawal(spec)
    yield "spaces", ", ".join(f"`{name}` by `{space.encoder}`" for name, space in spec.spaces.items())
    yield "looked at", f"`{spec.freshness.observe_cron}` (UTC); stale after {spec.freshness.max_age.days} days"
    yield "read by", f"connector `{spec.connector}`, modality `{spec.modality}`"
    yield "owners", ", ".join(spec.owners)
    yield "sample", _sample(spec)


def _leaves(spec: DatasetSpec) -> str:
    where = spec.residency.where
    if where == "anywhere":
        return "yes" if spec.residency.agreement is None else f"yes, under {spec.residency.agreement}"
    if where == "holders":
        return f"only to holders of {spec.residency.agreement}"
    return f"no: it stays in `{where.removeprefix('enclave:')}`"


def _withdrawal(spec: DatasetSpec) -> str:
    what = {
        Withdrawal.ARCHIVE: "leaves records, embeddings and index; the manifest keeps a dated tombstone",
        Withdrawal.ERASE: "leaves every layer, and the subject is never taken in again",
    }[spec.withdrawal]
    days = spec.withdrawal_grace.days
    return f"{what}; {f'within {days} days' if days else 'with the next refresh'}"


def _sample(spec: DatasetSpec) -> str:
    command = f"`medvec run --dataset {spec.id}`"
    if spec.sample == SYNTHETIC:
        return f"{command} reads made-up data in the source's layout, marked `synthetic` in every row and answer"
    return f"{command} reads real data that packages ship"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages(CATALOG).items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
