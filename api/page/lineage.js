// The chain from a vector back to its source, as a picture and in words.

import { byId, element, facts, sayRefused } from "./elements.js";
import { json, picture } from "./service.js";

export async function showChain(vectorId) {
  const body = byId("chain-body");
  body.replaceChildren(element("p", { role: "status" }, "Following it back …"));
  byId("chain").showModal();
  try {
    const path = `/v1/lineage/${encodeURIComponent(vectorId)}`;
    const [drawn, told] = await Promise.all([picture(`${path}?format=svg`), json(path)]);
    const shown = element("img", { src: drawn, alt: inWords(told) });
    body.replaceChildren(
      shown,
      facts([
        ["vector", told.vector.vector_id],
        ["record", told.record.record_id],
        ["licence", told.record.license],
        ["de-identified by", told.record.deid_profile],
        ["encoder", `${told.embedding.encoder} (${told.embedding.weights_digest.slice(0, 12)})`],
        ["objects", told.objects.length],
        ["release", told.upstream.version],
        ["cite", told.upstream.citation],
      ]),
      element("details", {}, element("summary", {}, "All of it, as JSON"), element("pre", { tabindex: 0 }, JSON.stringify(told, null, 2))),
    );
    await shown.decode();
    URL.revokeObjectURL(drawn);
  } catch (error) {
    const said = element("p", { role: "alert" });
    sayRefused(said, error);
    body.replaceChildren(said);
  }
}

function inWords(told) {
  return (
    `Vector ${told.vector.vector_id} was made by ${told.embedding.encoder} from record ${told.record.record_id}, ` +
    `which was made from ${told.objects.length} objects of ${told.upstream.title}, release ${told.upstream.version}.`
  );
}
