"""The state between passes as a file, so that a killed run goes on where it was."""

from pathlib import Path

import torch

from siamese2d_engine.classify.averages import Spectra
from siamese2d_engine.classify.engine import State
from siamese2d_engine.classify.passes import Resolution
from siamese2d_engine.classify.search import Poses
from siamese2d_engine.io.models import load_model, save_model

KIND = "classification-state"


def save_state(path: Path, state: State) -> None:
    """Write a state atomically."""
    header = {"kind": KIND, "step": state.step, "at": list(vars(state.at).values()), "history": state.history,
              "grouping": state.grouping}
    tensors = {f"poses.{name}": value for name, value in vars(state.poses).items()}
    tensors |= {"averages": torch.view_as_real(state.averages), "denominators": state.denominators,
                "signal": state.spectra.signal, "noise": state.spectra.noise, "offsets": state.offsets, "scores": state.scores}
    save_model(path, header, tensors)


def load_state(path: Path, device: torch.device) -> State:
    """Read a state back; averages, spectra and offsets go to `device`.

    Raises
    ------
    InputError
        If the file is missing or damaged.
    """
    header, tensors = load_model(path, KIND)
    poses = Poses(**{name[6:]: value for name, value in tensors.items() if name.startswith("poses.")})
    return State(
        step=header["step"], poses=poses, averages=torch.view_as_complex(tensors["averages"]).to(device),
        denominators=tensors["denominators"].to(device), at=Resolution(*header["at"]),
        spectra=Spectra(tensors["signal"].to(device), tensors["noise"].to(device)),
        offsets=tensors["offsets"].to(device), scores=tensors["scores"], history=header["history"],
        grouping=header["grouping"],
    )
