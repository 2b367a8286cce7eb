// How tracks are called. A track without tags is called by its file's name.

/** The title, or the name of the file without folder and suffix. */
export function titleOf(track) {
  return (
    track.title ||
    track.id
      .split("/")
      .pop()
      .replace(/\.[^.]+$/, "")
      .replace(/_+/g, " ") ||
    track.id
  );
}

/** Artist, album and year, or the folder where there are none. */
export function creditOf(track) {
  const credit = [track.artist, track.album, track.year].filter(Boolean).join(" · ");
  return credit || track.id.split("/").slice(0, -1).join("/");
}

const KINDS = ["mood", "instrument", "genre", "era", "tags"];
const OF_A_KIND = 2; // tags that are shown

/** A few words, tempo and key. */
export function factsOf(track) {
  const tags = KINDS.flatMap((kind) => (track[kind] ?? []).slice(0, OF_A_KIND));
  return [...new Set(tags), track.tempo ? `${Math.round(track.tempo)} bpm` : "", track.key ?? ""].filter(Boolean);
}

/** Seconds as 3:05. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds || 0));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** Limits in bpm that leave a range open. */
export const [SLOWEST, FASTEST] = [1, 1000];

/** The limits of a range of tempi, null where it is open. */
export const openEnds = ([low, high]) => [low > SLOWEST ? low : null, high < FASTEST ? high : null];

/** A range of tempi in words. */
export function tempoText(range) {
  const [low, high] = openEnds(range);
  if (low === null) return `up to ${high} bpm`;
  return high === null ? `from ${low} bpm` : `${low} to ${high} bpm`;
}

export const capital = (word) => word.charAt(0).toUpperCase() + word.slice(1);

export const counted = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
