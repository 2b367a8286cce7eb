// Files that were searched with, kept for listening. They stay in this browser; after the page is loaded again they are gone.

const MOST = 4; // so that Back finds those before
const kept = new Map(); // token of an upload -> address of its sound, and what the server says of the file

/** Keeps a file for listening, with the server's notes of it, and lets the oldest go. */
export function keepSound(token, file, notes) {
  kept.set(token, { address: URL.createObjectURL(file), notes });
  for (const [oldest, { address }] of kept) {
    if (kept.size <= MOST) break;
    URL.revokeObjectURL(address);
    kept.delete(oldest);
  }
}

/** The address of the sound of an upload, or undefined. */
export const soundOf = (token) => kept.get(token)?.address;

/** What is wrong with the file of an upload though it is used: a list of texts. */
export const notesOf = (token) => kept.get(token)?.notes ?? [];
