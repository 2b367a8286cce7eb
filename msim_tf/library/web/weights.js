// Six sliders from -1 (unlike) over 0 (off) to 1, and presets that move them.

import { byId, el } from "./dom.js";
import { dimensions, library } from "./library.js";
import { change, current, equalWeights, START_WEIGHT, watch } from "./state.js";
import { capital } from "./words.js";

const sliders = new Map();

export function setUpWeights() {
  byId("sliders").replaceChildren(...dimensions().map(row));
  byId("weights-reset").addEventListener("click", () => change({ weights: equalWeights() }));
  // Those that the library can answer; one without weights counts all dimensions alike, which "Reset" does.
  const profiles = library().profiles.filter(({ weights }) => Object.keys(weights).length);
  byId("presets").replaceChildren(...profiles.map(({ title, weights }) => presetButton(title, () => weights)));
  watch((state, changed) => changed.has("weights") && draw(state.weights));
}

/** A button that moves the sliders to what `weights()` gives. */
export function presetButton(text, weights) {
  return el("button", { type: "button", class: "preset", onclick: () => change({ weights: allOf(weights()) }) }, text);
}

const allOf = (weights) => Object.fromEntries(dimensions().map((name) => [name, weights[name] ?? 0]));

/** Weights of any size as positions of sliders: the largest at its end. */
export function asPositions(weights) {
  const largest = Math.max(...Object.values(weights).map(Math.abs)) || 1;
  return allOf(
    Object.fromEntries(
      Object.entries(weights).map(([name, weight]) => [name, Math.round((100 * weight) / largest) / 100]),
    ),
  );
}

function row(name) {
  const id = `weight-${name}`;
  const slider = el("input", { type: "range", id, class: "slider", min: -1, max: 1, step: 0.01 });
  const value = el("output", { for: id, class: "slider-value" });
  slider.addEventListener("input", () => set(name, Number(slider.value)));
  slider.addEventListener("dblclick", () => set(name, START_WEIGHT));
  sliders.set(name, { slider, value });
  return el(
    "div",
    { class: "slider-row" },
    el("label", { for: id, title: "Double-click the slider to reset it" }, capital(name)),
    slider,
    value,
  );
}

function set(name, weight) {
  // The middle is hard to hit by hand, and "off" is what is meant near it.
  const snapped = Math.abs(weight) < 0.03 ? 0 : weight;
  change({ weights: { ...current().weights, [name]: snapped } });
}

function draw(weights) {
  for (const [name, { slider, value }] of sliders) {
    const weight = weights[name] ?? 0;
    if (Number(slider.value) !== weight) slider.value = String(weight);
    slider.setAttribute("aria-valuetext", spoken(weight));
    slider.classList.toggle("slider-unlike", weight < 0);
    slider.style.setProperty("--from", `${50 + 50 * Math.min(0, weight)}%`);
    slider.style.setProperty("--to", `${50 + 50 * Math.max(0, weight)}%`);
    value.textContent = shown(weight);
  }
}

const shown = (weight) => (weight === 0 ? "off" : weight.toFixed(2).replace("-", "−"));

function spoken(weight) {
  if (weight === 0) return "off";
  return weight < 0 ? `unlike, ${(-weight).toFixed(2)}` : weight.toFixed(2);
}
