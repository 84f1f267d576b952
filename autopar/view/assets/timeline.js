// The predicted step below the graph: computing above, the wire underneath, red where nothing hides it.

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

function drawStrip(selected) {
  const ink = strip.getContext("2d");
  const [width, height, ratio] = sized(strip);
  ink.setTransform(ratio, 0, 0, ratio, 0, 0);
  ink.fillStyle = css("--bg");
  ink.fillRect(0, 0, width, height);
  if (!source.spans.length) return;
  const x = (micros) => STRIP_LEFT + ((width - STRIP_LEFT - 16) * micros) / source.end;
  if (source.end > source.computed) {
    ink.fillStyle = dark.matches ? "#3a1f20" : "#fbe4e1";
    ink.fillRect(x(source.computed), 6, x(source.end) - x(source.computed), 62);
  }
  for (const span of source.spans) {
    ink.fillStyle = span.node === selected ? css("--accent") : span.backward ? "#e0a050" : "#7fb2e5";
    ink.fillRect(x(span.start), 10, Math.max(x(span.end) - x(span.start) - 0.3, 0.5), 24);
  }
  ink.font = `600 11px ${FONT}`;
  for (const one of source.transfers) {
    const long = Math.max(x(one.end) - x(one.start) - 1, 1);
    ink.fillStyle = bucketColour(one.bucket);
    ink.fillRect(x(one.start), 40, long, 24);
    ink.fillStyle = "#fff";
    if (long > 24) ink.fillText(`${one.bucket}`, x(one.start) + long / 2 - 4, 56);
  }
  ink.fillStyle = css("--ink");
  ink.fillText("compute", 12, 26);
  ink.fillText("on the wire", 12, 56);
  ink.font = `11px ${FONT}`;
  ink.fillStyle = css("--quiet");
  const late = source.end - source.computed;
  ink.fillText(`forward ${timeText(source.turn)}`, x(0), 82);
  ink.fillText(`backward ${timeText(source.computed - source.turn)}`, x(source.turn), 82);
  const words = `${late > 0 ? `${timeText(late)} exposed · ` : ""}predicted: ${timeText(source.end)}`;
  ink.fillText(words, width - 16 - ink.measureText(words).width, 82);
}

// What stands at a point of the strip: a bucket, a span, or nothing.
function stripHit(px, py) {
  const width = strip.clientWidth;
  const micros = ((px - STRIP_LEFT) / (width - STRIP_LEFT - 16)) * source.end;
  if (py >= 38 && py < 68) return source.transfers.find((one) => micros >= one.start && micros <= one.end) || null;
  return source.spans.find((span) => micros >= span.start && micros <= span.end) || null;
}
