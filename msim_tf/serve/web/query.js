// The card that says what the results are similar to.

import { byId, el, icon } from "./dom.js";
import { dimensions, trackOf } from "./library.js";
import { playButton } from "./player.js";
import { report } from "./problems.js";
import { change, current, watch } from "./state.js";
import { creditOf, factsOf, titleOf } from "./words.js";

let drawing = 0;

export function setUpQuery() {
  watch((state, changed) => {
    if (changed.has("query") || changed.has("mix")) draw(state).catch(report);
  });
}

/** Takes one dimension of the query from another track: "mood of this, tempo of that". */
export function mixIn(name, track) {
  change({ mix: { ...current().mix, [name]: track.id } });
}

async function draw(state) {
  drawing += 1;
  const mine = drawing;
  byId("query").hidden = !state.query;
  document.body.classList.toggle("has-query", Boolean(state.query));
  document.title = "msim";
  if (!state.query) return;
  const names = dimensions().filter((name) => state.mix[name]);
  const [track, ...mixed] = await Promise.all([subject(state.query), ...names.map((name) => trackOf(state.mix[name]))]);
  if (mine !== drawing) return; // another query was chosen meanwhile
  const title = titleOf(track);
  document.title = `${title} – msim`;
  byId("query-title").textContent = title;
  byId("query-credit").textContent = state.query.track ? creditOf(track) : "Your file";
  byId("query-facts").textContent = state.query.track ? factsOf(track).join("  ·  ") : "";
  byId("query-play").replaceChildren(...(state.query.track ? [playButton(track)] : []));
  byId("query-mix").replaceChildren(...names.map((name, place) => chip(name, mixed[place])));
}

const subject = (query) => (query.track ? trackOf(query.track) : { id: query.name, title: query.name });

function chip(name, track) {
  const title = titleOf(track);
  return el(
    "li",
    { class: "chip" },
    el("span", {}, `${name} of `, el("strong", {}, title)),
    el(
      "button",
      {
        type: "button",
        class: "chip-close",
        "aria-label": `Take ${name} from the query again, not from ${title}`,
        onclick: () => unmix(name),
      },
      icon("close"),
    ),
  );
}

function unmix(name) {
  const { [name]: _, ...rest } = current().mix;
  change({ mix: rest });
  byId("query-title").focus({ preventScroll: true });
}
