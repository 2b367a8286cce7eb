// The library in two dimensions, drawn on a canvas.

import { get, isCancelled } from "./api.js";
import { byId, el, svg } from "./dom.js";
import { dimensions, library } from "./library.js";
import { drawMap } from "./map_draw.js";
import { labelled, SHAPES } from "./map_labels.js";
import { nearest, nearestTowards } from "./map_points.js";
import { zoomOf } from "./map_zoom.js";
import { report, settled } from "./problems.js";
import { currentHits, watchHits } from "./results.js";
import { useTrack } from "./search.js";
import { current, watch } from "./state.js";
import { capital, titleOf } from "./words.js";

const MARGIN = 26;
const MOST_WANTED = 100; // hits that are asked for by name; the API takes no endless address
const STEP = 1.6; // of one push on a zoom button
const REACH = 22; // pixels round the pointer in which a point counts as meant
const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const canvas = byId("map-canvas");
const zoom = zoomOf(canvas, () => (placePoints(), draw()));
let map = null; // the API's answer
let labels = null; // of the colouring dimension, see map_labels.js
let points = []; // { id, x, y, ... } with place on the canvas, px and py
let active = null; // under the pointer or the keyboard
let asking = null;

export function setUpMap() {
  const arranged = [["", "everything"], ...dimensions().map((name) => [name, capital(name)])];
  byId("map-arrange").replaceChildren(...arranged.map(([value, text]) => el("option", { value }, text)));
  const colours = dimensions().filter(hasLabels);
  byId("map-colour").replaceChildren(...colours.map((name) => el("option", { value: name }, capital(name))));
  for (const part of [byId("map-colour"), document.querySelector("label[for=map-colour]"), byId("map-legend")])
    part.hidden = !colours.length;
  byId("map-arrange").addEventListener("change", () => (zoom.fit(), load()));
  byId("map-in").addEventListener("click", () => zoomBy(STEP));
  byId("map-out").addEventListener("click", () => zoomBy(1 / STEP));
  byId("map-fit").addEventListener("click", () => zoom.fit());
  byId("map-colour").addEventListener("change", () => (colour(), draw()));
  watch((state, changed) => {
    if (state.view !== "map") return;
    if (!map && changed.has("view")) load();
    else follow();
  });
  watchHits(() => current().view === "map" && follow());
  new ResizeObserver(() => (placePoints(), draw())).observe(byId("map-frame"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  canvas.addEventListener("pointermove", (event) => point(nearest(points, event.offsetX, event.offsetY, REACH)));
  canvas.addEventListener("pointerleave", () => point(null));
  canvas.addEventListener("click", (event) => zoom.dragged() || choose(nearest(points, event.offsetX, event.offsetY, REACH)));
  canvas.addEventListener("keydown", steer);
  canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && point(active ?? start(), true));
  canvas.addEventListener("blur", () => point(null));
}

/** Whether any track of the library has a label in a dimension, so that it can give colours. */
function hasLabels(name) {
  const { bpm, keys, years, tags } = library();
  if (name === "tempo") return Boolean(bpm);
  if (name === "key") return keys.length > 0;
  return Boolean(tags[name]?.length || (name === "era" && years));
}

/** The tracks that are always on the map: the query, its other examples, and the hits. */
function wanted() {
  const { query, also } = current();
  const examples = [...(query?.track ? [query.track] : []), ...also];
  return [...examples, ...currentHits().slice(0, MOST_WANTED).map((hit) => hit.track.id)];
}

/** Draws the query and hits anew; a large library's map may lack some, and is then asked for again with them. */
function follow() {
  if (map && lacksSome()) load();
  else draw();
}

function lacksSome() {
  const shown = new Set(points.map(({ id }) => id));
  return wanted().some((id) => !shown.has(id));
}

async function load() {
  asking?.abort();
  const mine = new AbortController();
  asking = mine;
  const dimension = byId("map-arrange").value;
  byId("map-note").textContent = "Drawing the map …";
  try {
    const tracks = wanted().map((id) => ["track", id]);
    map = await get("map", [...(dimension ? [["dimension", dimension]] : []), ...tracks], mine.signal);
    settled();
  } catch (error) {
    if (!isCancelled(error)) {
      byId("map-note").textContent = "";
      report(error, load);
    }
    return;
  }
  points = map.points.map((point) => ({ ...point }));
  active = null;
  if (lacksSome()) {
    load(); // hits came meanwhile
    return;
  }
  byId("map-note").textContent = note();
  colour();
  placePoints();
  draw();
}

function note() {
  if (!map.total) return "The library is empty: run msim index.";
  const file = current().query?.upload ? "Your file has no place on the map, its hits have. " : "";
  const shown = map.points.length < map.total ? `${map.points.length} of ${map.total} tracks, at even steps, with the query and its hits. ` : "";
  const kept = map.variance.reduce((sum, share) => sum + share, 0);
  return `${file}${shown}Two axes keep ${Math.round(100 * kept)} % of what there is to tell tracks apart; what looks close here may not be in the rest.`;
}

function colour() {
  labels = labelled(points, byId("map-colour").value);
  byId("map-legend").replaceChildren(
    ...labels.groups.map(({ name, place, count }) =>
      el(
        "li",
        { class: `series-${place}` },
        svg("svg", { viewBox: "-7 -7 14 14", "aria-hidden": "true" }, svg("path", { d: SHAPES[place] })),
        `${name} `,
        el("span", { class: "soft" }, String(count)),
      ),
    ),
  );
}

function placePoints() {
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!points.length || !width) return;
  // The cloud fills the frame; one scale for both axes, or distances would lie.
  const [left, right] = extent(points.map(({ x }) => x));
  const [low, high] = extent(points.map(({ y }) => y));
  const scale = Math.min((width - 2 * MARGIN) / (right - left || 1), (height - 2 * MARGIN) / (high - low || 1));
  for (const placed of points) {
    [placed.px, placed.py] = zoom.place(
      width / 2 + scale * (placed.x - (left + right) / 2),
      height / 2 - scale * (placed.y - (low + high) / 2),
    );
  }
}

