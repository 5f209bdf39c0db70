"""A trained picker and its file."""

from dataclasses import dataclass
from pathlib import Path

import torch

from siamese2d_engine.errors import InputError
from siamese2d_engine.io.models import load_model, save_model
from siamese2d_engine.picking.calibration import logit
from siamese2d_engine.picking.inputs import WORKING_DIAMETER
from siamese2d_engine.picking.network import Architecture, PickerNetwork


@dataclass(frozen=True)
class Picker:
    """A network with what is needed to use it.

    Attributes
    ----------
    network : PickerNetwork
    diameter : float
        Of the particle, or of the largest one, angstroms.
    calibration : tuple of float
        Slope and offset from logit to the logit of the probability.
    threshold : float
        Probability from which a candidate is picked.
    smallest : float
        Diameter of the smallest particles over that of the largest.
    """

    network: PickerNetwork
    diameter: float
    calibration: tuple[float, float]
    threshold: float
    smallest: float = 1.0

    def floor_logit(self, floor: float) -> float:
        """Network's logit of a candidate with probability `floor`."""
        return logit(floor, self.calibration)

    def header(self) -> dict:
        """For the model's file; `pixel_size` is that of the working scale."""
        return {
            "kind": "picker",
            "architecture": self.network.architecture.as_dict(),
            "receptive_field": self.network.architecture.receptive_field,
            "working_diameter": WORKING_DIAMETER,
            "pixel_size": self.diameter / WORKING_DIAMETER,
            "diameter": self.diameter,
            "smallest": self.smallest,
            "calibration": list(self.calibration),
            "threshold": self.threshold,
        }


def load_picker(path: Path, device: torch.device) -> Picker:
    """Read a picker.

    Raises
    ------
    InputError
        If the file is missing, damaged, not a picker, or its weights do not fit its architecture.
    """
    header, tensors = load_model(path, "picker")
    try:
        network = PickerNetwork(Architecture.from_dict(header["architecture"]))
        network.load_state_dict(tensors)
        slope, offset = (float(v) for v in header["calibration"])
        picker = Picker(network.to(device), float(header["diameter"]), (slope, offset), float(header["threshold"]),
                        float(header.get("smallest", 1.0)))
        working_diameter = float(header["working_diameter"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: the picker's header and weights do not fit together ({error}). Train it again.") \
            from error
    if working_diameter != WORKING_DIAMETER:
        raise InputError(f"{path}: made for particles of {working_diameter:g} working pixels, this version uses "
                         f"{WORKING_DIAMETER:g}. Train the picker again.")
    return picker


def shipped_weights(name: str) -> Path:
    """The file of weights that comes with the engine for an architecture, a key of `network.ARCHITECTURES`."""
    return Path(__file__).parent / "weights" / f"{name}.safetensors"


def load_weights(path: Path) -> PickerNetwork:
    """Read what `save_weights` wrote.

    Raises
    ------
    InputError
        If the file is missing, damaged, or its weights do not fit its architecture.
    """
    header, tensors = load_model(path, "picker-weights")
    try:
        network = PickerNetwork(Architecture.from_dict(header["architecture"]))
        network.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: header and weights do not fit together ({error}). Install the engine again.") \
            from error
    return network


def save_weights(path: Path, network: PickerNetwork, training: dict) -> None:
    """Write weights to start from: a network without diameter, calibration and threshold.

    Parameters
    ----------
    training : dict
        How they were made, for the header.
    """
    header = {"kind": "picker-weights", "architecture": network.architecture.as_dict(),
              "working_diameter": WORKING_DIAMETER, "training": training}
    save_model(path, header, network.state_dict())
