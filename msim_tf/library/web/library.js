// The library and its tracks, each asked for once.

import { get } from "./api.js";

let overview = null;
const tracks = new Map();

export async function loadLibrary() {
  overview = await get("library");
  return overview;
}

export const library = () => overview;
export const dimensions = () => overview.dimensions;

/** A track with its tags; asked for once, unless that failed. */
export function trackOf(id) {
  if (!tracks.has(id)) {
    const request = get(`tracks/${encodeURIComponent(id)}`);
    request.catch(() => tracks.delete(id));
    tracks.set(id, request);
  }
  return tracks.get(id);
}

/** Remembers a track that came with another answer. */
export function know(track) {
  tracks.set(track.id, Promise.resolve(track));
  return track;
}

/**
 * Tracks that are called so, or are as the text describes them: { tracks, understood }.
 * `understood` says which filters the text stands for, and is null where it has only names.
 */
export async function findTracks(text, limit, signal) {
  const { tracks: page, understood } = await get("tracks", { search: text, limit }, signal);
  return { tracks: page.map(know), understood };
}

/** The commonest mood, instrument and genre: examples of words that can be asked for. */
export const commonWords = () =>
  ["mood", "instrument", "genre"].flatMap((kind) => (overview.tags[kind] ?? []).slice(0, 1).map(([tag]) => tag));

/** Artists whose name holds these words, those of most tracks first: [{ artist, tracks }]. */
export async function findArtists(text, limit, signal) {
  return (await get("artists", { search: text, limit }, signal)).artists;
}

/** Any track of a library that has some. */
export async function randomTrack() {
  const offset = Math.floor(Math.random() * overview.tracks);
  const page = await get("tracks", { limit: 1, offset });
  return know(page.tracks[0]);
}
