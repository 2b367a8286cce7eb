// The library API (api/v1/openapi.json describes it), and what to tell people when it refuses or is gone.

// Relative to this script: the page may stand below a prefix, e.g. at /msim/ behind a proxy.
const API = new URL("api/v1/", import.meta.url);
const TOKEN = `msim.token ${API.pathname}`; // another library of this host has a token of its own
let token = "";

/** Takes the token out of the address, so that it is neither shared with a link nor kept in the history. */
export function takeToken() {
  const address = new URL(location.href);
  const shared = address.searchParams.get("token");
  if (shared !== null) {
    saveToken(shared);
    address.searchParams.delete("token");
    history.replaceState(null, "", address);
  }
  token = sessionStorage.getItem(TOKEN) ?? "";
}

export function saveToken(text) {
  token = text.trim();
  sessionStorage.setItem(TOKEN, token);
}

/** A refusal, in words that say what to do. `status` is 0 when there was no answer at all. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Whether this is only a request that a newer one has replaced. */
export const isCancelled = (error) => error.name === "AbortError";

export const get = (path, query = {}, signal) => answer(`${path}?${new URLSearchParams(query)}`, { signal });

export function post(path, body, signal) {
  return answer(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
    signal,
  });
}

/** Sends a sound file. Its name stays here: the server neither needs it nor gets it. */
export async function upload(file, signal) {
  const type = file.type.startsWith("audio/") ? file.type : "application/octet-stream";
  try {
    return await answer("upload", { method: "POST", body: file, headers: { "Content-Type": type }, signal });
  } catch (error) {
    if (error.status !== 0) throw error;
    // A server that refuses a large file closes the connection while the browser still sends, which looks like no answer.
    await get("library", {}, signal);
    throw new Refusal(
      413,
      "The server stopped receiving this file. It is probably too large: try a shorter excerpt or an mp3 or ogg of it.",
    );
  }
}

/** The address of a track's sound. An audio element sends no headers, so the token has to be in it. */
export function audioAddress(id) {
  const address = `${API}audio/${encodeURIComponent(id)}`;
  return token ? `${address}?token=${encodeURIComponent(token)}` : address;
}

/** Saves a playlist of the API as a file; lists and objects among the parameters go as JSON. */
export async function download(path, parameters, name) {
  const text = Object.entries(parameters).map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)]);
  const response = await received(`${path}?${new URLSearchParams(text)}`, {});
  save(await response.blob(), name);
}

/** Saves a text as a file. */
export const saveText = (text, name) => save(new Blob([text], { type: "application/json" }), name);

function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // long after the browser has begun to write
}

const answer = async (path, options) => (await received(path, options)).json();

async function received(path, options) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${headerText(token)}` } : {}) };
  let response;
  try {
    response = await fetch(`${API}${path}`, { ...options, headers });
  } catch (error) {
    if (isCancelled(error)) throw error;
    throw new Refusal(0, "The server does not answer. Is msim serve still running?");
  }
  if (response.ok) return response;
  throw new Refusal(response.status, advice(response.status, await reason(response)));
}

/** Headers hold bytes, one per character: the text as UTF-8. */
const headerText = (text) => String.fromCharCode(...new TextEncoder().encode(text));

async function reason(response) {
  try {
    return (await response.json()).error ?? response.statusText;
  } catch {
    return response.statusText;
  }
}

function advice(status, reason) {
  const what = reason.charAt(0).toUpperCase() + reason.slice(1);
  if (status === 401) return "This library asks for a token: it is in the address that msim serve printed.";
  if (status === 413) return `${what}. Try a shorter excerpt, or an mp3 or ogg of it.`;
  if (status === 422) return `${what}. Try another file: wav, flac, ogg, opus and mp3 are understood.`;
  if (status === 503) return `${what}. Wait a moment, then try again.`;
  return `${what}.`;
}
