"""The definitions that a class or function of the user's stands on: statements of its file, and of files beside it.

What is copied with a run is found statement by statement: the class, the names that it reads, and so on, but neither
the experiment nor the call that trains it. So a changed rate changes no definition, and a copy trains nothing.
"""

import ast
import builtins
import hashlib
import symtable
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import ModuleType

from snn_bp.errors import SnnError
from snn_bp.runs.own_modules import Source, module_beside, source_of_module

COPY_STARTS = "# Definitions of"  # how a copy begins
_IN_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_BUILTINS = frozenset(vars(builtins)) | {"__name__", "__doc__", "__class__", "__qualname__", "__module__"}


@dataclass(frozen=True)
class Statement:
    """One statement at the top of a file."""

    node: ast.stmt
    text: str
    binds: frozenset[str]  # the names that it gives a value
    reads: frozenset[str]  # names of the file that it reads, also later, when a function in it is called
    changes: frozenset[str]  # names whose value it changes in place: an attribute, an item, a method called

    @property
    def label(self) -> str:
        """What a message calls it."""
        return ", ".join(sorted(self.binds or self.changes)) or self.text.split("\n")[0][:40]


@lru_cache(maxsize=64)
def statements(text: str) -> tuple[Statement, ...]:
    """The statements of a Python text; those that only a program runs (`if __name__ == ...`) are left out.

    Kept by the text: a sweep asks for those of one file at each of its points.
    """
    return tuple(_statement(node, _text_of(node, text)) for node in ast.parse(text).body if not _is_program(node))


def hashes(files: Mapping[str, str]) -> dict[str, str]:
    """A hash of each definition in the texts of files, under file and name."""
    texts: dict[str, list[str]] = {}
    for name, text in files.items():
        for statement in statements(text):
            texts.setdefault(f"{name}:{statement.label}", []).append(statement.text)
    return {name: hashlib.sha256("\n".join(parts).encode()).hexdigest() for name, parts in sorted(texts.items())}


def definitions(names: Iterable[tuple[ModuleType, str]]) -> dict[str, str]:
    """The texts of files with just the definitions that these names of modules stand on."""
    collected = _Collected()
    for module, name in names:
        collected.need(collected.file_of(module), name)
    collected.complete()
    return {name: collected.files[name].chosen_text() for name in sorted(collected.files)}


@dataclass
class _File:
    """A file of the user's, and which of its statements are wanted so far."""

    source: Source
    statements: tuple[Statement, ...]
    chosen: dict[int, set[str]] = field(default_factory=dict)  # the statement, and the names wanted of an import

    def bound(self) -> set[str]:
        return {name for statement in self.statements for name in statement.binds}

    def indexes_of(self, name: str, reader: int) -> list[int]:
        """The statements that bind a name: from the last before the reader that does so afresh, to the very last."""
        binding = [index for index, statement in enumerate(self.statements) if name in statement.binds]
        fresh = [index for index in binding if index < reader and _is_fresh(self.statements[index], name)]
        return [index for index in binding if index >= max(fresh, default=0)]

    def chosen_text(self) -> str:
        future = [each for each in self.statements if isinstance(each.node, ast.ImportFrom) and _is_future(each.node)]
        chosen = [
            _narrowed(self.statements[index], names)
            for index, names in sorted(self.chosen.items())
            if self.statements[index] not in future
        ]
        header = f"{COPY_STARTS} {self.source.name}, as a run copied them: exactly these are used."
        return "\n\n".join([header, *(each.text for each in future), *chosen]) + "\n"


