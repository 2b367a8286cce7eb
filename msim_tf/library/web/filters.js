// What may be found.

import { combobox } from "./combobox.js";
import { byId, el, icon, reducedMotion } from "./dom.js";
import { commonWords, findArtists, library } from "./library.js";
import { report } from "./problems.js";
import { restrictionCount } from "./request.js";
import { change, current, noFilters, startLimits, watch } from "./state.js";
import { counted } from "./words.js";

const MOST_PER = 5;
const SHOWN = 12;

const SUGGESTIONS = { keys: suggestKeys, tags: suggestTags, artists: suggestArtists };

export function setUpFilters() {
  for (const kind of ["bpm", "years"]) setUpPair(kind);
  byId("octaves").addEventListener("change", (event) => set({ octaves: event.target.checked }));
  for (const [kind, suggest] of Object.entries(SUGGESTIONS)) setUpList(kind, suggest);
  setUpLimit("per-artist", "perArtist");
  setUpLimit("per-album", "perAlbum");
  byId("filters-reset").addEventListener("click", () =>
    change({ filters: noFilters(), limits: startLimits() }),
  );
  // Opened by hand, not by an address that holds filters; the fields are there in the next frame.
  byId("filters").querySelector("summary").addEventListener("click", () => requestAnimationFrame(intoView));
  hideUnknown();
  watch((state, changed) => {
    if (changed.has("filters") || changed.has("limits")) draw(state);
  });
}

/** Hides the filters of fields that no track of the library has. */
function hideUnknown() {
  const { keys, bpm, years, tags, artists, albums } = library();
  byId("filter-keys").hidden = !keys.length;
  byId("filter-bpm").hidden = !bpm;
  byId("filter-years").hidden = !years;
  byId("filter-tags").hidden = !Object.values(tags).some((counts) => counts.length);
  byId("filter-artists").hidden = !artists;
  for (const [id, count] of [["per-artist", artists], ["per-album", albums]])
    for (const part of [byId(id), document.querySelector(`label[for=${id}]`)]) part.hidden = !count;
  byId("tags").placeholder = commonWords().join(", ");
}

/** Scrolls the desk or the page until the open fields are seen, or their top if they are taller than that. */
function intoView() {
  const filters = byId("filters");
  if (!filters.open) return;
  const behavior = reducedMotion() ? "auto" : "smooth";
  filters.scrollIntoView({ block: filters.offsetHeight > innerHeight * 0.9 ? "start" : "nearest", behavior });
}

const set = (parts) => change({ filters: { ...current().filters, ...parts } });

function setUpPair(kind) {
  const ends = [byId(`${kind}-low`), byId(`${kind}-high`)];
  const range = library()[kind];
  ends.forEach((input, place) => {
    if (range) input.placeholder = String(Math.round(range[place]));
    input.addEventListener("input", () => {
      if (ends.every((end) => end.validity.valid)) set({ [kind]: ends.map((end) => end.value) });
    });
  });
}

function setUpList(kind, suggest) {
  combobox(byId(kind), {
    suggest: async (text, signal) =>
      (await suggest(text, signal)).filter((suggestion) => !current().filters[kind].includes(suggestion.text)).slice(0, SHOWN),
    choose: ({ text }) => set({ [kind]: [...current().filters[kind], text] }),
    none: () => "Nothing like that in the library.",
    clear: true,
    onError: report,
  });
}

function setUpLimit(id, limit) {
  const choices = ["", ...Array.from({ length: MOST_PER }, (_, place) => String(place + 1))];
  byId(id).replaceChildren(...choices.map((value) => el("option", { value }, value || "any")));
  byId(id).addEventListener("change", (event) =>
    change({ limits: { ...current().limits, [limit]: event.target.value } }),
  );
}

const holds = (text, part) => text.toLowerCase().includes(part.toLowerCase());

function suggestKeys(text) {
  return library()
    .keys.filter((key) => holds(key, text))
    .map((key) => ({ text: key }));
}

function suggestTags(text) {
  const suggestions = Object.entries(library().tags).flatMap(([kind, tags]) =>
    tags.map(([tag, count]) => ({ text: tag, detail: `${kind} · ${count}` })),
  );
  return suggestions.filter((tag) => holds(tag.text, text));
}

async function suggestArtists(text, signal) {
  // As many more as may be chosen already, which are not suggested again.
  const artists = await findArtists(text, SHOWN + current().filters.artists.length, signal);
  return artists.map(({ artist, tracks }) => ({ text: artist, detail: counted(tracks, "track") }));
}

function draw(state) {
  const { filters, limits } = state;
  for (const kind of ["bpm", "years"]) {
    ["low", "high"].forEach((end, place) => {
      const input = byId(`${kind}-${end}`);
      if (input !== document.activeElement) input.value = filters[kind][place];
    });
  }
  byId("octaves").checked = filters.octaves;
  byId("per-artist").value = limits.perArtist;
  byId("per-album").value = limits.perAlbum;
  for (const kind of Object.keys(SUGGESTIONS))
    byId(`${kind}-chips`).replaceChildren(...filters[kind].map((value) => chip(kind, value)));
  const count = restrictionCount(state);
  byId("filters-count").textContent = count ? `${counted(count, "filter")} on` : "";
  byId("filters-reset").disabled = !count;
  if (count) byId("filters").open = true;
}

function chip(kind, value) {
  const remove = () => {
    set({ [kind]: current().filters[kind].filter((kept) => kept !== value) });
    byId(kind).focus(); // the button that had it is gone
  };
  return el(
    "li",
    { class: "chip" },
    el("span", {}, value),
    el(
      "button",
      { type: "button", class: "chip-close", "aria-label": `Remove ${value}`, onclick: remove },
      icon("close"),
    ),
  );
}
