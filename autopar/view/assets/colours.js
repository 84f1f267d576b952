// What each colour means: one scheme at a time, with its legend.

const dark = matchMedia("(prefers-color-scheme: dark)");
const PHASES = { input: ["#9bc9a0", "#3f6b45"], forward: ["#a9cdee", "#2f5f8c"], parameter: ["#dfe4e9", "#47525d"],
  "gradient sync": ["#f2b6a0", "#8f4630"] };
const PASSES = ["#a9cdee", "#f2c48d", "#b6d7a8", "#d5b8e0", "#f4b6b6", "#c9c29a", "#9fd6d2", "#d9d9d9"];
const HEAT = ["#eef3f7", "#ffe3b3", "#ffc266", "#f58f3d", "#d9532c", "#a8232c"];

function themed(pair) {
  return pair[dark.matches ? 1 : 0];
}

function bucketColour(bucket) {
  return source.bucketColours[bucket % source.bucketColours.length];
}

function phaseOf(item) {
  if (item.kind === "group") return "forward";
  if (item.sync) return "gradient sync";
  if (item.state) return "parameter";
  return item.op === "placeholder" || item.op === "output" ? "input" : "forward";
}

// [fill, ink] of an item under a scheme; groups count as all that is in them.
function look(item, scheme, most) {
  if (scheme === "bucket") {
    const [first] = item.buckets;
    return first === undefined ? plain() : [bucketColour(first), "#fff"];
  }
  if (scheme === "bytes" || scheme === "flops") return heat(item[scheme], most[scheme]);
  if (scheme === "opacity") return item.opaque ? ["#c98f2e", "#1d2733"] : plain();
  if (scheme === "pass") return [passColour(mainPass(item)), "#1d2733"];
  return [themed(PHASES[phaseOf(item)]), dark.matches ? "#fff" : "#1d2733"];
}

function plain() {
  return dark.matches ? ["#2a333d", "#e4e9ee"] : ["#eef1f4", "#1d2733"];
}

function heat(value, most) {
  if (!value) return plain();
  const step = Math.min(5, Math.floor((Math.log(value + 1) / Math.log(most + 2)) ** 3 * 6));
  return [HEAT[step], step > 3 ? "#fff" : "#1d2733"];
}

function mainPass(item) {
  if (item.kind === "node") return item.created_by;
  return [...item.passes].reduce((best, one) => (one[1] > best[1] ? one : best), ["", 0])[0];
}

function passColour(name) {
  return PASSES[Math.max(0, source.passNames.indexOf(name)) % PASSES.length];
}

function legendEntries(scheme) {
  if (scheme === "bucket") {
    return source.buckets.slice(0, 24).map((bucket) => [bucketColour(bucket.index), `${bucket.index}: ${bytesText(bucket.nbytes)}`]);
  }
  if (scheme === "bytes" || scheme === "flops") {
    const most = scheme === "bytes" ? bytesText(view.most.bytes) : flopsText(view.most.flops);
    return [[HEAT[1], "few"], [HEAT[3], "more"], [HEAT[5], `up to ${most}`]];
  }
  if (scheme === "opacity") return [["#c98f2e", "opaque: runs as plain PyTorch"], [plain()[0], "seen operation by operation"]];
  if (scheme === "pass") return source.passNames.map((name) => [passColour(name), name]);
  return Object.entries(PHASES).map(([name, pair]) => [themed(pair), name === "input" ? "input, output" : name]);
}
