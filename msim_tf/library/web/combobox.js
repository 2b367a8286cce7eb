// A text field with suggestions, after the ARIA pattern "editable combobox with list autocomplete".

import { isCancelled } from "./api.js";
import { debounced, el } from "./dom.js";

const WAIT = 150;

/**
 * Makes `input` a combobox.
 *
 * `suggest(text, signal)` gives (a promise of) [{ text, detail, value }]; `choose(suggestion)` is called for the one that is taken.
 * `none(text)` is what to say when there are no suggestions. `clear` empties the field after a choice.
 */
export function combobox(input, { suggest, choose, none, clear = false, onError = () => {} }) {
  const list = el("ul", { role: "listbox", id: `${input.id}-list`, class: "suggestions", "aria-label": "Suggestions" });
  const note = el("p", { class: "suggestions-note", role: "status" });
  const box = el("div", { class: "suggestions-box", hidden: true }, list, note);
  let suggestions = [];
  let active = -1;
  let pending = null; // { text, controller, promise }: the suggestions that are on their way
  let answered = null; // the text that the suggestions are for

  for (const [name, value] of Object.entries({
    role: "combobox",
    autocomplete: "off",
    spellcheck: "false",
    "aria-autocomplete": "list",
    "aria-expanded": "false",
    "aria-controls": list.id,
  }))
    input.setAttribute(name, value);
  input.after(box);

  function close() {
    box.hidden = true;
    input.setAttribute("aria-expanded", "false");
    activate(-1);
  }

  function activate(place) {
    list.children[active]?.setAttribute("aria-selected", "false");
    active = place;
    const option = list.children[active];
    if (!option) return input.removeAttribute("aria-activedescendant");
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    return input.setAttribute("aria-activedescendant", option.id);
  }

  function take(place) {
    const chosen = suggestions[place];
    input.value = clear ? "" : chosen.text;
    close();
    choose(chosen);
  }

  function show(text) {
    list.replaceChildren(
      ...suggestions.map((suggestion, place) =>
        el(
          "li",
          {
            role: "option",
            id: `${input.id}-${place}`,
            "aria-selected": "false",
            // Not on click: the field would lose the focus first, and close the list.
            onpointerdown: (event) => event.preventDefault(),
            onclick: () => take(place),
          },
          el("span", { class: "suggestion-text" }, suggestion.text),
          el("span", { class: "suggestion-detail" }, suggestion.detail ?? ""),
        ),
      ),
    );
    active = -1;
    input.removeAttribute("aria-activedescendant");
    list.hidden = !suggestions.length;
    note.textContent = suggestions.length ? "" : none(text);
    box.hidden = false;
    input.setAttribute("aria-expanded", String(suggestions.length > 0));
  }

  /** Asks for suggestions, once for a text: Enter and the pause after typing may both want the same. */
  function ask() {
    const text = input.value.trim();
    if (pending?.text !== text) {
      pending?.controller.abort();
      const mine = { text, controller: new AbortController() };
      pending = mine;
      mine.promise = fetchSuggestions(text, mine.controller.signal).finally(() => {
        if (pending === mine) pending = null;
      });
    }
    return pending.promise;
  }

  async function fetchSuggestions(text, signal) {
    try {
      suggestions = await suggest(text, signal);
      answered = text;
      if (document.activeElement === input) show(text);
    } catch (error) {
      if (!isCancelled(error)) onError(error);
    }
  }

  async function enter() {
    if (!fresh() || box.hidden) await ask();
    if (fresh() && suggestions.length) take(Math.max(active, 0));
  }

  const fresh = () => answered === input.value.trim();
  input.addEventListener(
    "input",
    debounced(() => fresh() || ask(), WAIT),
  );
  input.addEventListener("focus", () => input.value.trim() === "" && ask());
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      if (box.hidden) ask();
      else if (suggestions.length) activate((active + step + (active < 0 && step < 0 ? 1 : 0) + suggestions.length) % suggestions.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      enter();
    } else if (event.key === "Escape" && !box.hidden) {
      event.preventDefault();
      close();
    }
  });
}
