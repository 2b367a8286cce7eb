// The card that says what the results are similar to.

import { byId, el, icon } from "./dom.js";
import { dimensions, trackOf } from "./library.js";
import { playButton } from "./player.js";
import { report } from "./problems.js";
import { notesOf, soundOf } from "./sounds.js";
import { asksAnew, change, current, MOST_ALSO, watch } from "./state.js";
import { creditOf, factsOf, titleOf } from "./words.js";

let drawing = 0;

export function setUpQuery() {
  watch((state, changed) => {
    if (asksAnew(changed)) draw(state).catch(report);
  });
}

/** Takes one dimension of the query from another track: "mood of this, tempo of that". */
export function mixIn(name, track) {
  change({ mix: { ...current().mix, [name]: track.id } });
}

/** One more example: what is near to all of them is wanted. */
export function addExample(track) {
  const { query, also } = current();
  if (also.includes(track.id) || query.track === track.id) return;
  change({ also: [...also, track.id].slice(-MOST_ALSO), view: "results" });
  byId("query-title").focus({ preventScroll: true });
}

async function draw(state) {
  drawing += 1;
  const mine = drawing;
  byId("query").hidden = !state.query;
  document.body.classList.toggle("has-query", Boolean(state.query));
  document.title = "msim";
  if (!state.query) return;
  const names = dimensions().filter((name) => state.mix[name]);
  const [track, also, mixed] = await Promise.all([
    subject(state.query),
    Promise.all(state.also.map(trackOf)),
    Promise.all(names.map((name) => trackOf(state.mix[name]))),
  ]);
  if (mine !== drawing) return; // another query was chosen meanwhile
  const title = titleOf(track);
  document.title = `${title} – msim`;
  byId("query-title").textContent = title;
  byId("query-credit").textContent = creditOf(track);
  byId("query-facts").textContent = (state.query.track ? factsOf(track) : notesOf(state.query.upload)).join("  ·  ");
  byId("query-heard").textContent = track.described?.length ? `Heard by the model: ${track.described.join(", ")}` : "";
  byId("query-play").replaceChildren(...(state.query.track || track.sound ? [playButton(track)] : []));
  byId("query-also").replaceChildren(...also.map(exampleChip));
  byId("query-mix").replaceChildren(...names.map((name, place) => mixChip(name, mixed[place])));
}

/** The track, or the file as if it were one; no track's id begins with a slash. */
const subject = ({ track, upload, name }) =>
  track ? trackOf(track) : { id: `/upload/${upload}`, title: name, artist: "Your file", sound: soundOf(upload) };

function exampleChip(track) {
  const title = titleOf(track);
  const without = () => ({ also: current().also.filter((id) => id !== track.id) });
  return chip(["and ", el("strong", {}, title)], `Take ${title} out of the examples`, without);
}

function mixChip(name, track) {
  const title = titleOf(track);
  const without = () => ({ mix: Object.fromEntries(Object.entries(current().mix).filter(([kept]) => kept !== name)) });
  return chip([`${name} of `, el("strong", {}, title)], `Take ${name} from the query again, not from ${title}`, without);
}

function chip(content, label, without) {
  const remove = () => {
    change(without());
    byId("query-title").focus({ preventScroll: true }); // the button that had it is gone
  };
  return el(
    "li",
    { class: "chip" },
    el("span", {}, ...content),
    el("button", { type: "button", class: "chip-close", "aria-label": label, onclick: remove }, icon("close")),
  );
}
