// Weights that are learnt from choices ("this one is closer"), kept in this browser.

import { post } from "./api.js";
import { library } from "./library.js";

const address = () => `msim.choices.${library().name}`;

/** What was learnt: { choices, weights, agreement, equal_agreement }, or null. */
export function savedProfile() {
  try {
    const saved = JSON.parse(localStorage.getItem(address()));
    return saved?.choices?.length && saved.weights ? saved : null;
  } catch {
    return null; // not ours, or storage is switched off
  }
}

/** Whether the weights foresee answers that they have not seen better than equal weights do. */
export const helps = ({ agreement, equal_agreement: equal }) => agreement !== null && equal !== null && agreement > equal;

/** The profile as a file for msim query --profile. */
export function profileText({ choices, weights, agreement, equal_agreement }) {
  const header = { format: "msim-weights", format_version: 1, name: library().name };
  return JSON.stringify({ ...header, weights, choices: choices.length, agreement, equal_agreement }, null, 1);
}

export function forgetProfile() {
  localStorage.removeItem(address());
}

/** Learns from one more choice { query, better, worse }; gives the new profile. */
export async function learn(choice, signal) {
  const choices = [...(savedProfile()?.choices ?? []), choice];
  try {
    return await learnt(choices, signal);
  } catch (error) {
    if (error.status !== 404) throw error;
    // Uploads are forgotten after an hour and tracks may be removed: choices about them cannot be learnt from again.
    const ofTracks = choices.filter((kept) => kept.query.track);
    return learnt(ofTracks.length && ofTracks.length < choices.length ? ofTracks : [choice], signal);
  }
}

async function learnt(choices, signal) {
  const { weights, agreement, equal_agreement } = await post("profile", { name: "page", choices }, signal);
  const profile = { choices, weights, agreement, equal_agreement };
  try {
    localStorage.setItem(address(), JSON.stringify(profile));
  } catch {
    // Storage is full or off: the sliders still move, they are only not remembered.
  }
  return profile;
}

/** Which two of these hits tell most: about equally far on the whole, but for different reasons; null when all are among `except`. */
export function mostTelling(hits, except) {
  let best = null;
  for (let i = 0; i < hits.length; i += 1) {
    for (let j = i + 1; j < hits.length; j += 1) {
      const pair = [hits[i], hits[j]];
      const value = telling(pair);
      if (!except.has(pairName(pair)) && (!best || value > best.value)) best = { pair, value };
    }
  }
  return best?.pair ?? null;
}

export const pairName = (pair) =>
  pair
    .map((hit) => hit.track.id)
    .sort()
    .join("\n");

function telling([a, b]) {
  const differences = Object.keys(a.distances).map((name) => a.distances[name] - b.distances[name]);
  const apart = differences.reduce((sum, difference) => sum + Math.abs(difference), 0);
  return apart - 2 * Math.abs(differences.reduce((sum, difference) => sum + difference, 0));
}
