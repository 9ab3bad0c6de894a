// The map of a space: points on a canvas, reached with a pointer or with arrow keys.

import { byId, element, say, sayRefused } from "./elements.js";
import { likeThis } from "./search.js";
import { json } from "./service.js";

// Colours that the common colour blindnesses tell apart (after Paul Tol); past them the shape changes.
const COLOURS = ["#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#CC8844", "#009988"];
const SHAPES = ["circle", "square", "triangle"];
const OTHER = { colour: "#8a939c", shape: "circle" };
const RADIUS = 4;
const MARGIN = 16;

let points = [];
let styles = new Map();
let dataset = "";
let chosen = -1;

export function install(datasets) {
  const spaces = byId("map-space");
  const objects = (one) => one.cohorts.reduce((sum, cohort) => sum + (cohort.objects ?? 0), 0);
  for (const one of [...datasets].sort((a, b) => objects(b) - objects(a))) {
    for (const space of one.spaces) spaces.append(element("option", { value: `${one.id}/${space.space}` }, `${one.id}, ${space.space}`));
  }
  spaces.addEventListener("change", load);
  byId("map-colour").addEventListener("change", colour);
  const canvas = byId("canvas");
  canvas.addEventListener("mousemove", (event) => choose(nearest(event.offsetX, event.offsetY)));
  canvas.addEventListener("click", open);
  canvas.addEventListener("keydown", move);
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

export async function load() {
  const chosenSpace = byId("map-space").value;
  if (!chosenSpace) return say(byId("map-said"), "No dataset has vectors yet: run medvec run.", true);
  const [name, space] = chosenSpace.split("/");
  say(byId("map-said"), "Drawing …");
  try {
    const answer = await json(`/v1/datasets/${encodeURIComponent(name)}/map?space=${encodeURIComponent(space)}`);
    if (byId("map-space").value !== chosenSpace) return;
    dataset = name;
    points = answer.points;
    chosen = -1;
    colour();
    const share = answer.variance.map((part) => `${Math.round(part * 100)} %`).join(" and ");
    say(byId("map-said"), `${points.length} of ${answer.vectors} vectors. The axes hold ${share} of the variance.`);
  } catch (error) {
    points = [];
    draw();
    sayRefused(byId("map-said"), error);
  }
}

function colour() {
  const by = byId("map-colour").value;
  const counts = new Map();
  for (const point of points) counts.set(point[by], (counts.get(point[by]) || 0) + 1);
  const frequent = [...counts].sort((a, b) => b[1] - a[1]).slice(0, COLOURS.length * SHAPES.length);
  styles = new Map(frequent.map(([label], n) => [label, { colour: COLOURS[n % COLOURS.length], shape: SHAPES[Math.floor(n / COLOURS.length)] }]));
  byId("legend").replaceChildren(...frequent.map(([label, count]) => element("li", {}, swatch(styles.get(label)), `${label || "(none)"}: ${count}`)));
  if (counts.size > frequent.length) byId("legend").append(element("li", {}, swatch(OTHER), "others"));
  draw();
}

function swatch({ colour: fill, shape }) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "-6 -6 12 12");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", { circle: "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0", square: "M-5-5h10v10h-10z", triangle: "M0-5L5 5H-5z" }[shape]);
  path.setAttribute("fill", fill);
  svg.append(path);
  return svg;
}

function place(point) {
  const { clientWidth: width, clientHeight: height } = byId("canvas");
  return [MARGIN + ((point.x + 1) / 2) * (width - 2 * MARGIN), MARGIN + ((1 - point.y) / 2) * (height - 2 * MARGIN)];
}

function draw() {
  const canvas = byId("canvas");
  const scale = devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * scale;
  canvas.height = canvas.clientHeight * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const by = byId("map-colour").value;
  pen.globalAlpha = 0.75;
  for (const point of points) mark(pen, ...place(point), RADIUS, styles.get(point[by]) || OTHER);
  pen.globalAlpha = 1;
  if (chosen >= 0) {
    const [x, y] = place(points[chosen]);
    pen.strokeStyle = getComputedStyle(canvas).color;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(x, y, RADIUS + 4, 0, 7);
    pen.stroke();
  }
}

function mark(pen, x, y, r, { colour: fill, shape }) {
  pen.fillStyle = fill;
  pen.beginPath();
  if (shape === "circle") pen.arc(x, y, r, 0, 7);
  else if (shape === "square") pen.rect(x - r, y - r, 2 * r, 2 * r);
  else {
    pen.moveTo(x, y - r);
    pen.lineTo(x + r, y + r);
    pen.lineTo(x - r, y + r);
  }
  pen.fill();
}

function nearest(x, y, allowed = () => true) {
  let best = -1;
  let least = Infinity;
  points.forEach((point, n) => {
    const [px, py] = place(point);
    const distance = (px - x) ** 2 + (py - y) ** 2;
    if (distance < least && allowed(px - x, py - y)) [best, least] = [n, distance];
  });
  return best;
}

function move(event) {
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (event.key === "Enter") return open();
  if (!(event.key in ways) || !points.length) return;
  event.preventDefault();
  const { clientWidth: width, clientHeight: height } = byId("canvas");
  if (chosen < 0) return choose(nearest(width / 2, height / 2));
  const [dx, dy] = ways[event.key];
  // In the quarter that the arrow points to: along it, and no farther off than along.
  const ahead = (x, y) => x * dx + y * dy > 0.5 && Math.abs(x * dy) + Math.abs(y * dx) <= x * dx + y * dy;
  const next = nearest(...place(points[chosen]), ahead);
  if (next >= 0) choose(next);
}

function choose(n) {
  if (n < 0 || n === chosen) return;
  chosen = n;
  const point = points[n];
  say(byId("map-said"), `${point.modality || "record"} ${point.record_id}, cohort ${point.cohort}. Enter or a click: records like it.`);
  draw();
}

function open() {
  if (chosen >= 0) likeThis(points[chosen].vector_id, dataset);
}
