// The state as the API wants to be asked.

import { startLimits } from "./state.js";
import { FASTEST, SLOWEST } from "./words.js";

/** The query with its further examples and mixed-in dimensions. */
export function queryOf(state, dimensions) {
  const first = state.query.track ? { track: state.query.track } : { upload: state.query.upload };
  const base = state.also.length ? { examples: [first, ...state.also.map((track) => ({ track }))] } : first;
  if (!Object.keys(state.mix).length) return base;
  const part = (name) => (state.mix[name] ? { track: state.mix[name] } : base);
  return { mix: Object.fromEntries(dimensions.map((name) => [name, part(name)])) };
}

/** Filters and limits; what is not asked for is left out. */
export function restrictionsOf(state) {
  const { filters, limits } = state;
  const lists = Object.fromEntries(
    ["keys", "tags", "artists"].filter((kind) => filters[kind].length).map((kind) => [kind, filters[kind]]),
  );
  const bpm = range(filters.bpm, SLOWEST, FASTEST);
  const years = range(filters.years, 0, 9999);
  return {
    filters: { ...lists, ...(bpm ? { bpm, octaves: filters.octaves } : {}), ...(years ? { years } : {}) },
    diversity: {
      ...(limits.perArtist ? { per_artist: Number(limits.perArtist) } : {}),
      ...(limits.perAlbum ? { per_album: Number(limits.perAlbum) } : {}),
    },
  };
}

/** [low, high] with an open end at its limit, or null when both are open. */
function range([low, high], lowest, highest) {
  if (!low && !high) return null;
  const limits = [low ? Number(low) : lowest, high ? Number(high) : highest];
  // Of two limits in the wrong order it is clear what is meant.
  return limits.sort((a, b) => a - b);
}

/** How many restrictions are on. */
export function restrictionCount(state) {
  const { filters } = restrictionsOf(state);
  const usual = startLimits();
  const lists = ["keys", "tags", "artists"].map((kind) => filters[kind]?.length ?? 0);
  return (
    lists.reduce((sum, count) => sum + count, 0) +
    (filters.bpm ? 1 : 0) +
    (filters.years ? 1 : 0) +
    Object.keys(usual).filter((limit) => state.limits[limit] !== usual[limit]).length
  );
}

export const allOff = (weights) => Object.values(weights).every((weight) => weight === 0);
