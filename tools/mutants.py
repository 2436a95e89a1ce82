"""Change single expressions in losses, targets, metrics and store, and see whether the unit tests notice.

    OMP_NUM_THREADS=1 nice python tools/mutants.py draw CHECKOUT --out mutants.json             # an hour on one core
    OMP_NUM_THREADS=1 nice python tools/mutants.py again CHECKOUT mutants.json --out later.json # the same in moved code

``again`` finds a function by its qualified name wherever it now is (``--moved OLD=NEW`` where it has another name) and
the expression in it by its text. It prints the mutants that were killed and now survive or whose code is gone, and ends
with exit code 1 if there are any. It is no part of CI: run it before and after code is moved.
"""

import argparse
import ast
import copy
import json
import os
import random
import resource
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

# Group to the files that are changed and the tests that should notice: to be edited when they move.
CLIP, PRETRAIN, RANKING = "training/nb_clip", "training/med_vqa/pretrain", "training/retrieval"
GROUPS = {
    "losses": (f"kg_targets/losses/* {CLIP}/batch_targets {CLIP}/objective", f"*/losses/test_* {CLIP}/test_[bt]*"),
    "metrics": (f"{RANKING}/m* {RANKING}/concepts training/statistics/*", f"*/statistics/test_* {RANKING}/test_[cmr]*"),
    "store": ("kg_targets/store/*", "kg_targets/store/test_*"),
    "objectives": (
        f"{PRETRAIN}/losses {PRETRAIN}/soft_labels training/med_vqa/model/transport",
        f"{PRETRAIN}/test_contrastive {PRETRAIN}/test_ma* training/med_vqa/model/test_transport",
    ),
}  # fmt: skip
PRELOADED = "pandas pyarrow.parquet scipy.stats torchvision transformers open_clip hypothesis pytest"
SWAPPED = dict(pair.split() for pair in (
    "Lt GtE", "LtE Lt", "Gt LtE", "GtE Gt", "Eq NotEq", "NotEq Eq", "In NotIn", "NotIn In", "Is IsNot", "IsNot Is",
    "Add Sub", "Sub Add", "Mult Div", "Div Mult", "FloorDiv Mult", "Mod Mult", "Pow Mult", "BitAnd BitOr",
    "BitOr BitAnd", "And Or", "Or And", "min max", "max min", "minimum maximum", "maximum minimum", "argmin argmax",
    "argmax argmin", "any all", "all any", "sum mean", "mean sum", "floor ceil", "ceil floor", "exp log", "log exp",
))  # fmt: skip
PACKAGES = ("kg_targets", "training", "pipelines")
LEFT_OUT, Mutant = (ast.FunctionDef, ast.ClassDef, ast.Raise), dict[str, Any]


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Every change of one node; its children have their own."""
    new: Any = copy.deepcopy(node)
    match new:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield from map(ast.Constant, (value + 1, value - 1 if isinstance(value, int) else value / 2))
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield new.operand
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.Return(value=ast.expr()) if ast.unparse(new.value) != "None":
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Compare(ops=[op, *_]) | ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op):
            if other := getattr(ast, SWAPPED.get(type(op).__name__, ""), None):
                new.op, rest = other(), getattr(new, "ops", [])[1:]
                new.ops = [new.op, *rest]  # of op and ops, a node reads the one that it has
                yield new
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.keyword(arg=name) if name in SWAPPED:
            new.id = new.attr = new.arg = SWAPPED[name]
            yield new


def nodes(node: ast.AST, line: str = "def") -> Iterator[tuple[ast.AST, str]]:
    """What is in a function, each with the first line of its statement; neither inner functions nor messages."""
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            left_out = field in ("annotation", "returns", "decorator_list") or isinstance(child, LEFT_OUT)
            if isinstance(child, ast.AST) and not left_out:
                first = ast.unparse(child).splitlines()[0] if isinstance(child, ast.stmt) else line
                yield child, first
                yield from nodes(child, first)


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Functions and methods with their qualified names."""
    for node in (child for child in ast.iter_child_nodes(tree) if isinstance(child, ast.stmt)):
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node
        named = isinstance(node, ast.FunctionDef | ast.ClassDef)
        yield from functions(node, f"{prefix}{node.name}." if named else prefix)  # type: ignore[attr-defined]


def all_mutants(checkout: Path) -> Iterator[Mutant]:
    """Every mutant of every group."""
    for group, (sources, _) in GROUPS.items():
        for path in sorted(path for pattern in sources.split() for path in checkout.glob(f"{pattern}.py")):
            for name, function in functions(ast.parse(path.read_text(encoding="utf-8"))):
                seen: dict[tuple[str, str], int] = {}
                for node, line in nodes(function):
                    text = ast.unparse(node)
                    nth = seen[line, text] = seen.get((line, text), -1) + 1
                    for new in (new for new in changes(node) if ast.unparse(new) != text):
                        where = dict(group=group, module=f"{path.relative_to(checkout)}", function=name)
                        yield dict(where, line=line, original=text, mutated=ast.unparse(new), nth=nth)


