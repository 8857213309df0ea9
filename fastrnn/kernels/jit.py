"""The one decorator every compiled function wears, and the on-disk cache behind it.

Numba's own file cache asks only whether the caller's own file changed: after an edit or an
upgrade of a helper in another file the caller would run stale machine code, and a dashboard
would time another commit's kernels. Here a compiled function is filed under a stamp of the sources
it is made of and of the versions that compiled them.
"""

from __future__ import annotations

import _thread
import atexit
import functools
import gc
import hashlib
import logging
import os
import pickle
import platform
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

import llvmlite
import numba
import numpy as np
from numba import types
from numba.core import config, sigutils
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.serialize import dumps
from numba.extending import intrinsic

import fastrnn
from fastrnn.kernels import private
from fastrnn.kernels.inner import InnerCompiler, InnerLibrary, KernelCompiler

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# Settings of Numba that change the code it makes.
CODE_OPTIONS = ("BOUNDSCHECK", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "DEBUGINFO_DEFAULT")

# Between two looks whether a compilation is still waited for.
GIVEN_UP_SECONDS = 0.05

SOURCES = Path(__file__).parent
# Every module of kernels that is named in another's source.
IMPORTED = re.compile(r"\bfastrnn\.kernels(?:\.(\w+)| import (?:\(([\w,\s]*)\)|([\w, ]*)))")

OWN_FILES = re.compile(r"(kernels\.[\w.]+|note)-[0-9a-f]{32}\.bin")
# Bytes of the cache beyond which kernels go that were not used for longest; all of them take some
# 5 MB for an activation and a type.
MOST_BYTES = 1 << 28

_DIGEST_SIZE = hashlib.sha256().digest_size


def kernel(function: Callable[..., Any]) -> Any:
    """Compile ``function`` with the options every fastrnn kernel shares, and keep it on disk.

    ``nogil``: lane blocks run side by side on a thread pool.
    ``error_model="numpy"``: the Python model puts a zero-division branch behind every ``/``,
    which stops vectorisation without a word (5.9 ns instead of 0.94 a step).
    No ``fastmath``: contraction would give scalar and vector code different bits.
    No ``parallel``: it aborts under nested threads and dies in forked children.
    ``forceinline`` is said, as what a `part` calls would else be compiled as the part is.
    """
    dispatcher = _compiled(function, forceinline=False, _nrt=True)
    dispatcher._cache = KernelCache(function)
    return dispatcher


def brief(function: Callable[..., Any]) -> Any:
    """Compile what takes nanoseconds: letting go of the interpreter would take longer."""
    dispatcher = _compiled(function, nogil=False, _nrt=True)
    dispatcher._cache = KernelCache(function)
    return dispatcher


def bare(function: Callable[..., Any]) -> Any:
    """Compile what makes no arrays, and counts no references to those it is given.

    Counting takes an atomic operation for each array that is handed on: a tenth to a third of the
    time of narrow layers. What counts nothing must not call a `kernel` or a `part` that returns
    arrays: it would never let go of them. Others are told to count (``_nrt``), lest Numba compiles
    them as their first caller was.
    """
    dispatcher = _compiled(function, forceinline=False, _nrt=False)
    dispatcher._cache = KernelCache(function)
    return dispatcher


def part(function: Callable[..., Any]) -> Any:
    """Compile a part of kernels, which becomes one with its caller.

    ``forceinline``: a call would pass vectors through memory.
    """
    return _compiled(function, forceinline=True, _nrt=True)


def bare_part(function: Callable[..., Any]) -> Any:
    """A `part` that is `bare`."""
    return _compiled(function, forceinline=True, _nrt=False)


def written_out(function: Callable[..., Any]) -> Any:
    """Write a function's code in the place of its calls: for what is called in one place alone.

    Else Numba compiles it for itself, and once more in each of its callers, one around the other.
    And for arrays on their way to what is `bare`.
    """
    return _compiled(function, inline="always", _nrt=True)


