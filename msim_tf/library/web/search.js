// Where a query comes from: the search box, a file, or chance.

import { upload } from "./api.js";
import { combobox } from "./combobox.js";
import { byId } from "./dom.js";
import { commonWords, findTracks, library, randomTrack } from "./library.js";
import { report, settled } from "./problems.js";
import { keepSound } from "./sounds.js";
import { change, current } from "./state.js";
import { counted, creditOf, openEnds, tempoText, titleOf } from "./words.js";

const SHOWN = 8;
let sending = null;

/** Suggestions for a combobox of tracks. */
export async function suggestTracks(text, signal) {
  const { tracks } = await findTracks(text, SHOWN, signal);
  return tracks.map(trackSuggestion);
}

const trackSuggestion = (track) => ({ text: titleOf(track), detail: creditOf(track), value: track });

/** Suggestions for the search box: tracks, and where the text has words that the library knows, to filter by them. */
async function suggestWordsAndTracks(text, signal) {
  const { tracks, understood } = await findTracks(text, SHOWN, signal);
  const suggestions = tracks.map(trackSuggestion);
  if (!understood?.tracks) return suggestions;
  // First, and so what Enter takes, only where every word is one to filter by.
  const only = onlySuggestion(understood, tracks);
  return understood.rest ? [...suggestions, only] : [only, ...suggestions];
}

function onlySuggestion({ filters, tracks: count }, tracks) {
  const { bpm, keys = [], tags = [] } = filters;
  const words = [...tags, ...keys, ...(bpm ? [tempoText(bpm)] : [])];
  const start = current().query ? "" : ", starting at one of them";
  return { text: `Only ${words.join(", ")}`, detail: `${counted(count, "track")}${start}`, only: { filters, tracks } };
}

/** Filters by words; without a query, one of the tracks that are so becomes it. */
function useWords({ filters, tracks }) {
  const { bpm, keys = [], tags = [] } = filters;
  const ends = bpm ? openEnds(bpm).map((end) => (end === null ? "" : String(end))) : ["", ""];
  change({ filters: { ...current().filters, bpm: ends, keys, tags } });
  if (!current().query) useTrack(tracks[Math.floor(Math.random() * tracks.length)]);
}

/** Makes a track the query, and brings the reader to it. */
export function useTrack(track) {
  change({ query: { track: track.id }, also: [], mix: {}, ...(current().view === "map" ? {} : { view: "results" }) });
  byId("query-title").focus({ preventScroll: true });
}

/** Sets up search box, dropping and choosing of files, and the button for any track. */
export function setUpSearch() {
  combobox(byId("search"), {
    suggest: suggestWordsAndTracks,
    choose: ({ only, value }) => (only ? useWords(only) : useTrack(value)),
    none: (text) =>
      library().tracks
        ? `Nothing in the library has “${text}” in its title, artist, album or path, or among its words.`
        : "The library is empty: run msim index.",
    clear: true,
    onError: report,
  });
  const words = commonWords().slice(0, 2).join(" ");
  if (words) byId("search").placeholder = `Title, artist, or ${words} …`;
  byId("surprise").disabled = !library().tracks;
  byId("search-form").addEventListener("submit", (event) => event.preventDefault());
  byId("surprise").addEventListener("click", () => randomTrack().then(useTrack, report));
  byId("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = ""; // so that the same file can be chosen again
    if (file) send(file);
  });
  byId("uploading-cancel").addEventListener("click", () => sending?.abort());
  setUpDropping();
}

function setUpDropping() {
  const holdsFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  // The whole page takes the file: to miss the box would make the browser leave the page and play it.
  addEventListener("dragover", (event) => {
    if (!holdsFile(event)) return;
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dragging"));
  addEventListener("drop", (event) => {
    if (!holdsFile(event)) return;
    event.preventDefault();
    document.body.classList.remove("dragging");
    if (event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
  });
}

async function send(file) {
  sending?.abort();
  const mine = new AbortController();
  sending = mine;
  byId("uploading-text").textContent = `Listening to ${file.name} …`;
  byId("uploading").hidden = false;
  try {
    const { upload: token, notes } = await upload(file, mine.signal);
    settled();
    keepSound(token, file, notes);
    change({ query: { upload: token, name: file.name }, also: [], mix: {}, view: "results" });
    byId("query-title").focus({ preventScroll: true });
  } catch (error) {
    report(error, () => send(file));
  } finally {
    if (sending === mine) byId("uploading").hidden = true;
  }
}
