// Draws what is in sight on a canvas. Places of items are relative to their group; `at` makes them absolute.

const canvas = document.getElementById("canvas");
const pen = canvas.getContext("2d");
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", Arial, sans-serif';
const camera = { x: 0, y: 0, scale: 1 };

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function sized(element) {
  const ratio = devicePixelRatio || 1;
  const [width, height] = [element.clientWidth, element.clientHeight];
  if (element.width !== width * ratio || element.height !== height * ratio) {
    element.width = width * ratio;
    element.height = height * ratio;
  }
  return [width, height, ratio];
}

// Upper left corner of an item on the sheet.
function at(item) {
  let x = 0, y = 0;
  for (let one = item; one.parent; one = one.parent) {
    x += one.x - one.width / 2;
    y += one.y - one.height / 2;
  }
  return { x, y };
}

function drawGraph(view) {
  const started = performance.now();
  const [width, height, ratio] = sized(canvas);
  const theme = { ink: css("--ink"), quiet: css("--quiet"), line: css("--line"), panel: css("--panel"), accent: css("--accent"), bg: css("--bg") };
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.fillStyle = theme.bg;
  pen.fillRect(0, 0, width, height);
  pen.setTransform(ratio * camera.scale, 0, 0, ratio * camera.scale, ratio * camera.x, ratio * camera.y);
  const sight = { left: -camera.x / camera.scale, top: -camera.y / camera.scale };
  sight.right = sight.left + width / camera.scale;
  sight.bottom = sight.top + height / camera.scale;
  drawItems(view.tree.root, 0, 0, { ...view, theme, sight, readable: camera.scale > 0.22 });
  return performance.now() - started;
}

function drawItems(group, left, top, view) {
  for (const edge of group.layout.edges) drawEdge(edge, left, top, view);
  for (const item of group.items) {
    const x = left + item.x - item.width / 2, y = top + item.y - item.height / 2;
    const { sight } = view;
    if (x > sight.right || y > sight.bottom || x + item.width < sight.left || y + item.height < sight.top) continue;
    if (item.layout) {
      drawFrame(item, x, y, view);
      drawItems(item, x, y, view);
    } else drawBox(item, x, y, view);
  }
}

function shape(x, y, width, height) {
  pen.beginPath();
  pen.roundRect(x, y, width, height, 5);
}

function drawFrame(group, x, y, view) {
  shape(x, y, group.width, group.height);
  pen.fillStyle = view.theme.panel;
  pen.fill();
  outline(group, x, y, view, view.theme.line);
  if (!view.readable) return;
  pen.fillStyle = view.theme.ink;
  pen.font = `600 12px ${FONT}`;
  pen.fillText(`▾ ${group.label}`, x + 8, y + 17);
}

function drawBox(item, x, y, view) {
  const [fill, ink] = look(item, view.scheme, view.most);
  shape(x, y, item.width, item.height);
  pen.fillStyle = fill;
  pen.fill();
  if (item.opaque) hatch(x, y, item, ink);
  stripes(item, x, y, view);
  outline(item, x, y, view, item.kind === "group" ? view.theme.quiet : view.theme.line);
  if (!view.readable) return;
  pen.fillStyle = ink;
  pen.font = `${item.kind === "group" ? "600 " : ""}12px ${FONT}`;
  pen.fillText(item.kind === "group" ? `▸ ${item.label}` : item.label, x + 11, y + LINE + 1, item.width - 16);
  if (!item.note) return;
  pen.font = `10.5px ${FONT}`;
  pen.fillText(item.note, x + 11, y + 2 * LINE, item.width - 16);
}

function outline(item, x, y, view, colour) {
  shape(x, y, item.width, item.height);
  const chosen = item === view.selected;
  pen.lineWidth = chosen ? 3 : 1;
  pen.strokeStyle = chosen ? view.theme.accent : colour;
  if (item.region || item.recomputed) pen.setLineDash([6, 3]); // backward computes it again
  pen.stroke();
  pen.setLineDash([]);
}

// The buckets that an item's gradients travel in, as a stripe on its left side.
function stripes(item, x, y, view) {
  const buckets = [...item.buckets].sort((a, b) => a - b);
  if (view.scheme === "bucket" && buckets.length < 2) return; // its colour says it
  const height = (item.height - 4) / buckets.length;
  buckets.forEach((bucket, index) => {
    pen.fillStyle = bucketColour(bucket);
    pen.fillRect(x + 1, y + 2 + index * height, 5, height);
  });
}

function hatch(x, y, item, colour) {
  pen.save();
  shape(x, y, item.width, item.height);
  pen.clip();
  pen.beginPath();
  for (let d = -item.height; d < item.width; d += 8) {
    pen.moveTo(x + d, y + item.height);
    pen.lineTo(x + d + item.height, y);
  }
  pen.globalAlpha = 0.25;
  pen.lineWidth = 1.5;
  pen.strokeStyle = colour;
  pen.stroke();
  pen.restore();
}

function drawEdge(edge, left, top, view) {
  const points = edge.points;
  const end = points[points.length - 1], before = points[points.length - 2];
  const chosen = edge.from === view.selected || edge.to === view.selected;
  pen.strokeStyle = pen.fillStyle = chosen ? view.theme.accent : view.theme.quiet;
  pen.lineWidth = (chosen ? 1.6 : 0.9) + Math.min(2, Math.log10(edge.count));
  pen.beginPath();
  pen.moveTo(left + points[0].x, top + points[0].y);
  for (let i = 1; i < points.length - 1; i += 1) {
    const x = (points[i].x + points[i + 1].x) / 2, y = (points[i].y + points[i + 1].y) / 2;
    const last = i === points.length - 2;
    pen.quadraticCurveTo(left + points[i].x, top + points[i].y, left + (last ? end.x : x), top + (last ? end.y : y));
  }
  if (points.length === 2) pen.lineTo(left + end.x, top + end.y);
  pen.stroke();
  if (!view.readable) return;
  const angle = Math.atan2(end.y - before.y, end.x - before.x);
  pen.beginPath();
  pen.moveTo(left + end.x, top + end.y);
  for (const side of [-0.4, 0.4]) pen.lineTo(left + end.x - 7 * Math.cos(angle + side), top + end.y - 7 * Math.sin(angle + side));
  pen.fill();
}

// The innermost item under a point of the sheet, and whether it is the head of an open group.
function hit(group, x, y) {
  for (const item of group.items) {
    const left = item.x - item.width / 2, top = item.y - item.height / 2;
    if (x < left || y < top || x > left + item.width || y > top + item.height) continue;
    return item.layout ? hit(item, x - left, y - top) || item : item;
  }
  return null;
}
