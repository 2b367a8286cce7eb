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

/** Tracks whose title, artist, album or path hold these words. */
export async function findTracks(text, limit, signal) {
  const page = await get("tracks", { search: text, limit }, signal);
  return page.tracks.map(know);
}

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