const extent = (values) =>
  values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);

function draw() {
  if (!points.length || !canvas.clientWidth) return;
  const at = queryPoint();
  drawMap(canvas, {
    points,
    labels,
    meant: new Set(current().query ? wanted() : []),
    query: at,
    title: at ? titleOf(at) : "",
    active,
  });
}

/** Shows what is at a point; `aloud` also to a screen reader. */
function point(at, aloud = false) {
  if (at === active && !aloud) return;
  active = at;
  canvas.style.cursor = at ? "pointer" : "";
  if (at && aloud) zoom.show(at); // the keyboard leads beyond what is seen
  const tip = byId("map-tip");
  tip.hidden = !at;
  if (at) {
    const label = labels.labelOf(at);
    tip.replaceChildren(
      el("strong", {}, titleOf(at)),
      ...(at.artist ? [el("span", {}, at.artist)] : []),
      ...(label ? [el("span", { class: "soft" }, label)] : []),
    );
    const right = at.px > canvas.clientWidth / 2;
    tip.style.left = right ? "" : `${at.px + 14}px`;
    tip.style.right = right ? `${canvas.clientWidth - at.px + 14}px` : "";
    tip.style.top = `${Math.max(0, at.py - 12)}px`;
    if (aloud) byId("map-spoken").textContent = [titleOf(at), at.artist, label].filter(Boolean).join(", ");
  }
  draw();
}

/** Zooms round what the keyboard is at, else round the query, else round the middle. */
function zoomBy(factor) {
  const at = active ?? queryPoint();
  zoom.by(factor, at?.px, at?.py);
}

const queryPoint = () => points.find(({ id }) => id === current().query?.track);

/** Where the keyboard starts: at the query, else in the middle. */
const start = () => queryPoint() ?? nearest(points, canvas.clientWidth / 2, canvas.clientHeight / 2, Infinity);

function steer(event) {
  const direction = DIRECTIONS[event.key];
  if (direction) {
    event.preventDefault();
    const at = active ?? start();
    point(active ? (nearestTowards(points, at, direction) ?? at) : at, true);
  } else if (event.key === "+" || event.key === "-") {
    event.preventDefault();
    zoomBy(event.key === "+" ? STEP : 1 / STEP);
  } else if (event.key === "0") {
    event.preventDefault();
    zoom.fit();
  } else if ((event.key === "Enter" || event.key === " ") && active) {
    event.preventDefault();
    choose(active);
  }
}

function choose(at) {
  if (at) useTrack(at);
}
