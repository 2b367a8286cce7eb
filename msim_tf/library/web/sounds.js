// Files that were searched with, kept for listening. They stay in this browser; after the page is loaded again they are gone.

const MOST = 4; // so that Back finds those before
const kept = new Map(); // token of an upload -> address of its sound

/** Keeps a file for listening, and lets the oldest go. */
export function keepSound(token, file) {
  kept.set(token, URL.createObjectURL(file));
  for (const [oldest, address] of kept) {
    if (kept.size <= MOST) break;
    URL.revokeObjectURL(address);
    kept.delete(oldest);
  }
}

/** The address of the sound of an upload, or undefined. */
export const soundOf = (token) => kept.get(token);
