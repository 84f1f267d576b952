// One step below the graph, predicted or measured: computing above, the wire underneath, red where nothing hides it.

const strip = document.getElementById("timeline");
const STRIP_LEFT = 92;

function stripSpans(nodes) {
  const spans = [];
  for (const node of nodes) {
    if (!node.times) continue;
    const [f0, f1, b0, b1] = node.times;
    if (f1 > f0) spans.push({ node, start: f0, end: f1, backward: false });
    if (b1 > b0) spans.push({ node, start: b0, end: b1, backward: true });
  }
  return spans;
}

// Of a measured step only forward and backward as a whole are known.
function wholeSpans(step) {
  return [[step.forward, false], [step.backward, true]].map(([[start, end], backward]) => ({ start, end, backward }));
}

// The step that is shown, in microseconds from the begin of its forward.
function shownStep() {
  return source[document.querySelector("#times select").value];
}

function startStrip(nodes) {
  source.step.spans = stripSpans(nodes);
  if (!source.measured) return;
  source.measured.spans = wholeSpans(source.measured);
  document.getElementById("times").hidden = false;
  document.querySelector("#times select").value = "measured";
}

// Buckets that are on the wire together share its height.
function wireLines(step) {
  return 1 + Math.max(0, ...step.transfers.map((one) => one.line || 0));
}

function drawStrip(selected) {
  const step = shownStep();
  const ink = strip.getContext("2d");
  const [width, height, ratio] = sized(strip);
  ink.setTransform(ratio, 0, 0, ratio, 0, 0);
  ink.fillStyle = css("--bg");
  ink.fillRect(0, 0, width, height);
  if (!step.spans.length) return;
  const x = (micros) => STRIP_LEFT + ((width - STRIP_LEFT - 16) * micros) / step.end;
  const computed = step.backward[1];
  if (step.end > computed) {
    ink.fillStyle = dark.matches ? "#3a1f20" : "#fbe4e1";
    ink.fillRect(x(computed), 6, x(step.end) - x(computed), 62);
  }
  for (const span of step.spans) {
    ink.fillStyle = selected && span.node === selected ? css("--accent") : span.backward ? "#e0a050" : "#7fb2e5";
    ink.fillRect(x(span.start), 10, Math.max(x(span.end) - x(span.start) - 0.3, 0.5), 24);
  }
  ink.font = `600 11px ${FONT}`;
  const lines = wireLines(step), thick = 24 / lines;
  for (const one of step.transfers) {
    const long = Math.max(x(one.end) - x(one.start) - 1, 1), y = 40 + thick * (one.line || 0);
    ink.fillStyle = bucketColour(one.bucket);
    ink.fillRect(x(one.start), y, long, Math.max(thick - (lines > 1), 1));
    ink.fillStyle = "#fff";
    if (long > 24 && thick >= 12) ink.fillText(`${one.bucket}`, x(one.start) + long / 2 - 4, y + thick / 2 + 4);
  }
  ink.fillStyle = css("--ink");
  ink.fillText("compute", 12, 26);
  ink.fillText("on the wire", 12, 56);
  ink.font = `11px ${FONT}`;
  ink.fillStyle = css("--quiet");
  let free = 0; // where words still have room
  for (const name of ["forward", "backward"]) {
    const [start, end] = step[name];
    const words = `${name} ${timeText(end - start)}`, left = Math.max(x(start), free);
    ink.fillText(words, left, 82);
    free = left + ink.measureText(words).width + 12;
  }
  const late = step.end - computed;
  const words = `${late > 0 ? `${timeText(late)} exposed · ` : ""}${step.words}: ${timeText(step.end)}`;
  ink.fillText(words, width - 16 - ink.measureText(words).width, 82);
}

// What stands at a point of the strip: a bucket, a span, or nothing.
function stripHit(px, py) {
  const step = shownStep();
  const micros = ((px - STRIP_LEFT) / (strip.clientWidth - STRIP_LEFT - 16)) * step.end;
  const within = (one) => micros >= one.start && micros <= one.end;
  if (py < 38 || py >= 68) return step.spans.find(within) || null;
  const lines = wireLines(step);
  const line = Math.min(lines - 1, Math.max(0, Math.floor(((py - 40) * lines) / 24)));
  return step.transfers.find((one) => within(one) && (one.line || 0) === line) || null;
}
