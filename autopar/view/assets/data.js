// The document as the page reads it, and each graph as a tree of modules.

const source = JSON.parse(document.getElementById("data").textContent);

// Nodes come as rows of numbers; what is text stands once in a table.
function decodeGraph(packed) {
  const text = (index) => (index === null ? null : source.texts[index]);
  const nodes = packed.nodes.map((row, index) => {
    const node = { index, kind: "node", edges: [] };
    source.fields.forEach((field, place) => {
      node[field] = source.textFields.includes(field) ? text(row[place]) : row[place];
    });
    return node;
  });
  const edges = [];
  for (let i = 0; i < packed.edges.length; i += 2) edges.push([nodes[packed.edges[i]], nodes[packed.edges[i + 1]]]);
  return { nodes, edges };
}

function newGroup(path, parent) {
  const name = path.slice(path.lastIndexOf(".") + 1);
  return { kind: "group", path, name, parent, items: [], edges: new Map(), count: 0, flops: 0, bytes: 0, param_bytes: 0,
    opaque: 0, recomputed: 0, buckets: new Set(), passes: new Map() };
}

// An edge is kept where its two ends part: between two items of one group. So each group can be laid out alone.
function buildTree(graph, withState) {
  const root = newGroup("", null);
  const groups = new Map([["", root]]);
  const groupOf = (path) => {
    let group = groups.get(path);
    if (!group) {
      const parent = groupOf(path.includes(".") ? path.slice(0, path.lastIndexOf(".")) : "");
      group = newGroup(path, parent);
      groups.set(path, group);
      parent.items.push(group);
    }
    return group;
  };
  for (const node of graph.nodes) {
    if (node.state && !withState) continue;
    node.parent = groupOf(node.module);
    node.parent.items.push(node);
    for (let group = node.parent; group; group = group.parent) tally(group, node);
  }
  for (const [from, to] of graph.edges) {
    if (!withState && (from.state || to.state)) continue;
    let [a, b] = [from, to];
    const above = new Map();
    for (let item = a; item; item = item.parent) if (item.parent) above.set(item.parent, item);
    while (b && !above.has(b.parent)) b = b.parent;
    if (!b) continue;
    a = above.get(b.parent);
    if (a === b) continue;
    const edges = b.parent.edges;
    if (!edges.has(a)) edges.set(a, new Map());
    edges.get(a).set(b, (edges.get(a).get(b) || 0) + 1);
  }
  return { root, groups };
}

function tally(group, node) {
  node.buckets.forEach((bucket) => group.buckets.add(bucket));
  group.passes.set(node.created_by, (group.passes.get(node.created_by) || 0) + 1);
  if (node.state) return;
  group.count += 1;
  group.flops += node.flops;
  group.bytes += node.bytes;
  group.param_bytes += node.used_bytes;
  group.opaque += node.opaque;
  group.recomputed += node.region ? 1 : 0;
}

const graphs = {};

// A node's parent is its group in the tree that was made last: without its parameters a module may have no group.
function treeOf(which, withState) {
  graphs[which] ||= decodeGraph(source[which]);
  return buildTree(graphs[which], withState);
}

function bytesText(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; count >= 1024 && unit < 4; unit += 1) count /= 1024;
  return `${unit ? count.toFixed(1) : count} ${units[unit]}`;
}

function flopsText(count) {
  const units = ["", "k", "M", "G", "T", "P"];
  let unit = 0;
  for (; count >= 1000 && unit < 5; unit += 1) count /= 1000;
  return unit ? `${count.toFixed(1)} ${units[unit]}` : `${count}`;
}

function timeText(micros) {
  if (micros < 1000) return `${Math.round(micros)} µs`;
  return micros < 1e6 ? `${(micros / 1000).toFixed(1)} ms` : `${(micros / 1e6).toFixed(2)} s`;
}
