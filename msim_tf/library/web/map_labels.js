// What a point's colour and shape say. Shapes repeat what colours say, for those who do not see the difference.

const MOST = 7; // labels with a colour of their own; then "other", then "not known"
const TEMPI = [90, 110, 130, 150];

// Path data round (0, 0), about 10 units wide.
export const SHAPES = [
  "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
  "M-4.5-4.5h9v9h-9z",
  "M0-6 5.5 4h-11z",
  "M0-6 6 0 0 6-6 0z",
  "M0 6 5.5-4h-11z",
  "M-1.7-5.5h3.4v3.8h3.8v3.4h-3.8v3.8h-3.4v-3.8h-3.8v-3.4h3.8z",
  "M-5.5 0-2.7-5h5.4l2.8 5-2.8 5h-5.4z",
  "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
  "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
];
const OTHER = MOST;
const UNKNOWN = MOST + 1;

/**
 * Groups points by their label in a dimension.
 * Gives `groups` [{ name, place, count, common }], `of(point)` the number of a point's group, `labelOf(point)` its label or "".
 */
export function labelled(points, dimension) {
  const labelOf = (point) => label(point, dimension);
  const counts = new Map();
  for (const point of points) counts.set(labelOf(point), (counts.get(labelOf(point)) ?? 0) + 1);
  counts.delete("");
  const common = [...counts]
    .sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]))
    .slice(0, MOST)
    .map(([name]) => name);
  if (dimension === "tempo")
    common.sort((a, b) => Number.parseInt(a.replace("under", "0"), 10) - Number.parseInt(b.replace("under", "0"), 10));
  const of = (point) => {
    const name = labelOf(point);
    if (!name) return UNKNOWN;
    return common.includes(name) ? common.indexOf(name) : OTHER;
  };
  const sizes = new Array(UNKNOWN + 1).fill(0);
  for (const point of points) sizes[of(point)] += 1;
  const names = [...common];
  names[OTHER] = "other";
  names[UNKNOWN] = "not known";
  return {
    of,
    labelOf,
    groups: names
      .map((name, place) => ({ name, place, count: sizes[place], common: place < MOST }))
      .filter((group) => group?.count),
  };
}

function label(point, dimension) {
  if (dimension === "tempo") return point.tempo ? tempoRange(point.tempo) : "";
  if (dimension === "era") return point.era ?? (point.year ? `${Math.floor(point.year / 10) * 10}s` : "");
  return point[dimension] ?? "";
}

function tempoRange(tempo) {
  const place = TEMPI.filter((limit) => tempo >= limit).length;
  if (place === 0) return `under ${TEMPI[0]} bpm`;
  return place === TEMPI.length ? `${TEMPI[place - 1]} bpm and more` : `${TEMPI[place - 1]} to ${TEMPI[place]} bpm`;
}
