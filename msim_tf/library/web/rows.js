// One track in a list: title, why it is there, a radar, and what can be done with it.

import { el } from "./dom.js";
import { dimensions, know } from "./library.js";
import { playButton } from "./player.js";
import { addExample, mixIn } from "./query.js";
import { radar } from "./radar.js";
import { useTrack } from "./search.js";
import { capital, creditOf, factsOf, titleOf } from "./words.js";

let rowsMade = 0; // numbers their ids

/**
 * A row, kept while its track stays in the list, so that playing and keyboard focus survive a new order.
 * Gives { element, update(hit, place) }.
 */
export function trackRow(track, { list, mix = false } = {}) {
  know(track);
  const place = el("span", { class: "hit-place", "aria-hidden": "true" });
  const why = el("p", { class: "hit-why", id: `why-${(rowsMade += 1)}`, hidden: true });
  const drawing = el("div", { class: "hit-radar" });
  const versions = el("span", { class: "hit-versions soft small" });
  const title = titleOf(track);
  const button = playButton(track, list ? { list } : {});
  const element = el(
    "li",
    { class: "hit" },
    place,
    button,
    el(
      "div",
      { class: "hit-text" },
      el("h3", { class: "hit-title" }, title),
      el("p", { class: "hit-credit soft" }, [creditOf(track), ...factsOf(track)].filter(Boolean).join("  ·  "), " ", versions),
      el(
        "div",
        { class: "hit-actions" },
        whyButton(why, title),
        el(
          "button",
          { type: "button", class: "quiet use", "aria-label": `Use as query: ${title}`, onclick: () => useTrack(track) },
          "Use as query",
        ),
        mix ? exampleButton(track, title) : null,
        mix ? mixMenu(track, title) : null,
      ),
      why,
    ),
    drawing,
  );
  element.dataset.id = track.id;
  return {
    element,
    update(hit, number) {
      place.textContent = String(number);
      why.textContent = hit.explanation;
      const count = hit.versions.length;
      versions.textContent = count ? `${count + 1} versions` : "";
      versions.title = hit.versions.join("\n");
      drawing.replaceChildren(radar(hit.distances, dimensions()));
    },
  };
}

function whyButton(why, title) {
  const button = el(
    "button",
    {
      type: "button",
      class: "quiet why",
      "aria-label": `Why? The sum for ${title}`,
      "aria-expanded": "false",
      "aria-controls": why.id,
      onclick: () => {
        why.hidden = !why.hidden;
        button.setAttribute("aria-expanded", String(!why.hidden));
      },
    },
    "Why?",
  );
  return button;
}

const exampleButton = (track, title) =>
  el(
    "button",
    {
      type: "button",
      class: "quiet example",
      "aria-label": `Add as example: ${title}`,
      onclick: () => addExample(track),
    },
    "Add as example",
  );

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
