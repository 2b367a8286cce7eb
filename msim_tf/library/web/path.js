// A playlist that turns from the query to another track.

import { download, isCancelled, post } from "./api.js";
import { combobox } from "./combobox.js";
import { byId, debounced } from "./dom.js";
import { trackOf } from "./library.js";
import { report, settled } from "./problems.js";
import { allOff, restrictionsOf } from "./request.js";
import { currentHits, watchHits } from "./results.js";
import { trackRow } from "./rows.js";
import { suggestTracks } from "./search.js";
import { change, current, startLimits, watch } from "./state.js";
import { counted, titleOf } from "./words.js";

const WAIT = 200;
let asking = null;
let shown = null; // the request that gave what is shown

export function setUpPath() {
  combobox(byId("path-to"), {
    suggest: suggestTracks,
    choose: ({ value }) => change({ to: value.id }),
    none: () => "No such track.",
    onError: report,
  });
  byId("path-playlist").addEventListener("click", () =>
    download("path.m3u8", shown, "path.m3u8").catch((error) => report(error)),
  );
  const soon = debounced(ask, WAIT);
  byId("path-length").addEventListener("input", soon);
  watch((state, changed) => {
    const concerned = ["query", "to", "view", "weights", "filters", "limits"].some((name) => changed.has(name));
    if (state.view === "path" && concerned) soon();
  });
  watchHits(() => current().view === "path" && current().query?.upload && soon());
}

async function ask() {
  asking?.abort();
  const mine = new AbortController();
  asking = mine;
  const state = current();
  const from = startOf(state);
  try {
    byId("path-lead").textContent = await lead(state, from);
    if (
      !from ||
      !state.to ||
      from === state.to ||
      !byId("path-length").validity.valid ||
      allOff(positive(state.weights))
    )
      return show([]);
    const body = {
      from,
      to: state.to,
      length: Number(byId("path-length").value),
      weights: positive(state.weights),
      ...restrictions(state),
    };
    const answer = await post("path", body, mine.signal);
    settled();
    shown = body;
    return show(answer.tracks);
  } catch (error) {
    if (isCancelled(error)) return undefined;
    show([]);
    return report(error, ask);
  }
}

/** The track that a playlist starts at: the query, or what is nearest to a file; undefined before that is known. */
const startOf = ({ query }) => query?.track ?? (query?.upload ? currentHits()[0]?.track.id : undefined);

/** As for the hits. The usual limits are left to the server, which goes beyond them where no other track is left. */
function restrictions(state) {
  const { filters, diversity } = restrictionsOf(state);
  const usual = Object.entries(startLimits()).every(([limit, value]) => state.limits[limit] === value);
  return usual ? { filters } : { filters, diversity };
}

/** There is no way "unlike" something to a given end. */
const positive = (weights) =>
  Object.fromEntries(Object.entries(weights).map(([name, weight]) => [name, Math.max(0, weight)]));

async function lead(state, from) {
  if (!from) return "Choose a track to start from first, or a file of your own.";
  const start = titleOf(await trackOf(from));
  if (!state.to)
    return `Starts at “${start}”${state.query.upload ? ", the nearest to your file" : ""}. Choose where it should end, and the tracks between turn gradually from one to the other.`;
  const end = titleOf(await trackOf(state.to));
  if (state.to === from) return `It cannot end where it starts, at “${start}”. Choose another end.`;
  if (allOff(positive(state.weights))) return "Raise at least one slider: a playlist needs something to be alike in.";
  return `From “${start}”${state.query.upload ? ", the nearest to your file," : ""} to “${end}”, each track close to the one before. Sliders and filters count; “unlike” does not.`;
}

function show(steps) {
  const tracks = steps.map((step) => step.track);
  const rows = steps.map((step, place) => {
    const row = trackRow(step.track, { list: () => tracks });
    // The first has no track before it: its distances are all 0 and would only look like an answer.
    row.update(place ? step : { ...step, distances: {}, explanation: "The start" }, place + 1);
    return row.element;
  });
  byId("path-list").replaceChildren(...rows);
  byId("path-save").hidden = !steps.length;
  byId("path-status").textContent = steps.length
    ? `${counted(steps.length, "track")}; play one and the next follow`
    : "";
}