class _Collected:
    """The files that definitions come from, and what of them is wanted: it grows until nothing is missing."""

    def __init__(self) -> None:
        self.files: dict[str, _File] = {}
        self.open: list[tuple[_File, str, int]] = []  # a name that is wanted, and the statement that reads it

    def file_of(self, module: ModuleType) -> _File:
        """The file of a module, read at the first call."""
        source = source_of_module(module)
        known = self.files.get(source.name)
        if known is None:
            try:
                known = self.files[source.name] = _File(source, statements(source.text))
            except SyntaxError as cause:
                raise SnnError(f"{source.path}: it does not parse any more ({cause}); it was changed.") from None
        elif known.source.path != source.path:
            raise SnnError(f"own code: {source.path} and {known.source.path} have one name. Give one of them another.")
        return known

    def need(self, file: _File, name: str, reader: int | None = None) -> None:
        """Want the definition of a name, for one of its readers in the same file or for others."""
        self.open.append((file, name, len(file.statements) if reader is None else reader))

    def complete(self) -> None:
        """Want what is read by what is wanted, until nothing is missing."""
        done = set()
        while self.open:
            while self.open:
                file, name, reader = self.open.pop()
                if (file.source.name, name, reader) not in done:
                    done.add((file.source.name, name, reader))
                    for index in file.indexes_of(name, reader):
                        self._choose(file, index, name)
            for file in list(self.files.values()):
                self._follow_changes(file)
                self._follow_modules(file, done)

    def _choose(self, file: _File, index: int, name: str) -> None:
        statement, known = file.statements[index], file.chosen.setdefault(index, set())
        if isinstance(statement.node, ast.Import | ast.ImportFrom):
            if name not in known:
                known.add(name)
                for alias in statement.node.names:
                    if isinstance(statement.node, ast.ImportFrom) and (alias.asname or alias.name) == name:
                        self._follow_import(file, statement.node, alias)
            return
        if known:
            return
        known.add(name)
        bound = file.bound()
        self._check(file, statement, bound)
        for read in statement.reads & bound:
            self.need(file, read, index)
        for inner in _imports_within(statement.node):
            if isinstance(inner, ast.ImportFrom):
                for alias in inner.names:
                    self._follow_import(file, inner, alias)

    def _check(self, file: _File, statement: Statement, bound: set[str]) -> None:
        """Raise where a definition would not do in a copy what it does here; want imports of all names where it may."""
        path = file.source.path
        if "__file__" in statement.reads:
            raise SnnError(
                f"{path}: {statement.label} reads __file__, and a run uses a copy elsewhere. Make the folder a field."
            )
        for node in ast.walk(statement.node):
            if isinstance(node, _IN_FUNCTIONS):
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Import | ast.ImportFrom) and (own := _own_in(file, inner)):
                        raise SnnError(
                            f"{path}: {statement.label} imports {own} within a function, which a copy cannot. Import "
                            "it at the top of the file."
                        )
        if statement.reads - bound - _BUILTINS:
            for index, each in enumerate(file.statements):
                if isinstance(each.node, ast.ImportFrom) and each.node.names[0].name == "*":
                    if own := _own_in(file, each.node):
                        raise SnnError(f"{path}: it imports * from {own}. Import each name that it uses.")
                    file.chosen.setdefault(index, set())

    def _follow_import(self, file: _File, node: ast.ImportFrom, alias: ast.alias) -> None:
        """Want what `from module import name` brings from a file beside."""
        module = module_beside(file.source, node.module or "", level=node.level)
        if module is not None and module_beside(file.source, _dotted(node, alias.name), level=node.level) is None:
            self.need(self.file_of(module), alias.name)

    def _follow_changes(self, file: _File) -> None:
        """Want the statements that change in place what is wanted."""
        wanted = {
            name
            for index in file.chosen
            if not isinstance(file.statements[index].node, ast.Import | ast.ImportFrom)
            for name in file.statements[index].binds
        }
        for index, statement in enumerate(file.statements):
            if statement.changes & wanted and index not in file.chosen and not statement.reads & {"__file__"}:
                file.chosen[index] = {"*"}
                for read in statement.reads & file.bound():
                    self.need(file, read, index)

    def _follow_modules(self, file: _File, done: set[tuple[str, str, int]]) -> None:
        """Want what wanted statements read of modules beside, by `module.name`."""
        chosen = [file.statements[index].node for index in file.chosen]
        for local, module in _modules_of(file, chosen):
            for names in _uses_of(local, chosen):
                target, rest = module, list(names)
                while rest and module_beside(file.source, f"{target}.{rest[0]}", level=0) is not None:
                    target = f"{target}.{rest.pop(0)}"
                found = module_beside(file.source, target, level=0)
                if found is None:
                    continue
                other = self.file_of(found)
                for name in [rest[0]] if rest else sorted(other.bound()):
                    if (other.source.name, name, len(other.statements)) not in done:
                        self.need(other, name)


def _is_program(node: ast.stmt) -> bool:
    """Whether a statement runs only where the file is a program."""
    return isinstance(node, ast.If) and any(
        isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test)
    )


def _is_future(node: ast.ImportFrom) -> bool:
    return node.module == "__future__"


def _is_fresh(statement: Statement, name: str) -> bool:
    """Whether a statement gives a name a value that has nothing to do with the one before."""
    if isinstance(statement.node, ast.AnnAssign):
        return statement.node.value is not None and name not in statement.reads
    if isinstance(statement.node, ast.Assign):
        return name not in statement.reads
    return isinstance(statement.node, (*_DEFINED, ast.Import, ast.ImportFrom))


