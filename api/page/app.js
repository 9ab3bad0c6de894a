// The page's frame: the key, the parts, which one is shown. Each part is a module of its own.

import { install as installDatasets } from "./datasets.js";
import { byId, element, sayRefused } from "./elements.js";
import { install as installMap, load as loadMap } from "./map.js";
import { install as installSearch } from "./search.js";
import { json, key } from "./service.js";

const PARTS = ["search", "map", "datasets"];
let entered = false;
let mapped = false;

function show() {
  const part = PARTS.includes(location.hash.slice(1)) ? location.hash.slice(1) : PARTS[0];
  byId("enter").hidden = entered;
  byId("leave").hidden = !entered;
  for (const one of PARTS) {
    byId(one).hidden = !entered || one !== part;
    const link = document.querySelector(`nav a[href="#${one}"]`);
    if (entered && one === part) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!entered) return byId("key").focus();
  if (part === "search") byId("text").focus();
  if (part === "map" && !mapped) {
    mapped = true;
    loadMap();
  }
}

async function enter() {
  const form = byId("enter-form");
  form.querySelector("[role=alert]")?.remove();
  try {
    const { datasets } = await json("/v1/datasets");
    entered = true;
    installDatasets(datasets);
    installMap(datasets);
    installSearch();
  } catch (error) {
    key.forget();
    const said = element("p", { role: "alert" });
    sayRefused(said, error);
    form.append(said);
  }
  show();
}

byId("enter-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key.keep(byId("key").value.trim(), byId("purpose").value);
  byId("key").value = "";
  enter();
});
byId("leave").addEventListener("click", () => {
  key.forget();
  location.reload();
});
addEventListener("hashchange", show);
if (key.known()) enter();
else show();
