// One audio element for the page, so that one track plays at a time, and the buttons that command it.

import { audioAddress } from "./api.js";
import { byId, el, icon } from "./dom.js";
import { clock, creditOf, titleOf } from "./words.js";

const audio = byId("audio");
const bar = byId("player");
const seek = byId("player-seek");
let playing = null; // the track that is loaded
let queue = []; // what follows by itself

/** A button that plays and pauses a track; `next` are tracks that follow it. */
export function playButton(track, { next = [], classes = "play" } = {}) {
  const button = el("button", { type: "button", class: classes, onclick: () => toggle(track, next) });
  button.dataset.play = track.id;
  button.dataset.title = titleOf(track);
  shown(button);
  return button;
}

function shown(button) {
  const on = button.dataset.play === playing?.id && !audio.paused;
  if (button.dataset.on === String(on)) return;
  button.dataset.on = String(on);
  button.setAttribute("aria-label", `${on ? "Pause" : "Play"} ${button.dataset.title}`);
  button.replaceChildren(icon(on ? "pause" : "play"));
}

function toggle(track, next) {
  if (track.id === playing?.id && !audio.paused) {
    audio.pause();
    return;
  }
  if (track.id !== playing?.id) load(track);
  queue = next;
  start();
}

function load(track) {
  playing = track;
  audio.src = track.sound ?? audioAddress(track.id);
  bar.hidden = false;
  document.body.classList.add("has-player");
  byId("player-title").textContent = titleOf(track);
  byId("player-credit").textContent = creditOf(track);
  say("");
  const button = byId("player-toggle");
  button.dataset.play = track.id;
  button.dataset.title = titleOf(track);
  button.dataset.on = "";
  progress();
}

async function start() {
  try {
    await audio.play();
  } catch (error) {
    // Another track was chosen before this one could start: nothing went wrong.
    if (error.name !== "AbortError") failed();
  }
}

function failed() {
  say("This file cannot be played here. It may be gone, or of a format that this browser does not know.");
}

function say(text) {
  byId("player-error").textContent = text;
}

function progress() {
  const length = Number.isFinite(audio.duration) ? audio.duration : 0;
  seek.max = String(length || 1);
  seek.value = String(audio.currentTime);
  seek.setAttribute("aria-valuetext", `${clock(audio.currentTime)} of ${clock(length)}`);
  byId("player-time").textContent = `${clock(audio.currentTime)} / ${clock(length)}`;
}

function everyButton() {
  document.querySelectorAll("[data-play]").forEach(shown);
}

byId("player-toggle").addEventListener("click", () => playing && toggle(playing, queue));
seek.addEventListener("input", () => {
  audio.currentTime = Number(seek.value);
});
for (const name of ["timeupdate", "durationchange", "seeked"]) audio.addEventListener(name, progress);
for (const name of ["play", "pause", "ended", "emptied"]) audio.addEventListener(name, everyButton);
audio.addEventListener("error", failed);
audio.addEventListener("ended", () => {
  const [track, ...rest] = queue;
  if (!track) return;
  load(track);
  queue = rest;
  start();
});
