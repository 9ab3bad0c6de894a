// Search: the form, the cards, more of them. Does not belong here: the lineage picture (lineage.js).

import { byId, element, facts, say, sayRefused } from "./elements.js";
import { showChain } from "./lineage.js";
import { json, picture, post } from "./service.js";

const TYPES = { dcm: "application/dicom", png: "image/png", jpg: "image/jpeg", jpeg: "image/jpeg", nii: "application/x-nifti", gz: "application/gzip" };
const SHOWN = 6; // attributes of a card; the others are in its lineage

let asked = null; // the question whose next page `more` asks for
let turn = 0; // an answer that comes after a later question is not shown

function narrowing() {
  const one = (id) => (byId(id).value.trim() ? [byId(id).value.trim()] : []);
  return {
    datasets: one("dataset"),
    cohorts: one("cohort"),
    modalities: one("modality"),
    licenses: one("license"),
    limit: Number(byId("limit").value) || 12,
    group_by: byId("group").value || null,
  };
}

function query(narrowed) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(narrowed)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== null) parameters.append(name, one);
  }
  return parameters;
}

const byBody = (question) => (cursor) => post("/v1/search", { ...question, cursor });

const byFile = (file, narrowed) => async (cursor) => {
  const type = TYPES[file.name.split(".").pop().toLowerCase()] || "application/dicom"; // DICOM files often have no ending
  const options = { method: "POST", headers: { "Content-Type": type }, body: file };
  return json(`/v1/search/image?${query({ ...narrowed, cursor })}`, options);
};

async function run(question, what) {
  const mine = ++turn;
  const list = byId("hits");
  list.replaceChildren();
  byId("more").hidden = true;
  say(byId("said"), `Searching ${what} …`);
  asked = { question, what, mine };
  await page(null);
}

async function page(cursor) {
  const { question, what, mine } = asked;
  try {
    const answer = await question(cursor);
    if (mine !== turn) return;
    const list = byId("hits");
    const first = list.children.length;
    list.append(...answer.hits.map((hit, n) => element("li", {}, card(hit, first + n + 1))));
    const count = list.children.length;
    say(byId("said"), count ? `${count} hits ${what}, best first.` : `Nothing was found ${what}.`);
    byId("more").hidden = !answer.cursor;
    byId("more").onclick = () => page(answer.cursor);
    if (cursor) list.children[first]?.querySelector("button").focus();
  } catch (error) {
    if (mine === turn) sayRefused(byId("said"), error);
  }
}

export function likeThis(vectorId, dataset) {
  location.hash = "#search";
  return run(byBody({ vector_id: vectorId, datasets: [dataset], limit: narrowing().limit }), "like that one");
}

function card(hit, rank) {
  const name = `${hit.modality || ""} ${hit.attributes.body_part || hit.attributes.series_description || ""}`.trim();
  const tags = [hit.dataset, hit.cohort, hit.license, hit.members > 1 ? `${hit.members} identical` : "", hit.group || ""];
  const made = element(
    "article",
    { class: "card", "aria-label": `Hit ${rank}, score ${hit.score.toFixed(3)}` },
    image(hit),
    element("h3", {}, `${rank}. ${name || hit.record_id}`),
    element("div", { class: "score" }, element("meter", { min: 0, max: 1, value: Math.max(0, hit.score), "aria-hidden": "true" }), hit.score.toFixed(3)),
    element("ul", { class: "tags", "aria-label": "What it is" }, ...tags.filter(Boolean).map((tag) => element("li", {}, tag))),
    facts([["record", hit.record_id], ...Object.entries(hit.attributes).filter(([key]) => key !== "synthetic").slice(0, SHOWN)]),
    element(
      "details",
      {},
      element("summary", {}, "Provenance"),
      facts([
        ["source", hit.source_uri],
        ["release", hit.upstream_version],
        ["encoder", `${hit.encoder} (${hit.weights_digest.slice(0, 12)})`],
        ["de-identified by", hit.deid_profile],
        ["table version", hit.delta_version],
        ["vector", hit.vector_id],
      ]),
    ),
    element(
      "div",
      { class: "actions" },
      element("button", { type: "button", onclick: () => showChain(hit.vector_id) }, "Lineage"),
      element("button", { type: "button", onclick: () => likeThis(hit.vector_id, hit.dataset) }, "More like this"),
    ),
  );
  if (hit.attributes.synthetic) made.querySelector(".tags").append(element("li", { class: "synthetic" }, "synthetic"));
  return made;
}

function image(hit) {
  if (!hit.thumbnail) return null;
  const shown = element("img", { alt: `Image of record ${hit.record_id}`, hidden: "" });
  const seen = new IntersectionObserver(async (entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    try {
      shown.src = await picture(hit.thumbnail);
      await shown.decode();
      URL.revokeObjectURL(shown.src);
    } catch {
      shown.remove(); // the card says all else
    }
  });
  shown.removeAttribute("hidden");
  seen.observe(shown);
  return shown;
}

export function install() {
  byId("search-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("text").value.trim();
    if (text) run(byBody({ text, ...narrowing() }), `for “${text}”`);
    else say(byId("said"), "Give a question in words, or an image.", true);
  });
  byId("file").addEventListener("change", () => byImage(byId("file").files[0]));
  const drop = byId("drop");
  drop.addEventListener("dragover", (event) => (event.preventDefault(), drop.classList.add("over")));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    byImage(event.dataTransfer.files[0]);
  });
}

function byImage(file) {
  // The file's name may be somebody's: it is not shown, and not sent.
  if (file) run(byFile(file, narrowing()), "like the image");
}
