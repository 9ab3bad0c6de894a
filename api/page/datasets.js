// What is here: freshness, counts, licences, how to cite.

import { byId, element } from "./elements.js";

const number = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en"));

export function install(datasets) {
  byId("dataset-list").replaceChildren(table(datasets));
  for (const one of datasets) {
    if (one.spaces.length) byId("dataset").append(element("option", { value: one.id }, one.title));
  }
  byId("dataset").addEventListener("change", () => cohorts(datasets));
  cohorts(datasets);
}

function cohorts(datasets) {
  const chosen = byId("dataset").value;
  const names = datasets.filter((one) => !chosen || one.id === chosen).flatMap((one) => one.cohorts.map((cohort) => cohort.cohort));
  byId("cohorts").replaceChildren(...[...new Set(names)].sort().map((name) => element("option", { value: name })));
}

function table(datasets) {
  const head = ["Dataset", "Objects", "Cohorts", "Spaces", "Release", "Last made", "Licence", "Access", "Cite"];
  const made = element("table", {}, element("caption", {}, `${datasets.length} datasets that you may see`));
  made.append(element("thead", {}, element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, name)))));
  made.append(element("tbody", {}, ...datasets.map(row)));
  return made;
}

function row(one) {
  const objects = one.cohorts.length ? one.cohorts.reduce((sum, cohort) => sum + (cohort.objects ?? 0), 0) : null;
  const spaces = one.spaces.map((space) => `${space.space}: ${space.encoder}, ${space.dim}-d${space.medical ? "" : ", general-purpose"}`);
  const cells = [one.upstream_version || "–", one.last_materialized ? one.last_materialized.slice(0, 16).replace("T", " ") : "not yet"];
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, one.title, element("div", { class: "muted" }, `${one.id}, ${one.kind}`)),
    element("td", { class: "number" }, number(objects)),
    element("td", { class: "number" }, number(one.cohorts.length)),
    element("td", {}, ...spaces.map((text) => element("div", {}, text))),
    ...cells.map((text) => element("td", {}, text)),
    element("td", {}, one.licenses.join(", ")),
    element("td", {}, one.access_tier),
    element("td", { class: "muted" }, one.citation),
  );
}
