"""Prints a compilation as a Python file that imports, runs and trains."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Collection
from pathlib import Path

from autopar import __version__
from autopar.compilation import Compilation
from autopar.emit.body import bucket_text
from autopar.emit.forward import write_forward
from autopar.emit.imports import Imports
from autopar.emit.layout import LINE_LENGTH, call, prefixed, render
from autopar.emit.literals import Writer
from autopar.emit.names import in_text, quoted
from autopar.emit.replica import replica_graph
from autopar.emit.samples import Source, model_file, relative, sample_inputs, shape_text
from autopar.partitioner.plan import BucketSpec, Plan
from autopar.program import Program
from autopar.strategies import ZeRO1, strategies

__all__ = ["Source", "emit_python"]

_DEFINED = frozenset({
    "HERE", "MODEL_FILE", "PLAN", "STEPS", "build", "forward", "main", "replica", "sample_inputs",
})  # fmt: skip


def emit_python(
    compilation: Compilation,
    *,
    source: Source,
    folder: Path | None = None,
    plan_file: str | None = "plan.json",
    steps: int = 5,
    file_name: str = "transformed.py",
) -> str:
    """Prints the transformed program as a file that computes bit for bit the same.

    Args:
        compilation: what to print.
        source: where the printed file will find the model.
        folder: the folder that the file will lie in; the paths in it are relative to that. None is
            the folder of the model's file.
        plan_file: name of the file beside it that will hold the plan; None puts the plan inside.
        steps: training steps of its ``main``.
        file_name: for the text that says how to run it.

    Returns:
        Python source, which an import only defines, and ``torchrun`` or ``python`` trains.

    Raises:
        ModelError: the program holds something that Python source cannot express.
    """
    program, plan = compilation.program, compilation.plan
    function = write_forward(
        program,
        docstring=f"The forward of {in_text(program.name)}, as autopar transformed it.",
        model_file=source.file,
        defined=_DEFINED,
    )
    imports = function.imports
    place = relative(source.file, folder or source.file.parent)
    sections = [
        list(function.lines),
        _build(imports, program, plan, source),
        sample_inputs(imports, program),
        _main(imports, program.name, plan),
    ]
    constants = _constants(imports, plan, place, plan_file, steps)
    head = _head(program, plan, place, file_name)
    lines = [*head, "", *imports.lines(), "", *constants]
    for section in sections:
        lines += ["", "", *section]
    return "\n".join([*lines, "", "", 'if __name__ == "__main__":', "    main()", ""])


def _head(program: Program, plan: Plan, place: str, file_name: str) -> list[str]:
    inputs = ", ".join(map(shape_text, program.example)) or "no tensors"
    about = (
        f"The model comes from {in_text(place)} and was captured with {inputs}. The forward below is that of the "
        "transformed program and replaces the model's own; parameters, buffers and all else stay the model's."
    )
    run = [
        "",
        f"    python {in_text(file_name)}",
        "",
        "trains a few steps on random inputs and prints loss and step time.",
    ]
    if replica_graph(program) is None:
        run.insert(1, f"    torchrun --nproc-per-node 2 {in_text(file_name)}")
    lines = [
        f'"""{in_text(program.name)}, transformed by autopar {__version__} with the strategy {in_text(plan.strategy)}.',
        "",
        *textwrap.wrap(about, LINE_LENGTH, break_long_words=False),
        *run,
    ]
    if plan.buckets:
        weight = plan.options.get("weight")
        lines += ["", f"Gradients are averaged over the ranks{f' by {weight}' if weight else ''} in buckets:", ""]
        lines += [f"    {bucket_text(plan, bucket)}{_route(bucket)}" for bucket in plan.buckets]
    return [*lines, '"""']


def _route(bucket: BucketSpec) -> str:
    return ", gathered by hooks" if bucket.route == "hook" else ""


