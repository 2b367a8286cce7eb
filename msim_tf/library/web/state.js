// What is asked for, and the address that says the same: a view can be shared, and Back works.
//
//   query    what to be near to: null, {track}, or {upload, name}
//   also     ids of tracks that are examples beside the query: what is near to all of them is wanted
//   mix      dimension -> track id that replaces the query in this dimension ("its tempo")
//   weights  dimension -> -1..1; 0 is off, negative is unlike
//   filters  bpm, years: ["", ""] as typed; octaves; keys, tags, artists: lists
//   limits   perArtist, perAlbum: "" or a number as text; at first two per artist
//   k        how many results
//   view     results, map, compare or path
//   to       the end of the path, or ""

export const START_WEIGHT = 0.5;
const PAGE = 10;
const PER_ARTIST = "2";
export const startLimits = () => ({ perArtist: PER_ARTIST, perAlbum: "" });
export const MOST_ALSO = 20;
const ASKED = ["query", "also", "mix"]; // what is to be near to
const VIEWS = ["results", "map", "compare", "path"];

let dimensions = [];
let state = emptyState();
const watchers = [];

function emptyState() {
  return {
    query: null,
    also: [],
    mix: {},
    weights: equalWeights(),
    filters: noFilters(),
    limits: startLimits(),
    k: PAGE,
    view: "results",
    to: "",
  };
}

export function equalWeights() {
  return Object.fromEntries(dimensions.map((name) => [name, START_WEIGHT]));
}

export function noFilters() {
  return { bpm: ["", ""], octaves: false, years: ["", ""], keys: [], tags: [], artists: [] };
}

export const current = () => state;

/** Calls `watcher(state, changed)` after every change; `changed` is the set of names of what was replaced. */
export function watch(watcher) {
  watchers.push(watcher);
}

/** Whether what is to be near to is among the names that changed. */
export const asksAnew = (changed) => ASKED.some((name) => changed.has(name));

/** Replaces parts of the state. A new query or view is a new entry in the history; a moved slider is not. */
export function change(parts) {
  const fresh = ASKED.some((name) => name in parts);
  state = { ...state, ...(fresh ? { k: PAGE } : {}), ...parts };
  const address = `#${encoded()}`;
  const remember = fresh || "view" in parts;
  if (address !== location.hash) history[remember ? "pushState" : "replaceState"](null, "", address);
  notify(new Set(Object.keys(parts)));
}

/** Starts with what the address says, and follows it when the user goes back or edits it. */
export function follow(names) {
  dimensions = names;
  state = decoded(location.hash.slice(1));
  addEventListener("popstate", () => {
    state = decoded(location.hash.slice(1));
    notify(new Set(Object.keys(state)));
  });
  notify(new Set(Object.keys(state)));
}

function notify(changed) {
  for (const watcher of watchers) watcher(state, changed);
}

function encoded() {
  const parameters = new URLSearchParams();
  const put = (name, value) => value && parameters.append(name, value);
  put("track", state.query?.track);
  put("upload", state.query?.upload);
  put("name", state.query?.name);
  for (const track of state.also) put("also", track);
  for (const [name, track] of Object.entries(state.mix)) parameters.append(`mix.${name}`, track);
  for (const [name, weight] of Object.entries(state.weights)) if (weight !== START_WEIGHT) parameters.append(name, weight);
  put("bpm", pair(state.filters.bpm));
  put("octaves", state.filters.octaves ? "1" : "");
  put("years", pair(state.filters.years));
  for (const kind of ["keys", "tags", "artists"]) for (const value of state.filters[kind]) parameters.append(kind, value);
  put("perArtist", state.limits.perArtist === PER_ARTIST ? "" : state.limits.perArtist || "any");
  put("perAlbum", state.limits.perAlbum);
  put("k", state.k === PAGE ? "" : state.k);
  put("view", state.view === "results" ? "" : state.view);
  put("to", state.to);
  return parameters.toString();
}

const pair = ([low, high]) => (low || high ? `${low}..${high}` : "");

/** The state that an address tells; what makes no sense in it is left out. */
function decoded(text) {
  const parameters = new URLSearchParams(text);
  const read = emptyState();
  if (parameters.get("track")) read.query = { track: parameters.get("track") };
  else if (parameters.get("upload")) read.query = { upload: parameters.get("upload"), name: parameters.get("name") || "Uploaded file" };
  const also = new Set(parameters.getAll("also").filter((track) => track && track !== read.query?.track));
  read.also = [...also].slice(0, MOST_ALSO);
  for (const name of dimensions) {
    if (parameters.get(`mix.${name}`)) read.mix[name] = parameters.get(`mix.${name}`);
    const weight = Number.parseFloat(parameters.get(name));
    if (weight >= -1 && weight <= 1) read.weights[name] = weight;
  }
  for (const kind of ["bpm", "years"]) {
    const limits = /^([0-9.]*)\.\.([0-9.]*)$/.exec(parameters.get(kind) ?? "");
    if (limits) read.filters[kind] = [limits[1], limits[2]];
  }
  read.filters.octaves = parameters.get("octaves") === "1";
  for (const kind of ["keys", "tags", "artists"]) read.filters[kind] = parameters.getAll(kind);
  if (parameters.get("perArtist") === "any") read.limits.perArtist = "";
  for (const limit of ["perArtist", "perAlbum"])
    if (/^[1-9][0-9]?$/.test(parameters.get(limit) ?? "")) read.limits[limit] = parameters.get(limit);
  read.k = Math.min(500, Number.parseInt(parameters.get("k"), 10) || PAGE);
  if (VIEWS.includes(parameters.get("view"))) read.view = parameters.get("view");
  read.to = parameters.get("to") ?? "";
  return read;
}
