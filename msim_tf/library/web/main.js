// Starts the page: the library first, then what shows it, then what the address asks for.

import { takeToken } from "./api.js";
import { setUpCompare } from "./compare.js";
import { byId } from "./dom.js";
import { setUpFilters } from "./filters.js";
import { loadLibrary } from "./library.js";
import { setUpMap } from "./map.js";
import { setUpPath } from "./path.js";
import { report, settled } from "./problems.js";
import { setUpQuery } from "./query.js";
import { setUpResults } from "./results.js";
import { setUpSearch } from "./search.js";
import { setUpSheet } from "./sheet.js";
import { follow } from "./state.js";
import { setUpViews } from "./views.js";
import { setUpWeights } from "./weights.js";
import { counted } from "./words.js";

async function start() {
  let library;
  try {
    library = await loadLibrary();
  } catch (error) {
    report(error, start);
    return;
  }
  settled();
  document.body.classList.toggle("is-empty", !library.tracks);
  byId("library-name").textContent = library.name;
  byId("library-facts").textContent = [
    counted(library.tracks, "track"),
    ...(library.artists ? [counted(library.artists, "artist")] : []),
    `embedded with ${library.model.name || "an unnamed model"}${library.model.version ? `, version ${library.model.version}` : ""}`,
  ].join(" · ");
  // The order of watchers is the order of drawing: the views are visible before what measures itself in them is drawn.
  for (const setUp of [
    setUpViews,
    setUpSearch,
    setUpQuery,
    setUpWeights,
    setUpFilters,
    setUpSheet,
    setUpResults,
    setUpCompare,
    setUpPath,
    setUpMap,
  ])
    setUp();
  follow(library.dimensions);
  document.body.classList.add("ready");
}

byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address holds what is asked for, not a place in the page
  byId("findings").focus();
});
takeToken();
start();
