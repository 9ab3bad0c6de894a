// Making elements. Belongs here: what every part of the page makes. Text is always set as text, never as HTML.

export function element(name, given = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const byId = (id) => document.getElementById(id);

export function facts(pairs) {
  const list = element("dl");
  for (const [name, value] of pairs) {
    if (value === null || value === undefined || value === "") continue;
    list.append(element("dt", {}, name), element("dd", {}, String(value)));
  }
  return list;
}

export function say(place, text, isProblem = false) {
  place.textContent = text;
  place.classList.toggle("problem", isProblem);
}

export function sayRefused(place, error) {
  say(place, `${error.message}. ${error.remedy || ""}`, true);
}
