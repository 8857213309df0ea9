"""Functions that compiled code alone calls: no wrappers of them, and no machine code by itself.

Numba makes of every function it compiles a Python function and a C function, optimises it, links
it into its callers, and optimises it there again. Of what only kernels call that is half of the
time that compilation takes. Here such a function is lowered, and no more: the kernel that Python
calls takes all of its code together, and LLVM runs over it once.
"""

import logging
from typing import Any

from llvmlite import binding as llvm
from numba.core.codegen import CodeLibrary, JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.typed_passes import NativeLowering

logger = logging.getLogger(__name__)


class InnerLibrary(JITCodeLibrary):  # type: ignore[misc]
    """Code of one function; that of those it calls is in libraries of their own."""

    def add_llvm_module(self, module: Any) -> None:
        """Take the code as it is."""
        module.data_layout = self._codegen._data_layout
        self._final_module.link_in(module)

    def finalize(self) -> None:
        """Let callers take the code, and drop it where it is not called."""
        self._finalize_dynamic_globals()
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == llvm.Linkage.external:
                function.linkage = "linkonce_odr"
        self._finalized = True

    def own_module(self) -> Any:
        """The code of this function alone."""
        self._ensure_finalized()
        return self._final_module

    def _get_module_for_linking(self) -> Any:
        # For callers that are not of this package: they know nothing of the others.
        module = self.own_module().clone()
        for library in _all_of([self])[1:]:
            _link(module, library)
        return module


class KernelLibrary(JITCodeLibrary):  # type: ignore[misc]
    """Code of a kernel, with that of all it calls."""

    def finalize(self) -> None:
        """Link, optimise and compile."""
        libraries = _all_of(self._linking_libraries)
        self._linking_libraries.clear()
        # What nothing calls yet would not be linked.
        for library in libraries:
            self._reload_init.update(library._reload_init)
            _link(self._final_module, library)
        super().finalize()


def _all_of(libraries: list[CodeLibrary]) -> list[CodeLibrary]:
    """These, and what they call, each once and behind all of its callers."""
    found: dict[CodeLibrary, None] = {}

    def visit(library: CodeLibrary) -> None:
        if library not in found:
            if isinstance(library, InnerLibrary):
                for called in library._linking_libraries:
                    visit(called)
            found[library] = None

    for library in libraries:
        visit(library)
    return list(reversed(found))


def _link(module: Any, library: CodeLibrary) -> None:
    inner = isinstance(library, InnerLibrary)
    own = library.own_module() if inner else library._get_module_for_linking()
    module.link_in(own, preserve=True)


@register_pass(mutates_CFG=True, analysis_only=False)
class InnerLowering(NativeLowering):  # type: ignore[misc]
    """Lower a function, and make no machine code of it."""

    _name = "fastrnn_inner_lowering"

    def run_pass(self, state: Any) -> bool:
        """Lower, and let callers find the code by a key."""
        state.library = InnerLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        super().run_pass(state)
        key = object()
        state.targetctx.insert_user_function(key, state["cr"].fndesc, [state.library])
        state.reload_init.extend(state.library._reload_init)
        state["cr"] = state["cr"]._replace(cfunc=key)
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class KernelLowering(NativeLowering):  # type: ignore[misc]
    """Lower a function and compile it with all it calls."""

    _name = "fastrnn_kernel_lowering"

    def run_pass(self, state: Any) -> bool:
        """Lower and compile."""
        state.library = KernelLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        done: bool = super().run_pass(state)
        return done


class KernelCompiler(CompilerBase):  # type: ignore[misc]
    """Numba's own compiler, of what Python calls."""

    lowering: type[NativeLowering] = KernelLowering

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.state.flags.no_cfunc_wrapper = True

    def compile_extra(self, function: Any) -> Any:
        """Compile a function, and say so: it takes seconds."""
        if self.lowering is KernelLowering:
            name = f"{function.__module__}.{function.__qualname__}".removeprefix("fastrnn.kernels.")
            logger.info("compiling %s for this processor; the next process finds it", name)
        return super().compile_extra(function)

    def define_pipelines(self) -> list[PassManager]:
        """One, for code that needs no interpreter."""
        usual = DefaultPassBuilder.define_nopython_pipeline(self.state)
        steps = PassManager(self.lowering._name)
        for step, text in usual.passes:
            steps.add_pass(self.lowering if step is NativeLowering else step, text)
        steps.finalize()
        return [steps]


class InnerCompiler(KernelCompiler):
    """The same, of what compiled code calls."""

    lowering = InnerLowering

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.state.flags.no_cpython_wrapper = True
        self.state.flags.no_compile = True
