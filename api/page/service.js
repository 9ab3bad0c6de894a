// Asking the service. Belongs here: the key of this tab, requests, problems. Does not belong here: anything that is seen.

const KEY = "medvec.key";
const PURPOSE = "medvec.purpose";

export class Refused extends Error {
  constructor(status, problem) {
    const fields = (problem.errors || []).map((one) => `${one.field}: ${one.rule}`).join("; ");
    super([problem.detail || `the service answered ${status}`, fields].filter(Boolean).join(": "));
    this.status = status;
    this.remedy = problem.remedy || "";
  }
}

export const key = {
  known: () => sessionStorage.getItem(KEY) !== null,
  keep(value, purpose) {
    sessionStorage.setItem(KEY, value);
    sessionStorage.setItem(PURPOSE, purpose);
  },
  forget() {
    sessionStorage.clear();
  },
};

export async function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(KEY) || ""}`, ...options.headers };
  const purpose = sessionStorage.getItem(PURPOSE);
  if (purpose) headers["X-Purpose-Of-Use"] = purpose;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch {
    throw new Refused(0, { detail: "the service does not answer", remedy: "see that medvec serve is running" });
  }
  if (answer.ok) return answer;
  let problem = {};
  try {
    problem = await answer.json();
  } catch {
    // no problem+json: the status has to do
  }
  throw new Refused(answer.status, problem);
}

export const json = async (path, options) => (await ask(path, options)).json();

export const picture = async (path) => URL.createObjectURL(await (await ask(path)).blob());

export const post = (path, body) =>
  json(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
