// Names of regions: where on the map a label is at home.

import { isSeen } from "./map_points.js";

const CELLS = 9; // of the grid, along the longer side
const FEWEST = 3; // points of a label that make a region
const SHARE = 0.4; // of the points there that have the label

/**
 * One place for each of the common labels: [{ name, place, px, py }], the clearest first.
 *
 * `points` have a place on the canvas, px and py; `labels` are those of map_labels.js. Only what is seen counts, so that
 * a zoomed map names what is in it.
 */
export function regions(points, labels, width, height) {
  const size = Math.max(width, height) / CELLS;
  const seen = points.filter((point) => isSeen(point, width, height));
  const cells = new Map(); // "column row" -> points in it and in the cells around it
  for (const point of seen) for (const cell of around(point, size)) add(cells, cell, point);
  return labels.groups
    .filter(({ common }) => common)
    .map(({ name, place }) => ({ name, ...home([...cells.values()], (point) => labels.of(point) === place) }))
    .filter(({ score }) => score)
    .sort((a, b) => b.score - a.score);
}

function around({ px, py }, size) {
  const [column, row] = [Math.floor(px / size), Math.floor(py / size)];
  return [-1, 0, 1].flatMap((right) => [-1, 0, 1].map((down) => `${column + right} ${row + down}`));
}

function add(cells, cell, point) {
  if (!cells.has(cell)) cells.set(cell, []);
  cells.get(cell).push(point);
}

/** The middle of a label's points in the neighbourhood that is most its own; score 0 where it has none. */
function home(neighbourhoods, belongs) {
  let best = { score: 0 };
  for (const points of neighbourhoods) {
    const own = points.filter(belongs);
    const share = own.length / points.length;
    const score = own.length * share;
    if (own.length < FEWEST || share < SHARE || score <= best.score) continue;
    best = { score, px: mean(own.map(({ px }) => px)), py: mean(own.map(({ py }) => py)) };
  }
  return best;
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
