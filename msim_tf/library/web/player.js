// One audio element for the page, so that one track plays at a time, and the buttons that command it.

import { audioAddress } from "./api.js";
import { byId, el, icon } from "./dom.js";
import { clock, creditOf, titleOf } from "./words.js";

const VOLUME = "msim.volume"; // its name in the browser's storage
const RESTART_SECONDS = 3; // "previous" later than this is the beginning of the same track

const audio = byId("audio");
const seek = byId("player-seek");
let queue = []; // tracks that follow each other
let place = -1; // of the one that is loaded

/** A button that plays and pauses a track; `list()` gives the tracks among which it stands and that follow it. */
export function playButton(track, { list = () => [track], classes = "play" } = {}) {
  const button = el("button", { type: "button", class: classes, onclick: () => toggle(track, list) });
  button.dataset.play = track.id;
  button.dataset.title = titleOf(track);
  shown(button);
  return button;
}

function shown(button) {
  const on = button.dataset.play === queue[place]?.id && !audio.paused;
  if (button.dataset.on === String(on)) return;
  button.dataset.on = String(on);
  button.setAttribute("aria-label", `${on ? "Pause" : "Play"} ${button.dataset.title}`);
  button.replaceChildren(icon(on ? "pause" : "play"));
}

function toggle(track, list) {
  const same = track.id === queue[place]?.id;
  if (same && !audio.paused) {
    audio.pause();
    return;
  }
  // The list may have another order since; what follows is what is seen now.
  queue = list();
  const at = queue.findIndex(({ id }) => id === track.id);
  if (at < 0) queue = [track];
  place = Math.max(at, 0);
  if (same) {
    drawQueue();
    start();
  } else play(place);
}

/** Plays the track at a place of the queue; nothing where there is none. */
function play(at) {
  if (!queue[at]) return;
  place = at;
  const track = queue[place];
  audio.src = track.sound ?? audioAddress(track.id);
  byId("player").hidden = false;
  document.body.classList.add("has-player");
  byId("player-title").textContent = titleOf(track);
  byId("player-credit").textContent = creditOf(track);
  say("");
  const button = byId("player-toggle");
  button.dataset.play = track.id;
  button.dataset.title = titleOf(track);
  button.dataset.on = "";
  if ("mediaSession" in navigator)
    navigator.mediaSession.metadata = new MediaMetadata({
      title: titleOf(track),
      artist: track.artist ?? "",
      album: track.album ?? "",
    });
  everyButton();
  drawQueue();
  progress();
  start();
}

async function start() {
  try {
    await audio.play();
  } catch (error) {
    // Another track was chosen before this one could start, or the browser waits for a click: the file is good.
    if (!["AbortError", "NotAllowedError"].includes(error.name)) failed();
  }
}

function next() {
  play(place + 1);
}

function previous() {
  if (audio.currentTime > RESTART_SECONDS || place === 0) audio.currentTime = 0;
  else play(place - 1);
}

function failed() {
  say("This file cannot be played here. It may be gone, or of a format that this browser does not know.");
}

function say(text) {
  byId("player-error").textContent = text;
}

function drawQueue() {
  byId("player-next").disabled = place + 1 >= queue.length;
  byId("player-queue-summary").textContent = `Queue, ${place + 1} of ${queue.length}`;
  byId("player-queue-list").replaceChildren(
    ...queue.map((track, at) =>
      el(
        "li",
        {},
        el(
          "button",
          { type: "button", "aria-current": at === place && "true", onclick: () => play(at) },
          [titleOf(track), track.artist].filter(Boolean).join(" – "),
        ),
      ),
    ),
  );
}

function progress() {
  const length = Number.isFinite(audio.duration) ? audio.duration : 0;
  seek.max = String(length || 1);
  seek.value = String(audio.currentTime);
  seek.setAttribute("aria-valuetext", `${clock(audio.currentTime)} of ${clock(length)}`);
  byId("player-time").textContent = `${clock(audio.currentTime)} / ${clock(length)}`;
}

function setVolume(volume) {
  audio.volume = volume;
  byId("player-volume").value = String(volume);
  byId("player-volume").setAttribute("aria-valuetext", `${Math.round(100 * volume)} %`);
}

/** The volume that this browser remembers; full where it remembers none. */
function savedVolume() {
  try {
    const volume = Number.parseFloat(localStorage.getItem(VOLUME));
    return volume >= 0 && volume <= 1 ? volume : 1;
  } catch {
    return 1; // storage is switched off
  }
}

/** The keys of keyboards and headphones, and the controls on a phone's lock screen. */
function setUpMediaKeys() {
  if (!("mediaSession" in navigator)) return;
  const actions = { play: start, pause: () => audio.pause(), nexttrack: next, previoustrack: previous };
  for (const [action, handler] of Object.entries(actions)) navigator.mediaSession.setActionHandler(action, handler);
  navigator.mediaSession.setActionHandler("seekto", ({ seekTime }) => {
    audio.currentTime = seekTime;
  });
}

function everyButton() {
  document.querySelectorAll("[data-play]").forEach(shown);
}

byId("player-toggle").addEventListener("click", () => (audio.paused ? start() : audio.pause()));
byId("player-next").addEventListener("click", next);
byId("player-previous").addEventListener("click", previous);
byId("player-queue").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  byId("player-queue").open = false;
  byId("player-queue-summary").focus();
});
byId("player-volume").addEventListener("input", (event) => {
  setVolume(Number(event.target.value));
  try {
    localStorage.setItem(VOLUME, event.target.value);
  } catch {
    // Storage is full or off: the volume holds until the page is left.
  }
});
seek.addEventListener("input", () => {
  audio.currentTime = Number(seek.value);
});
for (const name of ["timeupdate", "durationchange", "seeked"]) audio.addEventListener(name, progress);
for (const name of ["play", "pause", "ended", "emptied"]) audio.addEventListener(name, everyButton);
audio.addEventListener("error", failed);
audio.addEventListener("ended", next);
// What stands on the bottom of the page keeps above the player, whose height depends on what it says.
new ResizeObserver(() => {
  document.body.style.setProperty("--player", `${byId("player").offsetHeight}px`);
}).observe(byId("player"));
setVolume(savedVolume());
setUpMediaKeys();
