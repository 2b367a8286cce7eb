// Zooming and moving the map: by buttons and keys, by the wheel, by dragging, by two fingers.

import { isSeen } from "./map_points.js";

const MOST = 40; // times the size at which everything is seen
const DRAG = 4; // pixels from which a push is no click
const WHEEL = 0.002; // zoom per pixel of the wheel

/** The zoom of a canvas; `changed()` is called after each change. */
export function zoomOf(canvas, changed) {
  let scale = 1;
  let left = 0; // of the whole map, in pixels of the canvas
  let top = 0;
  let dragged = false;
  const fingers = new Map(); // pointer -> [x, y]

  function set(size, x, y) {
    // The whole map always covers the canvas.
    scale = Math.min(MOST, Math.max(1, size));
    left = Math.min(0, Math.max(canvas.clientWidth * (1 - scale), x));
    top = Math.min(0, Math.max(canvas.clientHeight * (1 - scale), y));
    // While everything is seen, a finger scrolls the page.
    canvas.style.touchAction = scale > 1 ? "none" : "pan-y";
    changed();
  }

  /** Zooms by a factor; what is at (x, y) stays there. */
  function by(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const size = Math.min(MOST, Math.max(1, scale * factor));
    set(size, x - ((x - left) * size) / scale, y - ((y - top) * size) / scale);
  }

  function move(event) {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = [event.offsetX, event.offsetY];
    const [other] = [...fingers].filter(([pointer]) => pointer !== event.pointerId).map(([, place]) => place);
    if (other) {
      dragged = true;
      fingers.set(event.pointerId, now);
      by(distance(now, other) / Math.max(1, distance(before, other)), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else if (scale > 1 && (dragged || distance(now, before) > DRAG)) {
      dragged = true;
      fingers.set(event.pointerId, now);
      set(scale, left + now[0] - before[0], top + now[1] - before[1]);
    }
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (!fingers.size) dragged = false;
    fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
  });
  canvas.addEventListener("pointermove", move);
  for (const end of ["pointerup", "pointercancel", "pointerleave"])
    canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
  canvas.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey) return; // without it the page scrolls
      event.preventDefault();
      by(Math.exp(-WHEEL * event.deltaY), event.offsetX, event.offsetY);
    },
    { passive: false },
  );
  return {
    by,
    fit: () => set(1, 0, 0),
    /** Where a point of the whole map is now. */
    place: (x, y) => [left + scale * x, top + scale * y],
    /** Moves a point of the map into the middle if it is not seen. */
    show(point) {
      const { clientWidth: width, clientHeight: height } = canvas;
      if (!isSeen(point, width, height)) set(scale, left + width / 2 - point.px, top + height / 2 - point.py);
    },
    /** Whether the last push moved or zoomed the map, and so chose nothing. */
    dragged: () => dragged,
  };
}

const distance = ([x, y], [u, v]) => Math.hypot(x - u, y - v);
