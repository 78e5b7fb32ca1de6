"""Common base of the interfaces: where files go, and how an error leaves a readable record."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, Self

from nipype.interfaces.base import SimpleInterface, isdefined, traits

from tau_pipeline.errors import TauPipelineError, memory_shortage
from tau_pipeline.files import write_json
from tau_pipeline.settings.participant import Settings

_SETTINGS = {field.name for field in fields(Settings)}
#: Name of the record that a failed node leaves in its working folder.
ERROR_RECORD = "error.json"


def quality_figures_trait() -> Any:
    """Return the output of an interface for figures of quality checks, by `quality_checks.Check.key`.

    What is in it goes into the sidecar of the SUVR map, where the checks are made.
    """
    return traits.Dict(desc="figures of quality checks, by their key in the sidecar")


class LibraryInterface(SimpleInterface):
    """An interface over one library function.

    A subclass has an input and an output spec and one method, `call`, which gets the folder to write to and returns
    the outputs by name. Errors of this package are written to ``error.json`` in that folder before they go on, since
    Nipype keeps only their traceback.
    """

    @classmethod
    def with_settings(cls, settings: Settings, **inputs: Any) -> Self:
        """Return the interface with these inputs, and with each setting that one of its inputs is named after.

        An optional setting that is None leaves its input unset.
        """
        own = {name: getattr(settings, name) for name in cls.input_spec().copyable_trait_names() if name in _SETTINGS}
        chosen = {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}
        return cls(**{name: value for name, value in chosen.items() if value is not None}, **inputs)

    def call(self, folder: Path) -> dict[str, Any]:
        """Load the inputs, call the library, save to ``folder``, return the outputs."""
        raise NotImplementedError

    def _run_interface(self, runtime: Any) -> Any:
        folder = Path(runtime.cwd)
        try:
            self._results.update(self.call(folder))
        except Exception as exc:
            # Libraries report too little memory in exceptions of any type.
            shortage = memory_shortage(exc)
            if shortage is not None or isinstance(exc, TauPipelineError | OSError):
                error = shortage or exc
                write_json({"error": type(error).__name__, "message": str(error)}, folder / ERROR_RECORD)
            if shortage is not None and shortage is not exc:
                raise shortage from exc
            raise
        return runtime

    def optional(self, name: str) -> Any:
        """Return the value of an input, or None where it was not set."""
        value = getattr(self.inputs, name)
        return value if isdefined(value) else None
