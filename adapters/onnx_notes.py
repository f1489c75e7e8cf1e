"""What is told of an ONNX file when it is opened: what was stated, guessed and chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .onnx_file import plain
from .onnx_outputs import like_logits
from .onnx_spec import describe_spec

if TYPE_CHECKING:
    import onnx

    from .onnx import OnnxModel
    from .onnx_statement import Statement

GUESSED = "input guessed: "
"""How the note begins that tells which parts of the input were guessed."""

DETOUR = "the coarsest map on the way to an output as fine as the image; name another as the target"
MOST_NAMES = 8


def opening_notes(model: OnnxModel, said: Statement, *, named: bool) -> list[str]:
    """Input, target, provider and batch; `said` was stated, `named` if the target was."""
    notes = []
    if model.spec.guessed:
        notes.append(f"{GUESSED}{', '.join(model.spec.guessed)}")
    stated = said.note()
    notes += [stated] if stated else []
    notes.append(f"input: {describe_spec(model.spec)}")
    if model.target is not None and not (named or model.is_on_every_path(model.target.name)):
        notes.append(f"target {plain(model.target.name)!r}: {DETOUR}")
    source = model.source
    if source["provider"] != source["requested_provider"]:
        notes.append(
            f"{source['requested_provider']} was asked for, onnxruntime runs on "
            f"{source['provider']}"
        )
    if model._batch is not None:
        notes.append(f"the file insists on a batch of {model._batch}; images go in pieces")
    return notes


def several_logits(proto: onnx.ModelProto) -> list[str]:
    """That the logits were chosen, where several outputs have their form."""
    names = [repr(plain(name)) for name in like_logits(proto)]
    if len(names) < 2:
        return []
    others = " or ".join(names[1 : MOST_NAMES + 1])
    return [f"output {names[0]} is taken for the logits; {others} may be: name it as the output"]
