// Drawing the map: points, then what was asked for and found, then the names of regions and of the query.

import { SHAPES } from "./map_labels.js";
import { isSeen } from "./map_points.js";
import { regions } from "./map_regions.js";

const paths = SHAPES.map((shape) => new Path2D(shape));
const FONT = 13; // pixels
const NEAR = 4; // pixels between two names
const AWAY = 24; // pixels from the query to its name

/**
 * Draws the map on a canvas.
 *
 * `points` have their place, px and py; `meant` holds the ids that stand out: the query's and the hits'. `query` and
 * `active` are points or undefined; `title` is what the query is called.
 */
export function drawMap(canvas, { points, labels, meant, query, title, active }) {
  const ratio = devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  const context = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(`--${name}`);
  const at = ({ px, py }) => context.setTransform(ratio, 0, 0, ratio, px * ratio, py * ratio);
  // What was asked for and found is drawn last, over its neighbours.
  const order = meant.size ? [...points].sort((a, b) => meant.has(a.id) - meant.has(b.id)) : points;
  for (const point of order) {
    at(point);
    mark(context, labels.of(point), colour, !meant.size || meant.has(point.id));
  }
  if (query) {
    at(query);
    ring(context, colour("accent"), 12, 2.5);
  }
  if (active) {
    at(active);
    ring(context, colour("ink"), 9, 1.5);
  }
  at({ px: 0, py: 0 });
  const seen = query && isSeen(query, canvas.clientWidth, canvas.clientHeight);
  names(context, canvas, points, labels, colour, seen ? besideQuery(query, title, points) : null);
}

function mark(context, group, colour, bold) {
  context.globalAlpha = bold ? 1 : 0.5;
  context.fillStyle = colour(`series-${group}`);
  context.scale(bold ? 1.35 : 0.95, bold ? 1.35 : 0.95);
  context.fill(paths[group]);
  context.globalAlpha = 1;
}

function ring(context, colour, radius, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.beginPath();
  context.arc(0, 0, radius, 0, 2 * Math.PI);
  context.stroke();
}

/** The query's name above or below its ring, wherever it covers fewer points. */
function besideQuery({ px, py }, name, points) {
  const side = 4 * name.length;
  const covered = (y) => points.filter((point) => Math.abs(point.px - px) < side && Math.abs(point.py - y) < FONT).length;
  const ring = { x: px, y: py, side: AWAY / 2 };
  return { name, ring, px, py: covered(py - AWAY) < covered(py + AWAY) ? py - AWAY : py + AWAY };
}

/** Writes the query's name, then those of regions that have room. */
function names(context, canvas, points, labels, colour, query) {
  const { clientWidth: width, clientHeight: height } = canvas;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  const boxes = query ? [query.ring] : [];
  for (const { name, px, py } of [...(query ? [query] : []), ...regions(points, labels, width, height)]) {
    const bold = name === query?.name;
    context.font = `${bold ? 700 : 600} ${FONT}px ${getComputedStyle(canvas).fontFamily}`;
    const box = placed(context.measureText(name).width, px, py, width, height);
    if (boxes.some((other) => overlap(box, other))) continue;
    boxes.push(box);
    context.strokeStyle = colour("sheet");
    context.lineWidth = 4;
    context.strokeText(name, box.x, box.y);
    context.fillStyle = colour(bold ? "accent" : "ink");
    context.fillText(name, box.x, box.y);
  }
}

/** A box round (x, y), moved so that all of it is seen. */
function placed(wide, x, y, width, height) {
  const side = wide / 2 + NEAR;
  const inside = (value, margin, size) => Math.max(Math.min(margin, size / 2), Math.min(size - margin, value));
  return { x: inside(x, side, width), y: inside(y, FONT, height), side };
}

const overlap = (a, b) => Math.abs(a.x - b.x) < a.side + b.side && Math.abs(a.y - b.y) < FONT + NEAR;