def _constants(imports: Imports, plan: Plan, place: str, plan_file: str | None, steps: int) -> list[str]:
    reader = f"{imports.member('autopar.partitioner.plan', 'Plan')}.from_json"
    lines = model_file(imports, place)
    if plan_file is not None:
        lines.append(f"PLAN = {reader}((HERE / {quoted(plan_file)}).read_text())")
    else:
        # JSON escapes every quote inside its strings, so nothing in it can end this literal.
        lines += [f'PLAN = {reader}(r"""', plan.to_json().rstrip(), '""")']
    lines.append(f"STEPS = {steps}")
    own = [f"{local} = {_script(imports)}.defined(MODEL_FILE, {quoted(name)})" for name, local in imports.own.items()]
    return [*lines, *own]


def _build(imports: Imports, program: Program, plan: Plan, source: Source) -> list[str]:
    write = Writer(imports, str)
    options = write.expression({name: plan.options[name] for name in plan.options if name in _own_options(plan)})
    resolve = imports.member("autopar.strategies", "resolve")
    install = imports.member("autopar.attach", "install")
    modes = write.expression(dict(program.mode_dependent))
    keywords = ["plan=PLAN", "strategy=strategy", prefixed("modes=", modes)]
    devices = plan.options.get("devices")
    device = quoted(devices[0]) if devices else f"{imports.member('autopar.runtime.device', 'pick_device')}()"
    load = f"{_script(imports)}.load"
    return [
        f"def build() -> {imports.member('torch', 'nn')}.Module:",
        '    """The model, with the forward above in front of its own and equal values on all ranks."""',
        *render(
            call(load, ["MODEL_FILE", quoted(source.name)]), indent="    ", before="model = ", after=f".to({device})"
        ),
        *render(call(resolve, [quoted(plan.strategy), options]), indent="    ", before="strategy = "),
        *render(call(install, ["model", "forward", *keywords]), indent="    ", before="return "),
    ]


def _own_options(plan: Plan) -> Collection[str]:
    """Options that the strategy's constructor takes; passes may have added others to the plan."""
    return inspect.signature(strategies.get(plan.strategy)).parameters


def _sharding(imports: Imports, plan: Plan) -> list[str]:
    if not issubclass(strategies.get(plan.strategy), ZeRO1):
        return []
    shard = imports.member("autopar.optimizers", "shard_optimizer")
    return [f"    {shard}(model, optimizer)  # each rank has the state of its share"]


def _main(imports: Imports, name: str, plan: Plan) -> list[str]:
    dist, torch = imports.module("torch.distributed"), imports.module("torch")
    record = imports.member("torch.distributed.elastic.multiprocessing.errors", "record")
    clock = f"{imports.module('time')}.perf_counter()"
    return [
        f"@{record}",
        "def main() -> None:",
        f'    """Trains {in_text(name)} for a few steps; rank 0 prints loss and step time."""',
        f"    has_group = {dist}.is_initialized()",
        "    model = build()",
        f"    rank = {dist}.get_rank() if {dist}.is_initialized() else 0",
        f"    {torch}.manual_seed(rank)  # every rank its own data",
        "    with next(model.parameters()).device:",
        "        args, kwargs = sample_inputs()",
        f"    optimizer = {torch}.optim.SGD(model.parameters(), lr=0.01)",
        *_sharding(imports, plan),
        "    for step in range(STEPS):",
        f"        started = {clock}",
        "        optimizer.zero_grad()",
        f"        loss = {_script(imports)}.sample_loss(model(*args, **kwargs))",
        "        loss.backward()",
        "        optimizer.step()",
        "        value = loss.item()",
        f"        milliseconds = 1000 * ({clock} - started)",
        "        if rank == 0:",
        '            print(f"step {step}  loss {value:.6f}  {milliseconds:.1f} ms", flush=True)',
        f"    if {dist}.is_initialized() and not has_group:",
        f"        {dist}.destroy_process_group()",
    ]


def _script(imports: Imports) -> str:
    return imports.member("autopar.emit", "script")