def apply(mutant: Mutant, text: str, name: str) -> ast.Module | None:
    """The changed file; None where it has no such function or no such expression."""
    tree = ast.parse(text)
    for function in (node for found, node in functions(tree) if found == name):
        alike = [(node, line) for node, line in nodes(function) if ast.unparse(node) == mutant["original"]]
        here = [node for node, line in alike if line == mutant["line"]] or [node for node, _ in alike]
        old = here[mutant["nth"]] if len(here) > mutant["nth"] else None
        for new in (new for new in changes(old) if ast.unparse(new) == mutant["mutated"]) if old else ():
            for node in ast.walk(function):
                for field, value in ast.iter_fields(node):
                    if value is old:
                        setattr(node, field, new)
                    elif isinstance(value, list):
                        value[:] = [new if one is old else one for one in value]
            return ast.fix_missing_locations(tree)
    return None


def place(mutant: Mutant, checkout: Path, name: str) -> tuple[Path, ast.Module] | None:
    """Where the mutant's function is now, and its file, changed: the former file first, then every other."""
    others = [path for top in PACKAGES for path in sorted(checkout.glob(f"{top}/**/*.py"))]
    for path in (path for path in (checkout / mutant["module"], *others) if path.is_file()):
        text = path.read_text(encoding="utf-8")
        if name.split(".")[-1] in text and (tree := apply(mutant, text, name)) is not None:
            return path, tree
    return None


def fail(group: str, limit: float, changed: tuple[Path, ast.Module] | None) -> tuple[bool, float]:
    """Whether the group's tests fail or need more than ``limit`` CPU seconds, with one file changed; the seconds."""
    if not (child := os.fork()):
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit)))
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), stream)
        load = SourceFileLoader.get_code

        def get_code(self: SourceFileLoader, name: str) -> Any:
            mine = changed and Path(self.path) == changed[0]
            return compile(changed[1], self.path, "exec") if mine else load(self, name)  # type: ignore[index]

        SourceFileLoader.get_code = get_code  # type: ignore[assignment,method-assign]
        tests = sorted(
            {str(path) for name in GROUPS[group][1].split() for path in Path("tests").glob(f"{name}.py")}
        )
        os._exit(
            import_module("pytest").main(["-xq", "-mnot e2e", "-pno:cacheprovider", "-pno:timeout", *tests])
        )
    _, status, used = os.wait4(child, 0)
    return status != 0, used.ru_utime + used.ru_stime


def main() -> int:
    """Draw mutants or take recorded ones, and write down which were killed."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = command.add_argument
    add("action", choices=("draw", "again"))
    add("checkout", type=Path, help="folder of the code")
    add("drawn", type=Path, nargs="?", help="again: what draw wrote")
    add("--out", type=Path, required=True, help="file for the mutants and their fates")
    add("--number", type=int, default=200, help="mutants to draw (default: 200)")
    add("--moved", action="append", default=[], metavar="OLD=NEW", help="qualified names of a function")
    options = command.parse_args()
    checkout, out = options.checkout.resolve(), options.out.resolve()
    if options.action == "draw":
        every = list(all_mutants(checkout))
        mutants = [every[i] for i in sorted(random.Random(0).sample(range(len(every)), options.number))]
    else:
        mutants = [{**one, "before": one["killed"]} for one in json.loads(options.drawn.read_text())]
    os.environ["PYTHONPATH"] = sys.path[0] = str(checkout)
    os.chdir(checkout)
    for name in PRELOADED.split():
        import_module(name)
    module: Any = import_module("hypothesis")
    same = {"derandomize": True, "database": None, "deadline": None}  # however busy the machine
    module.settings.register_profile("same", suppress_health_check=list(module.HealthCheck), **same)
    module.settings.load_profile("same")
    moved, limits = dict(pair.split("=", 1) for pair in options.moved), {}
    for group in sorted({mutant["group"] for mutant in mutants}):
        failed, seconds = fail(group, 600, None)
        if failed:
            sys.exit(f"the tests of {group} fail as they are")
        limits[group] = 20 + 4 * seconds
    for count, one in enumerate(mutants, 1):
        found = place(one, checkout, moved.get(one["function"], one["function"]))
        one["killed"] = found is not None and fail(one["group"], limits[one["group"]], found)[0]
        fate = "gone" if found is None else "killed" if one["killed"] else "survives"
        one["told"] = f"{fate}: {one['module']} {one['function']}: {one['original']} -> {one['mutated']}"
        sys.stderr.write(f"{count}/{len(mutants)} {one['told']}  in  {one['line']}\n")
        out.write_text(json.dumps(mutants[:count], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lost = [one["told"] for one in mutants if one.get("before", False) and not one["killed"]]
    sys.stdout.writelines(f"{line}\n" for line in lost)
    sys.stdout.write(f"{sum(one['killed'] for one in mutants)} killed, {len(lost)} no longer\n")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
