// Mouse, keyboard, buttons and the search box.

function listen() {
  byId("graph").onchange = (event) => setGraph(event.target.value);
  byId("colour").onchange = (event) => setScheme(event.target.value);
  byId("state").onchange = (event) => setState(event.target.checked);
  byId("expand").onclick = () => openAll([...view.tree.groups.keys()].filter(Boolean));
  byId("collapse").onclick = () => openAll([]);
  byId("fit").onclick = fit;
  addEventListener("resize", redraw);
  addEventListener("hashchange", follow);
  dark.addEventListener("change", () => setScheme(view.scheme));
  listenToMouse();
  listenToSearch();
  addEventListener("keydown", pressed);
}

function sheet(event) {
  const box = canvas.getBoundingClientRect();
  return { x: (event.clientX - box.left - camera.x) / camera.scale, y: (event.clientY - box.top - camera.y) / camera.scale };
}

function listenToMouse() {
  let drag = null;
  canvas.onpointerdown = (event) => {
    drag = { x: event.clientX, y: event.clientY, moved: false };
    canvas.setPointerCapture(event.pointerId);
  };
  canvas.onpointermove = (event) => {
    if (!drag) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.moved && Math.hypot(dx, dy) < 4) return;
    camera.x += dx;
    camera.y += dy;
    drag = { x: event.clientX, y: event.clientY, moved: true };
    redraw();
  };
  canvas.onpointerup = (event) => {
    const { x, y } = sheet(event);
    if (drag && !drag.moved) select(hit(view.tree.root, x, y));
    drag = null;
  };
  canvas.ondblclick = (event) => {
    const { x, y } = sheet(event);
    const item = hit(view.tree.root, x, y);
    if (item?.kind === "group") toggle(item);
  };
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY * 0.0015), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  byId("times").onchange = redraw;
  strip.onclick = (event) => {
    const box = strip.getBoundingClientRect();
    const found = stripHit(event.clientX - box.left, event.clientY - box.top);
    if (found?.node) {
      if (view.which !== "after") setGraph("after");
      select(found.node, { move: true });
    } else if (found?.bucket !== undefined) showBucket(source.buckets.find((bucket) => bucket.index === found.bucket));
  };
}

function search(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const fits = (item) => {
    const within = `${item.name} ${item.path ?? item.module} ${item.target ?? ""} ${item.class ?? ""}`.toLowerCase();
    return words.every((word) => within.includes(word));
  };
  return [...view.tree.groups.values()].filter((group) => group.parent).concat(graphs[view.which].nodes).filter(fits);
}

function listenToSearch() {
  const [box, list] = [byId("search"), byId("hits")];
  const choose = (item) => {
    list.hidden = true;
    select(item, { move: true });
    canvas.focus();
  };
  box.oninput = () => {
    const found = search(box.value);
    const rows = found.slice(0, 50).map((item) => {
      const row = element("li");
      const button = element("button", `${item.kind === "group" ? item.path : item.name} `, { onclick: () => choose(item) });
      button.append(element("small", item.kind === "group" ? "module" : `${item.target} ${item.module}`));
      row.append(button);
      return row;
    });
    if (found.length > 50) rows.push(element("li", `and ${found.length - 50} more`, { className: "quiet" }));
    list.replaceChildren(...rows);
    list.hidden = !rows.length;
  };
  box.onkeydown = (event) => {
    event.stopPropagation();
    const [first] = search(box.value);
    if (event.key === "Enter" && first) choose(first);
    if (event.key === "Escape") {
      box.value = "";
      list.hidden = true;
      canvas.focus();
    }
  };
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || ["SELECT", "INPUT", "BUTTON"].includes(document.activeElement.tagName)) return;
  const step = 60;
  const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
  if (moves[event.key]) {
    camera.x += moves[event.key][0];
    camera.y += moves[event.key][1];
    redraw();
  } else if (event.key === "+" || event.key === "=") zoom(1.25);
  else if (event.key === "-") zoom(0.8);
  else if (event.key === "0" || event.key === "f") fit();
  else if (event.key === "/") byId("search").focus();
  else if (event.key === "b") setGraph(view.which === "after" ? "before" : "after");
  else if (event.key === "Enter" && view.selected?.kind === "group") toggle(view.selected);
  else if (event.key === "Escape") select(null);
  else return;
  event.preventDefault();
}

start();
