// Sizes and places: every open group is laid out alone, the innermost first.

const HEADER = 24, PAD = 12, LINE = 16, MOST_FOR_DAGRE = 400;

function labelOf(item) {
  if (item.kind === "group") return item.name || source.model;
  return item.op === "placeholder" ? `input ${item.name}` : item.class || item.target;
}

function noteOf(item) {
  if (item.kind === "node") return item.shape || "";
  const parts = [`${item.count} operation${item.count === 1 ? "" : "s"}`];
  if (item.param_bytes) parts.push(bytesText(item.param_bytes));
  return parts.join(" · ");
}

function clip(text, most) {
  return text.length <= most ? text : `${text.slice(0, most - 9)}…${text.slice(-8)}`;
}

function measure(item, open) {
  if (item.kind === "group" && open.has(item.path)) {
    layoutGroup(item, open);
    return;
  }
  item.layout = null;
  item.label = clip(labelOf(item), 34);
  item.note = clip(noteOf(item), 38);
  const arrow = item.kind === "group" ? 2 : 0;
  item.width = Math.max(64, 7.3 * Math.max(item.label.length + arrow, item.note.length * 0.86) + 22);
  item.height = item.note ? 2 * LINE + 8 : LINE + 10;
}

// Gives the group its size, and each item its centre relative to the group's upper left corner.
function layoutGroup(group, open) {
  const items = group.items;
  items.forEach((item) => measure(item, open));
  const result = items.length > MOST_FOR_DAGRE ? layoutPlain(group) : layoutDagre(group);
  const top = group.parent ? HEADER + PAD : 0, side = group.parent ? PAD : 0;
  group.label = clip(labelOf(group), 60);
  group.width = Math.max(result.width + 2 * side, 7.3 * group.label.length + 40);
  group.height = result.height + top + side;
  const shift = (group.width - result.width) / 2;
  for (const item of items) {
    item.x += shift;
    item.y += top;
  }
  for (const edge of result.edges) edge.points = edge.points.map((p) => ({ x: p.x + shift, y: p.y + top }));
  group.layout = { edges: result.edges };
}

function* edgesOf(group) {
  for (const [from, targets] of group.edges) for (const [to, count] of targets) yield { from, to, count };
}

// Blocks of one shape have one layout: a model with a hundred of them asks dagre once.
const known = new Map();

function layoutDagre(group) {
  const place = new Map(group.items.map((item, index) => [item, index]));
  const edges = [...edgesOf(group)];
  const sizes = group.items.map((item) => `${item.width},${item.height}`).join(" ");
  const key = `${sizes}|${edges.map((edge) => `${place.get(edge.from)},${place.get(edge.to)}`).join(" ")}`;
  if (!known.has(key)) known.set(key, askDagre(group.items, edges, place));
  const found = known.get(key);
  group.items.forEach((item, index) => Object.assign(item, found.places[index]));
  edges.forEach((edge, index) => (edge.points = found.points[index]));
  return { edges, width: found.width, height: found.height };
}

function askDagre(items, edges, place) {
  const graph = new dagre.graphlib.Graph();
  graph.setGraph({ rankdir: "TB", nodesep: 18, ranksep: 30, ranker: items.length > 60 ? "longest-path" : "network-simplex" });
  graph.setDefaultEdgeLabel(() => ({}));
  items.forEach((item, index) => graph.setNode(`${index}`, { width: item.width, height: item.height }));
  const ends = edges.map((edge) => [`${place.get(edge.from)}`, `${place.get(edge.to)}`]);
  ends.forEach(([from, to]) => graph.setEdge(from, to));
  dagre.layout(graph);
  return {
    places: items.map((_, index) => ({ x: graph.node(`${index}`).x, y: graph.node(`${index}`).y })),
    points: ends.map(([from, to]) => graph.edge(from, to).points),
    width: graph.graph().width || 0,
    height: graph.graph().height || 0,
  };
}

// Hundreds of items in one module: by longest path from the top, straight edges, no crossing is avoided.
function layoutPlain(group) {
  const rank = new Map(group.items.map((item) => [item, 0]));
  const order = new Map(group.items.map((item, index) => [item, index]));
  const edges = [...edgesOf(group)].sort((a, b) => order.get(a.from) - order.get(b.from));
  for (const { from, to } of edges) {
    if (order.get(from) < order.get(to)) rank.set(to, Math.max(rank.get(to), rank.get(from) + 1));
  }
  const rows = [];
  for (const item of group.items) (rows[rank.get(item)] ||= []).push(item);
  let y = 0, width = 0;
  for (const row of rows.filter(Boolean)) {
    for (let start = 0; start < row.length; start += 24) {
      const part = row.slice(start, start + 24);
      const height = Math.max(...part.map((item) => item.height));
      let x = 0;
      for (const item of part) {
        item.x = x + item.width / 2;
        item.y = y + height / 2;
        x += item.width + 18;
      }
      width = Math.max(width, x - 18);
      y += height + 30;
    }
  }
  for (const edge of edges) {
    edge.points = [
      { x: edge.from.x, y: edge.from.y + edge.from.height / 2 },
      { x: edge.to.x, y: edge.to.y - edge.to.height / 2 },
    ];
  }
  return { edges, width, height: Math.max(y - 30, 0) };
}