def _text_of(node: ast.stmt, text: str) -> str:
    """A statement as it stands in the text, its decorators included."""
    first = min((each.lineno for each in getattr(node, "decorator_list", ())), default=node.lineno)
    segment = ast.get_source_segment(text, node) or ""
    if first < node.lineno:
        lines = text.splitlines()[first - 1 : node.lineno - 1]
        segment = "\n".join([*lines, segment])
    return segment


def _narrowed(statement: Statement, names: set[str]) -> str:
    """An import with only the names that are wanted; any other statement as it is."""
    node = statement.node
    if not isinstance(node, ast.Import | ast.ImportFrom) or node.names[0].name == "*":
        return statement.text
    kept = [alias for alias in node.names if (alias.asname or alias.name.partition(".")[0]) in names]
    if isinstance(node, ast.Import):
        return ast.unparse(ast.Import(kept))
    return ast.unparse(ast.ImportFrom(node.module, kept, node.level))


def _statement(node: ast.stmt, text: str) -> Statement:
    table = symtable.symtable(text, "definition", "exec")
    binds = {each.get_name() for each in table.get_symbols() if each.is_assigned() or each.is_imported()}
    reads = {each.get_name() for each in table.get_symbols() if each.is_referenced()}
    for child in table.get_children():
        reads |= _global_names(child)
    for part in ast.walk(node):
        for annotation in (getattr(part, "annotation", None), getattr(part, "returns", None)):
            if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
                reads |= _names_in_text(annotation.value)
    return Statement(node, text, frozenset(binds), frozenset(reads), frozenset(_changed_names(node)))


def _global_names(table: symtable.SymbolTable) -> set[str]:
    """The names of the file that a scope and those within read."""
    is_class = table.get_type() == "class"
    names = {
        each.get_name()
        for each in table.get_symbols()
        if each.is_global() or (is_class and each.is_assigned() and each.is_referenced())
    }
    for child in table.get_children():
        names |= _global_names(child)
    return names


def _names_in_text(annotation: str) -> set[str]:
    try:
        tree = ast.parse(annotation, mode="eval")
    except SyntaxError:
        return set()
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _changed_names(node: ast.stmt) -> Iterator[str]:
    """The names whose values a statement changes in place."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        targets = [node.value.func]
    elif isinstance(node, _DEFINED):  # as @function.register
        targets = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
    for target in targets:
        part = target
        while isinstance(part, ast.Attribute | ast.Subscript):
            part = part.value
        if part is not target and isinstance(part, ast.Name):
            yield part.id


def _imports_within(node: ast.stmt) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports within a statement, as a `try` around one."""
    return (part for part in ast.walk(node) if isinstance(part, ast.Import | ast.ImportFrom))


def _dotted(node: ast.ImportFrom, name: str) -> str:
    return f"{node.module}.{name}" if node.module else name


def _own_in(file: _File, node: ast.Import | ast.ImportFrom) -> str | None:
    """The name of the first module beside that an import brings; None where all come from elsewhere."""
    if isinstance(node, ast.ImportFrom):
        names = [node.module or "", *(_dotted(node, alias.name) for alias in node.names)]
        level = node.level
    else:
        names, level = [alias.name for alias in node.names], 0
    return next((name or "." for name in names if module_beside(file.source, name, level=level) is not None), None)


def _modules_of(file: _File, chosen: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    """Local names of modules that wanted statements import from beside, and what each is called in full."""
    for statement in chosen:
        for node in _imports_within(statement):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    found = module_beside(file.source, _dotted(node, alias.name), level=node.level)
                    if found is not None:
                        yield alias.asname or alias.name, file.source.full_name(_dotted(node, alias.name), node.level)
            else:
                for alias in node.names:
                    first = alias.name.partition(".")[0]
                    yield (alias.asname, alias.name) if alias.asname else (first, first)


def _uses_of(local: str, chosen: list[ast.stmt]) -> Iterator[tuple[str, ...]]:
    """How statements use a module by its local name: the attributes behind it, none where it stands alone."""
    for statement in chosen:
        inner: set[ast.AST] = set()
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute) and node not in inner:
                names, part = [], node
                while isinstance(part, ast.Attribute):
                    names.append(part.attr)
                    part = part.value
                    inner.add(part)
                if isinstance(part, ast.Name) and part.id == local:
                    yield tuple(reversed(names))
            elif isinstance(node, ast.Name) and node.id == local and node not in inner:
                yield ()
