// How near a hit is in each dimension, as small bars.
//
// A bare distance says little: in one dimension most tracks are near to each other, in another few are. So a bar shows
// how many pairs of tracks of this library are nearer: none and it is full, all and it is empty. The API gives 21
// distances for each dimension; below the i-th lie (i / 20)² of all pairs, so a quarter of the pairs is nearer than a
// bar of one half says, and one in a hundred is nearer than a bar of nine tenths.

import { el } from "./dom.js";
import { dimensions, library } from "./library.js";
import { capital } from "./words.js";

/** The length of a bar, 0 to 1; null in a library of one track, where there is nothing to compare with. */
export function nearness(name, distance) {
  const scale = library().distances[name];
  if (!scale) return null;
  const above = scale.findIndex((limit) => limit > distance);
  if (above < 0) return 0;
  if (above === 0) return 1;
  const within = (distance - scale[above - 1]) / (scale[above] - scale[above - 1]);
  return 1 - (above - 1 + within) / (scale.length - 1);
}

/** The bars of a hit: of the dimensions that the query has, pale where its weight is 0; "" where it has none. */
export function bars(distances, weights) {
  const values = dimensions()
    .filter((name) => name in distances)
    .map((name) => [name, nearness(name, distances[name])])
    .filter(([, value]) => value !== null);
  if (!values.length) return "";
  const words = values.map(([name, value]) => `${name} ${nearerPairs(value)}`);
  return el(
    "div",
    { class: "bars", role: "img", "aria-label": `Share of pairs in this library that are nearer: ${words.join(", ")}` },
    ...values.map(([name, value]) => bar(name, value, weights[name] ?? 0)),
  );
}

function bar(name, value, weight) {
  const kind = weight === 0 ? "bar-off" : weight < 0 ? "bar-unlike" : "";
  const fill = el("span", { class: "bar-fill" });
  fill.style.setProperty("--size", `${Math.round(100 * value)}%`);
  return el(
    "span",
    { class: `bar ${kind}`, title: `${capital(name)}: ${nearerPairs(value)} of pairs in this library are nearer` },
    el("span", { class: "bar-name", "data-initial": name.charAt(0).toUpperCase() }, capital(name)),
    el("span", { class: "bar-line" }, fill),
  );
}

/** The share of pairs that are nearer than a bar of this length says. */
function nearerPairs(value) {
  const percent = 100 * (1 - value) ** 2;
  return `${percent < 1 && percent > 0 ? "under 1" : Math.round(percent)} %`;
}