@intrinsic
def apart(typingctx):  # type: ignore[no-untyped-def]
    """Keep the kernel this stands in apart from those that call it: they compile faster."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


def _compiled(function: Callable[..., Any], nogil: bool = True, **options: Any) -> Any:
    with _jit_enabled():
        dispatcher = numba.njit(nogil=nogil, error_model="numpy", **options)(function)
    compile_, add_overload = dispatcher.compile, dispatcher.add_overload

    # Functions that depend on a type are made only now.
    def compile_enabled(signature: Any) -> Any:
        inner = global_compiler_lock.is_locked()
        with global_compiler_lock, _jit_enabled():
            if not inner:
                # What kernels call has no entry for Python.
                arguments = tuple(sigutils.normalize_signature(signature)[0])
                if is_inner(dispatcher.overloads.get(arguments)):
                    del dispatcher.overloads[arguments]
            dispatcher._compiler.pipeline_class = InnerCompiler if inner else KernelCompiler
            if inner or not isinstance(dispatcher._cache, KernelCache):
                return compile_(signature)
            with _without_garbage(), dispatcher._cache.one_at_a_time(signature, dispatcher):
                return compile_(signature)

    def add(found: CompileResult) -> None:
        if is_inner(found):
            dispatcher.overloads[tuple(found.signature.args)] = found
        else:
            add_overload(found)
            for environment in found._find_referenced_environments():
                found.library.codegen.set_env(environment.env_name, environment)

    dispatcher.compile = lambda signature: _undisturbed(compile_enabled, signature)
    dispatcher.add_overload = add
    return dispatcher


def is_inner(found: CompileResult | None) -> bool:
    """Whether it is code that only compiled code can call."""
    return found is not None and isinstance(found.library, InnerLibrary)


class GivenUp(BaseException):
    """What a thread waits for in vain raises, see `given_up`."""


# Whether nobody needs any more what this thread does, asked while it waits for a compilation.
given_up: ContextVar[Callable[[], bool]] = ContextVar("given_up", default=lambda: False)


def _undisturbed(compile_: Callable[[Any], Any], signature: Any) -> Any:
    """Compile in a thread of its own, where no signal handler can break it off.

    An exception in the middle leaves Numba unable to compile ("generator raised StopIteration"),
    or without the machine code that it is about to keep ("no compiled object yet"). Who waits here
    hears Ctrl-C at once; the compilation goes on, for the next call.
    """
    if global_compiler_lock.is_locked():  # a part of what this thread compiles
        return compile_(signature)
    # A plain lock: a handler that raises inside of other means of waiting leaves them locked.
    outcome: list[tuple[Any, BaseException | None]] = []
    done = threading.Lock()
    done.acquire()

    def work() -> None:
        try:
            outcome.append((compile_(signature), None))
        except BaseException as error:
            outcome.append((None, error))
        finally:
            done.release()

    try:
        _thread.start_new_thread(work, ())
    except RuntimeError:  # no thread to be had
        return compile_(signature)
    while not done.acquire(timeout=GIVEN_UP_SECONDS):
        if given_up.get()():
            raise GivenUp
    result, error = outcome.pop()
    if error is not None:
        raise error
    return result


def is_compiling() -> bool:
    """Whether some thread compiles."""
    free = global_compiler_lock._lock.acquire(blocking=False)
    if free:
        global_compiler_lock._lock.release()
    return not free


@atexit.register
def _finish() -> None:
    """Wait for a compilation that nobody waits for: it needs the interpreter to end in order."""
    with global_compiler_lock:
        pass


# A child that is forked while another thread compiles would wait for that thread forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


@contextmanager
def _without_garbage() -> Iterator[None]:
    """No search for garbage, which takes a tenth of the time that a compiler needs."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _jit_enabled() -> Iterator[None]:
    """Vectors exist only in compiled code: NUMBA_DISABLE_JIT is for the callers' own functions."""
    disabled, config.DISABLE_JIT = config.DISABLE_JIT, 0
    try:
        yield
    finally:
        config.DISABLE_JIT = disabled


