"""What can be chosen about training a picker."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How a picker is trained.

    Attributes
    ----------
    diameter : float or None
        Particle diameter, angstroms; None to estimate it from the labels.
    expected : float or None
        Particles per micrograph; None to estimate.
    objective : str
        A key of `objectives.OBJECTIVES`. Positive-negative risk is the default: particles cover about one percent of
        the unlabeled pixels, and taking them for background costs less than the other objectives' errors about
        contamination.
    weight : float or None
        Weight of the penalty in the generalized-expectation objectives; None for the objective's default.
    autoencoder : float
        Weight gamma of the reconstruction of the windows; 0 for none.
    network : str
        A key of `network.ARCHITECTURES`; not used when training goes on from a model.
    epochs, steps : int
        Most epochs, and steps of each.
    warm_up : float
        Share of the epochs at the start in which unlabeled pixels are simply taken for background.
    windows, crops, crop_outputs : int
        Of each step: windows around labels, crops of unlabeled micrographs, and scores across such a crop.
    sample : int
        Unlabeled pixels N of one count in the binomial penalty.
    learning_rate : float
        Highest rate of Adam.
    weight_decay : float
    patience : int
        Epochs without progress on held-out labels after which training stops.
    held_out : float
        Share of the labels kept for choosing the epoch and the threshold.
    seed : int
    """

    diameter: float | None = None
    expected: float | None = None
    objective: str = "pn"
    weight: float | None = None
    autoencoder: float = 0.0
    network: str = "medium"
    epochs: int = 10
    steps: int = 25
    warm_up: float = 0.7
    windows: int = 16
    crops: int = 3
    crop_outputs: int = 64
    sample: int = 1024
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    patience: int = 6
    held_out: float = 0.2
    seed: int = 0
