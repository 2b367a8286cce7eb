// The list of similar tracks: asked for again at every change, each request cancelled by the next.

import { download, isCancelled, post } from "./api.js";
import { byId, debounced, el, reducedMotion } from "./dom.js";
import { dimensions, library } from "./library.js";
import { report, settled } from "./problems.js";
import { allOff, queryOf, restrictionCount, restrictionsOf } from "./request.js";
import { trackRow } from "./rows.js";
import { asksAnew, change, current, noFilters, startLimits, watch } from "./state.js";
import { capital, counted } from "./words.js";

const WAIT = 120; // milliseconds of rest before a moved slider is asked for
const MORE = 10;
const MOST = 500; // that the API gives
const MOVE = { duration: 220, easing: "cubic-bezier(.2,.7,.2,1)" };

const list = byId("results-list");
const rows = new Map(); // track id -> row
const watchers = [];
let hits = [];
let shown = null; // the request that gave them
let asking = null;

/** Calls `watcher(hits)` when there are new results. */
export function watchHits(watcher) {
  watchers.push(watcher);
}

export const currentHits = () => hits;

export function setUpResults() {
  const soon = debounced(ask, WAIT);
  watch((_, changed) => {
    if (asksAnew(changed) || changed.has("k")) ask();
    else if (["weights", "filters", "limits"].some((name) => changed.has(name))) soon();
  });
  byId("results-playlist").addEventListener("click", () =>
    download("playlist.m3u8", shown, "similar.m3u8").catch((error) => report(error)),
  );
  byId("results-more").addEventListener("click", () => change({ k: Math.min(MOST, current().k + MORE) }));
}

async function ask() {
  asking?.abort();
  const mine = new AbortController();
  asking = mine;
  const state = current();
  if (!library().tracks)
    return nothing(
      "The library is empty",
      "Put music into its folder and run msim index again, then reload this page. wav, flac, ogg, opus and mp3 are among what is understood.",
    );
  if (!state.query)
    return nothing(
      "Nothing chosen yet",
      "Search for a track, drop a sound file, or let chance decide. The tracks most like it appear here, and the sliders say what “like” means.",
    );
  if (allOff(state.weights))
    return nothing("All sliders are off", "Raise at least one: then there is something to be similar in.");
  list.setAttribute("aria-busy", "true");
  try {
    const body = { query: queryOf(state, dimensions()), weights: state.weights, k: state.k, ...restrictionsOf(state) };
    const answer = await post("similar", body, mine.signal);
    settled();
    shown = body;
    show(answer, state);
  } catch (error) {
    if (!isCancelled(error)) failed(error);
  } finally {
    if (asking === mine) list.removeAttribute("aria-busy");
  }
}

function failed(error) {
  report(error, ask);
  // Old results would pass for the answer to what is asked now.
  if (error.status) nothing("No results", "What was asked for could not be answered; the message above says why.");
  else byId("results-status").textContent = "These results may be out of date.";
}

function nothing(title, text, ...actions) {
  list.removeAttribute("aria-busy");
  replace([]);
  byId("results-status").textContent = "";
  byId("results-empty").replaceChildren(el("h2", {}, title), el("p", { class: "soft" }, text), ...actions);
}

/** Says why there are no hits, and how to have some. */
function showNone(reason, filters) {
  const clear = el(
    "button",
    { type: "button", onclick: () => change({ filters: noFilters(), limits: startLimits() }) },
    "Clear filters",
  );
  const advice = filters ? "Widen the filters, or clear them." : "Add music and run msim index again.";
  nothing("Nothing found", `${capital(reason ?? "no track was found")}. ${advice}`, ...(filters ? [clear] : []));
  byId("results-status").textContent = "No tracks found";
}

function show({ hits: newHits, reason }, state) {
  const filters = restrictionCount(state);
  if (!newHits.length) return showNone(reason, filters);
  byId("results-empty").replaceChildren();
  const opposed = Object.values(state.weights).some((weight) => weight < 0);
  byId("results-status").textContent =
    `${counted(newHits.length, "track")}, nearest first${filters ? `, ${counted(filters, "filter")} on` : ""}${opposed ? "; “unlike” makes distances smaller, even negative" : ""}`;
  const more = byId("results-more");
  const grew = document.activeElement === more ? hits.length : -1;
  replace(newHits);
  more.hidden = newHits.length < state.k || state.k >= Math.min(MOST, library().tracks - 1 - state.also.length);
  // The button may just have vanished under the focus; the first new track is where reading goes on.
  if (grew >= 0) list.children[grew]?.querySelector("button").focus();
  return undefined;
}

function replace(newHits) {
  hits = newHits;
  const before = new Map([...rows].map(([id, row]) => [id, row.element.getBoundingClientRect().top]));
  const focused = document.activeElement;
  const kept = new Map();
  newHits.forEach((hit, place) => {
    const row = rows.get(hit.track.id) ?? trackRow(hit.track, { mix: true, list: () => hits.map(({ track }) => track) });
    row.update(hit, place + 1);
    kept.set(hit.track.id, row);
  });
  rows.clear();
  for (const [id, row] of kept) rows.set(id, row);
  list.replaceChildren(...[...kept.values()].map((row) => row.element));
  if (list.contains(focused)) focused.focus({ preventScroll: true }); // moving an element takes its focus
  byId("legend").hidden = !newHits.length;
  byId("results-save").hidden = !newHits.length;
  byId("results-more").hidden = true;
  slide(before);
  for (const watcher of watchers) watcher(newHits);
}

/** Lets rows glide from where they were, so that the eye can follow a new order. */
function slide(before) {
  if (reducedMotion()) return;
  for (const [id, { element }] of rows) {
    const by = before.has(id) ? before.get(id) - element.getBoundingClientRect().top : 0;
    if (by) element.animate([{ transform: `translateY(${by}px)` }, { transform: "none" }], MOVE);
  }
}