class KernelCache(_Cache):  # type: ignore[misc]
    """Machine code of one function, a file for each signature and CPU.

    A file's name is the hash of all it depends on, so that processes starting together never
    write different code under one name, and its first bytes are the hash of the rest, so that
    a damaged file is a miss. Anything that goes wrong here costs a compilation, nothing else.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = f"{function.__module__}.{function.__qualname__}".removeprefix("fastrnn.")
        package, _, self._module = function.__module__.rpartition(".")
        # What others compile with these decorators is not known by the sources here.
        self._enabled = package == "fastrnn.kernels"

    @property
    def cache_path(self) -> str | None:
        """Folder of the cache, if there is one."""
        folder = cache_folder()
        return None if folder is None else str(folder)

    def enable(self) -> None:
        """Use the cache."""
        self._enabled = True

    def disable(self) -> None:
        """Compile anew."""
        self._enabled = False

    def flush(self) -> None:
        """Remove all that is cached of this function."""

        def remove(place: private.Folder) -> None:
            for name in place.names():
                if name.startswith((f"{self._name}-", "note-")):
                    place.remove(name)

        _in_cache(remove)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Compiled code for a signature, or None."""
        target_context.refresh()
        if not self._enabled:
            return None
        name = self._file(sig, target_context.codegen())
        content = _in_cache(lambda place: place.read(name))
        if content is None:
            return None
        digest, payload = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
        if hashlib.sha256(payload).digest() != digest:
            logger.debug("cached kernel %s is damaged: compiling", name)
            return None
        _in_cache(lambda place: place.use(name))
        try:
            return CompileResult._rebuild(target_context, *pickle.loads(payload))
        except Exception:
            logger.debug("cached kernel %s cannot be read: compiling", name, exc_info=True)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep compiled code, if there is a place for it."""
        if not self._enabled or is_inner(data):
            return
        if cache_folder() is None or data.library.has_dynamic_globals:
            return
        payload = dumps(data._reduce())
        name, content = self._file(sig, data.codegen), hashlib.sha256(payload).digest() + payload
        _in_cache(lambda place: place.write(name, content))

    @contextmanager
    def one_at_a_time(self, sig: Any, dispatcher: Any) -> Iterator[None]:
        """Let one process compile what is missing; others wait, and then find it in the cache."""
        if not self._enabled:
            yield
            return
        name = self._file(sig, dispatcher.targetctx.codegen())
        with ExitStack() as held:
            if (folder := cache_folder()) is not None:
                with suppress(OSError, private.NotPrivate):
                    place = held.enter_context(private.opened(folder))
                    if not place.has(name):
                        held.enter_context(place.locked(name))
            yield

    def _file(self, sig: Any, codegen: Any) -> str:
        options = [getattr(config, option) for option in CODE_OPTIONS]
        stamp = source_stamp(self._module, *sorted(_modules_of(sig)))
        key = repr((stamp, options, sig, codegen.magic_tuple()))
        return f"{self._name}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.bin"


def _in_cache(action: Callable[[private.Folder], Result]) -> Result | None:
    """Do something in the folder of compiled kernels; None where that goes wrong."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        with private.opened(folder) as place:
            return action(place)
    except FileNotFoundError:
        pass
    except private.NotPrivate as error:
        warnings.warn(f"fastrnn ignores the kernel cache: {error}", RuntimeWarning, stacklevel=2)
    except OSError as error:
        logger.debug("kernel cache: %s", error)
    return None


def _modules_of(sig: Any) -> set[str]:
    """Modules of the named tuples in a signature, whose types do not tell the names of fields."""
    kinds = sig if isinstance(sig, tuple) else (*getattr(sig, "args", ()),)
    found = set()
    for kind in kinds:
        if (named := getattr(kind, "instance_class", None)) is not None:
            found.add(named.__module__.rpartition(".")[2])
        found |= _modules_of(tuple(getattr(kind, "types", ())))
    return found


def note(what: str) -> None:
    """Keep a note beside the kernels of these sources and this processor."""
    _in_cache(lambda place: place.write(_note_file(what), b""))


def is_noted(what: str) -> bool:
    """Whether there is such a note."""
    return bool(_in_cache(lambda place: place.has(_note_file(what))))


def _note_file(what: str) -> str:
    options = [getattr(config, option) for option in CODE_OPTIONS]
    stamp = source_stamp(*sorted(path.stem for path in SOURCES.glob("*.py")))
    processor = cpu_target.target_context.codegen().magic_tuple()
    key = repr((fastrnn.__version__, stamp, options, processor, what))
    return f"note-{hashlib.sha256(key.encode()).hexdigest()[:32]}.bin"


@functools.cache
def source_stamp(*modules: str) -> str:
    """Hash of the sources that kernels of some modules are made of, and of what compiles them."""
    names, found = ["__init__", "jit", *modules], set[str]()
    while names:
        name = names.pop()
        if name not in found and (SOURCES / f"{name}.py").is_file():
            found.add(name)
            for named in IMPORTED.findall((SOURCES / f"{name}.py").read_text("utf-8")):
                names += " ".join(named).replace(",", " ").split()
    stamp = hashlib.sha256()
    for name in sorted(found):
        stamp.update(name.encode() + b"\0" + (SOURCES / f"{name}.py").read_bytes() + b"\0")
    versions = (numba.__version__, llvmlite.__version__, np.__version__, sys.version)
    stamp.update(repr((versions, platform.machine())).encode())
    return stamp.hexdigest()


@functools.cache
def cache_folder() -> Path | None:
    """Private folder of compiled kernels, or None where none can be written.

    ``$FASTRNN_CACHE_DIR``, else ``$XDG_CACHE_HOME/fastrnn``, else ``~/.cache/fastrnn``. Cached
    kernels are pickles, for Numba has no other form of a function's types: a folder that others
    could write into, or put another in the place of, is never read.
    """
    try:
        folder = _wanted_folder().resolve()
        for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        private.check(folder)
        with private.opened(folder) as place:
            place.tidy(OWN_FILES, MOST_BYTES)
    except private.NotPrivate as error:
        warnings.warn(
            f"fastrnn ignores the kernel cache {folder}: {error} "
            "(chmod go-w it, or set FASTRNN_CACHE_DIR)",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    except (OSError, RuntimeError) as error:
        logger.debug("kernels are compiled anew in each process: %s", error)
        return None
    return folder


def _wanted_folder() -> Path:
    if chosen := os.environ.get("FASTRNN_CACHE_DIR"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fastrnn"
