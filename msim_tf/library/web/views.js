// The tabs: results, map, compare, path.

import { byId } from "./dom.js";
import { change, watch } from "./state.js";

const VIEWS = ["results", "map", "compare", "path"];

export function setUpViews() {
  VIEWS.forEach((view, place) => {
    const tab = byId(`tab-${view}`);
    tab.addEventListener("click", () => change({ view }));
    tab.addEventListener("keydown", (event) => {
      const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: VIEWS.length - 1 }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      const to = VIEWS[(next + VIEWS.length) % VIEWS.length];
      change({ view: to });
      byId(`tab-${to}`).focus();
    });
  });
  watch((state, changed) => changed.has("view") && draw(state.view));
}

function draw(shown) {
  for (const view of VIEWS) {
    const tab = byId(`tab-${view}`);
    tab.setAttribute("aria-selected", String(view === shown));
    tab.tabIndex = view === shown ? 0 : -1;
    byId(view).hidden = view !== shown;
  }
}
