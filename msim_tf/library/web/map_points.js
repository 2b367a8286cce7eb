// Finding points of the map by pointer and by arrow key.

/** Whether a point lies on a canvas of this size. */
export const isSeen = ({ px, py }, width, height) => px >= 0 && py >= 0 && px <= width && py <= height;

/** The point nearest to (x, y) within `reach` pixels, or null. */
export function nearest(points, x, y, reach) {
  let best = null;
  let least = reach;
  for (const point of points) {
    const distance = Math.hypot(point.px - x, point.py - y);
    if (distance <= least) [best, least] = [point, distance];
  }
  return best;
}

/** The next point in a direction: near, and rather ahead than to the side; null at the edge. */
export function nearestTowards(points, from, [right, down]) {
  let best = null;
  let least = Infinity;
  for (const point of points) {
    const x = point.px - from.px;
    const y = point.py - from.py;
    const ahead = x * right + y * down;
    const aside = Math.abs(x * down) + Math.abs(y * right);
    if (point === from || ahead < 0.5 || aside > 2 * ahead) continue;
    const cost = ahead + 2 * aside;
    if (cost < least) [best, least] = [point, cost];
  }
  return best;
}
