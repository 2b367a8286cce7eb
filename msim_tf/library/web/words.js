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

/** Tempo, key, length and a few tags. */
export function factsOf(track) {
  const tags = ["genre", "mood", "instrument", "era", "tags"].flatMap((kind) => track[kind] ?? []);
  return [
    track.tempo ? `${Math.round(track.tempo)} bpm` : "",
    track.key ?? "",
    track.seconds ? clock(track.seconds) : "",
    ...[...new Set(tags)].slice(0, 4),
  ].filter(Boolean);
}

/** Seconds as 3:05. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds || 0));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

export const capital = (word) => word.charAt(0).toUpperCase() + word.slice(1);

export const counted = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
