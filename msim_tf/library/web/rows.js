// One track in a list: what it is called, why it is there in words and in bars, and what can be done with it.

import { bars } from "./bars.js";
import { el } from "./dom.js";
import { dimensions, know } from "./library.js";
import { playButton } from "./player.js";
import { addExample, mixIn } from "./query.js";
import { useTrack } from "./search.js";
import { current } from "./state.js";
import { capital, clock, creditOf, factsOf, titleOf } from "./words.js";

let rowsMade = 0; // numbers their ids

/**
 * A row, kept while its track stays in the list, so that playing and keyboard focus survive a new order.
 * Gives { element, update(hit, place) }.
 */
export function trackRow(track, { list, mix = false } = {}) {
  know(track);
  const title = titleOf(track);
  const place = el("span", { class: "hit-place", "aria-hidden": "true" });
  const summary = el("p", { class: "hit-summary" });
  const why = el("p", { class: "hit-why", id: `why-${(rowsMade += 1)}`, hidden: true });
  const versions = el("span", { class: "hit-versions soft small" });
  const drawing = el("div", { class: "hit-bars" });
  const element = el(
    "li",
    { class: "hit" },
    place,
    playButton(track, list ? { list } : {}),
    el(
      "div",
      { class: "hit-text" },
      el("div", { class: "hit-head" }, el("h3", { class: "hit-title" }, title), credit(track)),
      summary,
      el(
        "div",
        { class: "hit-actions" },
        whyButton(why, title),
        action("use", "Use as query", title, () => useTrack(track)),
        mix ? action("example", "Add as example", title, () => addExample(track)) : null,
        mix ? mixMenu(track, title) : null,
        versions,
      ),
    ),
    drawing,
    why,
  );
  element.dataset.id = track.id;
  return {
    element,
    update(hit, number) {
      place.textContent = String(number);
      // A library that nothing is known of has distances only; then tempo, key and tags say nothing either.
      summary.textContent = hit.summary || factsOf(track).join("  ·  ");
      why.textContent = hit.explanation;
      const count = hit.versions.length;
      versions.textContent = count ? `${count + 1} versions` : "";
      versions.title = hit.versions.join("\n");
      drawing.replaceChildren(bars(hit.distances, current().weights));
    },
  };
}

function credit(track) {
  const length = track.seconds ? clock(track.seconds) : "";
  return el("p", { class: "hit-credit soft" }, [creditOf(track), length].filter(Boolean).join("  ·  "));
}

/** A button that says what it does, and to a screen reader also with which track. */
const action = (name, text, title, onclick) =>
  el("button", { type: "button", class: `quiet ${name}`, "aria-label": `${text}: ${title}`, onclick }, text);

function whyButton(why, title) {
  const button = action("why", "Why?", title, () => {
    why.hidden = !why.hidden;
    button.setAttribute("aria-expanded", String(!why.hidden));
  });
  button.setAttribute("aria-expanded", "false");
  button.setAttribute("aria-controls", why.id);
  return button;
}

function mixMenu(track, title) {
  const menu = el(
    "details",
    { class: "menu" },
    el("summary", { "aria-label": `Use its … (one dimension of ${title})` }, "Use its …"),
  );
  const close = () => menu.removeAttribute("open");
  const choices = dimensions().map((name) =>
    el("button", { type: "button", onclick: () => (close(), mixIn(name, track)) }, capital(name)),
  );
  menu.append(el("div", { class: "menu-choices" }, ...choices));
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    close();
    menu.querySelector("summary").focus();
  });
  menu.addEventListener("focusout", (event) => menu.contains(event.relatedTarget) || close());
  return menu;
}
