// "Which of these two is closer?": answers move the sliders to what this listener means by similar.

import { saveText } from "./api.js";
import { byId, el } from "./dom.js";
import { dimensions } from "./library.js";
import { playButton } from "./player.js";
import { report, settled } from "./problems.js";
import { forgetProfile, helps, learn, mostTelling, pairName, profileText, savedProfile } from "./profile.js";
import { queryOf } from "./request.js";
import { currentHits, watchHits } from "./results.js";
import { asksAnew, change, current, equalWeights, watch } from "./state.js";
import { counted, creditOf, factsOf, titleOf } from "./words.js";
import { asPositions, presetButton } from "./weights.js";

const shownPairs = new Set(); // by name, so that none is shown twice
let pair = null;
let stale = true; // whether the pair belongs to another query
let busy = false;

export function setUpCompare() {
  byId("compare-skip").addEventListener("click", next);
  byId("compare-reset").addEventListener("click", () => {
    forgetProfile();
    shownPairs.clear();
    change({ weights: equalWeights() });
    showLearnt();
    draw();
  });
  byId("compare-export").addEventListener("click", () => saveText(profileText(savedProfile()), "profile.json"));
  const mine = presetButton("What it learnt from me", () => asPositions(savedProfile().weights));
  mine.id = "preset-learnt";
  byId("presets").append(mine);
  // A pair stays until it is answered: learning moves the sliders, and results that change must not swap it under the pointer.
  watchHits((hits) => (stale || !pair || hits.length < 2) && draw());
  watch((_, changed) => {
    if (!asksAnew(changed)) return;
    shownPairs.clear();
    stale = true;
  });
  showLearnt();
}

function draw() {
  pair = mostTelling(currentHits(), shownPairs);
  stale = false;
  byId("compare-pair").replaceChildren(...(pair ? [card("A", 0), card("B", 1)] : []));
  byId("compare-skip").disabled = !pair;
  byId("compare-lead").textContent = lead();
}

function lead() {
  if (pair)
    return "Listen, then say which is more like the track you started from. Once your answers foresee each other better than equal sliders do, the sliders move to where your ear has put them.";
  if (!current().query) return "Choose a track to start from first; two tracks to compare then appear here.";
  return currentHits().length < 2
    ? "Two results are needed to compare; widen the filters."
    : "All pairs of these results were shown. Show more results, or start from another track.";
}

function card(letter, place) {
  const { track } = pair[place];
  const title = titleOf(track);
  return el(
    "article",
    { class: "pair-card", "aria-label": `${letter}: ${title}` },
    el("p", { class: "pair-letter", "aria-hidden": "true" }, letter),
    playButton(track),
    el(
      "div",
      {},
      el("h3", {}, title),
      el("p", { class: "soft" }, creditOf(track)),
      el("p", { class: "facts" }, factsOf(track).join("  ·  ")),
    ),
    el(
      "button",
      { type: "button", class: "choose", "aria-label": `${letter} is closer: ${title}`, onclick: () => choose(place) },
      `${letter} is closer`,
    ),
  );
}

async function choose(place) {
  if (busy) return;
  busy = true;
  const choice = {
    query: queryOf(current(), dimensions()),
    better: pair[place].track.id,
    worse: pair[1 - place].track.id,
  };
  try {
    const profile = await learn(choice);
    settled();
    // Weights that foresee no more than equal ones would only unsettle the list.
    if (helps(profile)) change({ weights: asPositions(profile.weights) });
    showLearnt(profile);
    next();
  } catch (error) {
    report(error, () => choose(place));
  } finally {
    busy = false;
  }
}

function next() {
  if (pair) shownPairs.add(pairName(pair));
  draw();
  byId("compare-title").focus({ preventScroll: true });
}

function showLearnt(profile = savedProfile()) {
  byId("compare-reset").hidden = !profile;
  for (const id of ["preset-learnt", "compare-export"]) byId(id).hidden = !profile || !helps(profile);
  byId("compare-status").textContent = profile ? learntText(profile) : "";
}

function learntText(profile) {
  const { choices, agreement, equal_agreement: equal } = profile;
  const answers = `Learnt from ${counted(choices.length, "answer")}.`;
  if (agreement === null || equal === null) return `${answers} The sliders wait for more.`;
  const percent = (share) => `${Math.round(100 * share)} %`;
  const figures = `${answers} It foresees ${percent(agreement)} of answers it has not seen; equal sliders foresee ${percent(equal)}.`;
  return helps(profile) ? figures : `${figures} The sliders wait until it does better.`;
}
