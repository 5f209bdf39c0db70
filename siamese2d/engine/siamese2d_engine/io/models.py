"""Model files: safetensors weights plus one JSON header. Nothing in them is ever executed."""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from siamese2d_engine import __version__
from siamese2d_engine.errors import InputError
from siamese2d_engine.io.atomic import atomic_path

HEADER_KEY = "siamese2d"


def save_model(path: str | os.PathLike, header: dict, tensors: dict[str, torch.Tensor]) -> None:
    """Write a model atomically.

    Parameters
    ----------
    path : path
        File, usually ``*.safetensors``.
    header : dict
        JSON-serialisable; `kind` ('picker' or 'embedding'), architecture, pixel size, training record.
    tensors : dict of str to Tensor
        The weights.
    """
    text = json.dumps({**header, "version": __version__}, allow_nan=False)
    with atomic_path(path) as partial:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial,
                  metadata={HEADER_KEY: text})


def load_model(path: str | os.PathLike, kind: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """Read a model's header and weights.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another program, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: the model file does not exist. Train a model first, or check the path.")
    try:
        with safe_open(path, framework="pt") as stream:
            header = json.loads((stream.metadata() or {})[HEADER_KEY])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}
    except (SafetensorError, KeyError, ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path}: not a siamese2d model, or damaged. Use a file that train-picker or train wrote.") \
            from error
    if not isinstance(header, dict):
        raise InputError(f"{path}: not a siamese2d model, or damaged. Use a file that train-picker or train wrote.")
    if header.get("kind") != kind:
        raise InputError(f"{path}: this is a model of kind '{header.get('kind')}', but a '{kind}' model is needed.")
    return header, tensors
