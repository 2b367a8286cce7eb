// A hit against the query, one corner per dimension.
//
// Distances are squared lengths between unit vectors, 0 to 4: similarity = 1 - distance / 4 is 1 for the same, 1/2 for unrelated (a right
// angle), 0 for opposite. So the outer edge is the query itself, and the ring half-way is where nothing is in common.

import { svg } from "./dom.js";
import { capital } from "./words.js";

const SIZE = 50; // radius of the outer edge, in the drawing's units

/** 0 to 1. */
export const similarity = (distance) => Math.min(1, Math.max(0, 1 - distance / 4));

/** The drawing; `full` writes whole names at the corners instead of initials. */
export function radar(distances, dimensions, { full = false } = {}) {
  const values = dimensions.map((name) => (name in distances ? similarity(distances[name]) : null));
  const words = dimensions.map((name, place) =>
    values[place] === null ? `${name} not asked` : `${name} ${percent(values[place])}`,
  );
  const known = values.map((value) => value ?? 0);
  const margin = full ? 44 : 15;
  const side = SIZE + margin;
  return svg(
    "svg",
    {
      class: full ? "radar radar-full" : "radar",
      role: "img",
      viewBox: `${-side} ${-side} ${2 * side} ${2 * side}`,
      "aria-label": `Similarity to the query: ${words.join(", ")}`,
    },
    svg("polygon", { class: "radar-edge", points: polygon(known.map(() => 1)) }),
    svg("polygon", { class: "radar-half", points: polygon(known.map(() => 0.5)) }),
    ...dimensions.map((_, place) => spoke(place, dimensions.length)),
    svg("polygon", { class: "radar-hit", points: polygon(known) }),
    ...known.map((value, place) => dot(value, place, known.length)),
    ...dimensions.map((name, place) =>
      label(full ? name : name.charAt(0).toUpperCase(), place, dimensions.length, full),
    ),
  );
}

const percent = (value) => `${Math.round(100 * value)} %`;

function point(value, place, count) {
  const angle = (2 * Math.PI * place) / count - Math.PI / 2;
  return [SIZE * value * Math.cos(angle), SIZE * value * Math.sin(angle)].map((number) => number.toFixed(1));
}

const polygon = (values) => values.map((value, place) => point(value, place, values.length).join(",")).join(" ");

function spoke(place, count) {
  const [x, y] = point(1, place, count);
  return svg("line", { class: "radar-spoke", x1: 0, y1: 0, x2: x, y2: y });
}

function dot(value, place, count) {
  const [cx, cy] = point(value, place, count);
  return svg("circle", { class: "radar-dot", cx, cy, r: 2.6 });
}

function label(text, place, count, full) {
  const [x, y] = point(full ? 1.22 : 1.2, place, count);
  const anchor = !full || Math.abs(x) < 1 ? "middle" : x > 0 ? "start" : "end";
  return svg(
    "text",
    {
      class: "radar-label",
      x: full && anchor !== "middle" ? x * 0.95 : x,
      y,
      "text-anchor": anchor,
      "dominant-baseline": "central",
    },
    full ? capital(text) : text,
  );
}
