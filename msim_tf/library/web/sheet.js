// On a phone, sliders and filters are a sheet over the lower half, so that the hits above it answer at once.

import { byId } from "./dom.js";

export function setUpSheet() {
  const toggle = byId("sheet-toggle");
  toggle.addEventListener("click", () => set(toggle.getAttribute("aria-expanded") !== "true"));
  byId("sheet").addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || toggle.getAttribute("aria-expanded") !== "true") return;
    set(false);
    toggle.focus();
  });
}

function set(open) {
  const toggle = byId("sheet-toggle");
  toggle.setAttribute("aria-expanded", String(open));
  toggle.textContent = open ? "Close sliders and filters" : "Sliders and filters";
  document.body.classList.toggle("sheet-open", open);
  if (open) byId("findings").scrollIntoView();
}
