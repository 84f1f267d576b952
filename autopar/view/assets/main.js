// State, and what the hands of the user change about it.

const byId = (id) => document.getElementById(id);
const view = { which: "after", withState: false, scheme: "phase", open: new Set(), selected: null, tree: null, most: null };
const READABLE = 0.7; // scale at which letters are eight pixels high
const stats = { layout: 0, draw: 0, drawn: 0, first: 0 };
window.autopar = { view, stats, camera, visible: () => visible(view.tree.root), at };

function visible(group) {
  return group.items.flatMap((item) => (item.layout ? [item, ...visible(item)] : [item]));
}

function load() {
  view.tree = treeOf(view.which, view.withState);
  view.open = new Set([...view.open].filter((path) => view.tree.groups.has(path)));
  const items = [...view.tree.groups.values()].filter((group) => group.parent).concat(graphs[view.which].nodes);
  const most = (field) => items.reduce((highest, item) => Math.max(highest, item[field]), 0);
  view.most = { bytes: most("bytes"), flops: most("flops") };
}

function layout() {
  const started = performance.now();
  layoutGroup(view.tree.root, view.open);
  stats.layout = performance.now() - started;
  redraw();
}

let waiting = false;
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    stats.draw = drawGraph(view);
    stats.drawn += 1;
    stats.first ||= performance.now();
    drawStrip(view.selected);
    byId("status").textContent = `${visible(view.tree.root).length.toLocaleString("en")} of ${source.counts[view.which].toLocaleString("en")} nodes drawn`;
  });
}

function fit() {
  const { root } = view.tree;
  const scale = Math.min((canvas.clientWidth - 40) / root.width, (canvas.clientHeight - 40) / root.height, 1.25);
  camera.scale = Math.max(scale, 0.01);
  camera.x = (canvas.clientWidth - root.width * camera.scale) / 2;
  camera.y = Math.max((canvas.clientHeight - root.height * camera.scale) / 2, 20);
  redraw();
}

// Everything where that can be read, else from the top what can.
function home() {
  fit();
  const [first] = view.tree.root.items;
  if (camera.scale >= READABLE || !first) return;
  camera.scale = READABLE;
  camera.x = canvas.clientWidth / 2 - first.x * READABLE;
  camera.y = 20;
}

function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const scale = Math.min(Math.max(camera.scale * factor, 0.01), 4);
  camera.x = x - ((x - camera.x) * scale) / camera.scale;
  camera.y = y - ((y - camera.y) * scale) / camera.scale;
  camera.scale = scale;
  redraw();
}

function centre(item) {
  const { x, y } = at(item);
  camera.scale = Math.max(camera.scale, 0.8);
  camera.x = canvas.clientWidth / 2 - (x + item.width / 2) * camera.scale;
  camera.y = canvas.clientHeight / 2 - (y + Math.min(item.height, canvas.clientHeight / camera.scale) / 2) * camera.scale;
  redraw();
}

function select(item, { move = false } = {}) {
  view.selected = item;
  if (!item) showModel(source.note);
  else if (item.kind === "node") showNode(item, graphs[view.which], (other) => select(other, { move: true }));
  else showGroup(item, (other) => select(other, { move: true }));
  if (item && move) {
    if (item.state && !view.withState) setState(true);
    let opened = false;
    for (let group = item.parent; group; group = group.parent) {
      if (group.parent && !view.open.has(group.path)) opened = Boolean(view.open.add(group.path));
    }
    if (opened) layout();
    centre(item);
  }
  const link = item ? `#${view.which}/${item.kind}/${encodeURIComponent(item.kind === "node" ? item.name : item.path)}` : "#";
  if (location.hash !== link) history.replaceState(null, "", link);
  redraw();
}

function toggle(group) {
  if (!view.open.delete(group.path)) view.open.add(group.path);
  const before = at(group);
  layout();
  const now = at(group); // what was clicked stays where it was
  camera.x += (before.x - now.x) * camera.scale;
  camera.y += (before.y - now.y) * camera.scale;
  redraw();
}

function openAll(paths) {
  view.open = new Set(paths);
  layout();
  home();
}

function setState(on) {
  view.withState = byId("state").checked = on;
  load();
  layout();
}

function setGraph(which) {
  view.which = byId("graph").value = which;
  load();
  select(null);
  openAll(startOpen());
}

function setScheme(scheme) {
  view.scheme = byId("colour").value = scheme;
  showLegend(scheme);
  redraw();
}

// A root that holds little but one module is opened down to where something is to be seen.
function startOpen() {
  const paths = [];
  let group = view.tree.root;
  while (group.items.filter((item) => item.kind === "group").length === 1 && group.items.length < 6) {
    group = group.items.find((item) => item.kind === "group");
    paths.push(group.path);
  }
  return paths;
}

function follow() {
  const [which, kind, ...rest] = location.hash.slice(1).split("/");
  if (!["after", "before"].includes(which)) return;
  if (which !== view.which) setGraph(which);
  let name;
  try {
    name = decodeURIComponent(rest.join("/"));
  } catch {
    return;
  }
  const item = kind === "node" ? graphs[which].nodes.find((node) => node.name === name) : view.tree.groups.get(name);
  if (item) select(item, { move: true });
}

function start() {
  byId("title").textContent = `${source.model}: ${source.strategy}`;
  load();
  startStrip((graphs.after ||= decodeGraph(source.after)).nodes);
  view.open = new Set(startOpen());
  setScheme("phase");
  layout();
  home();
  showModel(source.note);
  listen();
  follow();
}
