// The pane at the side. All text goes in as text, never as markup.

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  Object.assign(made, attributes);
  return made;
}

function showLegend(scheme) {
  const entries = legendEntries(scheme).map(([colour, words]) => {
    const entry = element("span");
    const box = element("i");
    box.style.background = colour;
    entry.append(box, words);
    return entry;
  });
  document.getElementById("legend").replaceChildren(...entries);
}

function facts(pairs) {
  const list = element("dl");
  for (const [name, value] of pairs) {
    if (value !== null && value !== undefined && value !== "" && value !== "0") list.append(element("dt", name), element("dd", value));
  }
  return list;
}

function links(title, items, choose) {
  if (!items.length) return [];
  return [
    element("h3", title),
    ...items.slice(0, 40).map((item) => element("button", item.name || item.path, { className: "link", onclick: () => choose(item) })),
  ];
}

function remarksOf(path, all) {
  return source.remarks.filter((remark) => (all ? remark.module === path || remark.module.startsWith(`${path}.`) : remark.module === path));
}

function remarkParts(remarks) {
  if (!remarks.length) return [];
  const parts = [element("h3", "remarks")];
  for (const remark of remarks.slice(0, 20)) {
    parts.push(element("p", `${remark.kind}${remark.code ? ` ${remark.code}` : ""} · ${remark.stage}: ${remark.message}${remark.source ? ` (${remark.source})` : ""}`));
    if (remark.mend) parts.push(element("p", remark.mend, { className: "quiet" }));
  }
  return parts;
}

function showNode(node, graph, choose) {
  const into = graph.edges.filter(([, to]) => to === node).map(([from]) => from);
  const out = graph.edges.filter(([from]) => from === node).map(([, to]) => to);
  const code = node.code ? [element("h3", "generated code"), element("pre", node.code)] : [];
  const [f0, f1, b0, b1] = node.times || [];
  show(node.name, [
    facts([
      ["operation", node.class ? `${node.target} (${node.class})` : node.target], ["module", node.module || "(model itself)"],
      ["output", node.shape], ["device", node.device], ["bytes", bytesText(node.bytes)], ["FLOPs", flopsText(node.flops)],
      ["parameters", node.used_bytes ? bytesText(node.used_bytes) : ""], ["buckets", node.buckets.join(", ")],
      ["replica", node.replica], ["checkpoint", node.region ? `${node.region}: computed again in backward` : ""], ["opaque", node.opaque ? "yes: runs as plain PyTorch" : ""], ["created by", node.created_by],
      ["source line", node.source], ["forward", f1 ? `${timeText(f1 - f0)}, predicted` : ""],
      ["backward", b1 ? `${timeText(b1 - b0)}, predicted` : ""],
    ]),
    ...code, ...remarkParts(remarksOf(node.module, false)), ...links("takes", into, choose), ...links("goes to", out, choose),
  ]);
}

function showGroup(group, choose) {
  show(group.path || source.model, [
    facts([
      ["operations", `${group.count}`], ["parameters", group.param_bytes ? bytesText(group.param_bytes) : ""],
      ["outputs", bytesText(group.bytes)], ["FLOPs", flopsText(group.flops)], ["computed again in backward", group.recomputed ? `${group.recomputed} of them` : ""], ["opaque", group.opaque ? `${group.opaque} of them` : ""],
      ["buckets", [...group.buckets].sort((a, b) => a - b).join(", ")],
      ["created by", [...group.passes].map(([name, count]) => `${name} (${count})`).join(", ")],
    ]),
    ...remarkParts(remarksOf(group.path, true)), ...links("holds", group.items, choose),
  ]);
}

function showBucket(bucket) {
  const times = ["step", "measured"].filter((which) => source[which]).map((which) => {
    const one = source[which].transfers.find((transfer) => transfer.bucket === bucket.index);
    const when = `${timeText(one.ready)}; on the wire ${timeText(one.start)} to ${timeText(one.end)}`;
    return [which === "step" ? "predicted" : "measured", `complete at ${when}`];
  });
  show(`bucket ${bucket.index}`, [
    facts([
      ["bytes", bytesText(bucket.nbytes)], ["sent as", bucket.compression && `${bucket.compression}, ${bytesText(bucket.sent)}`], ["tensors", `${bucket.parameters.length}`], ...times,
    ]),
    element("h3", "parameters, in the order in which their gradients are ready"),
    ...bucket.parameters.slice(0, 200).map((name) => element("div", name)),
  ]);
}

function showModel(note) {
  show(source.model, [
    facts([
      ["strategy", source.strategy], ["ranks", source.world_size ? `${source.world_size}` : "not said"],
      ["buckets", `${source.buckets.length}`], ["nodes", `${source.counts.after.toLocaleString("en")}, before autopar ${source.counts.before.toLocaleString("en")}`],
      ["rates", source.rates],
    ]),
    ...(note ? [element("p", note)] : []),
    element("p", "Click a module for its figures, double-click to open or close it. Below: one step of training.", { className: "quiet" }),
    ...remarkParts(source.remarks.filter((remark) => remark.kind === "missed")),
  ]);
}

function show(title, parts) {
  document.getElementById("details").replaceChildren(element("h2", title), ...parts);
}
