"""What can be chosen about training a picker."""

from dataclasses import dataclass, replace

from siamese2d_engine.picking.splitting import FEWEST_LABELS

# Epochs and highest learning rate: from random weights; from weights that know particles already; from such weights
# with so few labels that more would lead away from what is known.
FROM_SCRATCH = (10, 2e-3)
FROM_WEIGHTS = (8, 1e-3)
FEW_LABELS = (5, 5e-4)


@dataclass(frozen=True)
class Settings:
    """How a picker is trained.

    Attributes
    ----------
    diameter : float or None
        Particle diameter, angstroms; None to estimate it from the labels.
    smallest : float or None
        Diameter of the smallest particles, where they have several sizes and `diameter` is that of the largest.
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
    from_scratch : bool
        Start from random weights, not from those that come with the engine.
    epochs : int or None
        Most epochs; None for the starting point's default.
    steps : int
        Of an epoch.
    warm_up : float
        Share of the epochs at the start in which unlabeled pixels are simply taken for background.
    windows, crops, crop_outputs : int
        Of each step: windows around labels, crops of unlabeled micrographs, and scores across such a crop.
    sample : int
        Unlabeled pixels N of one count in the binomial penalty.
    learning_rate : float or None
        Highest rate of Adam; None for the starting point's default.
    weight_decay : float
    patience : int
        Epochs without progress on held-out labels after which training stops.
    held_out : float
        Share of the labels kept for choosing the epoch and the threshold.
    seed : int
    """

    diameter: float | None = None
    smallest: float | None = None
    expected: float | None = None
    objective: str = "pn"
    weight: float | None = None
    autoencoder: float = 0.0
    network: str = "medium"
    from_scratch: bool = False
    epochs: int | None = None
    steps: int = 25
    warm_up: float = 0.7
    windows: int = 16
    crops: int = 3
    crop_outputs: int = 64
    sample: int = 1024
    learning_rate: float | None = None
    weight_decay: float = 1e-4
    patience: int = 6
    held_out: float = 0.2
    seed: int = 0

    def filled(self, from_scratch: bool, labels: int, diameter: float) -> "Settings":
        """With the defaults of the starting point, and the diameter, where they were left open."""
        few = labels < FEWEST_LABELS
        epochs, learning_rate = FROM_SCRATCH if from_scratch else FEW_LABELS if few else FROM_WEIGHTS
        return replace(self, diameter=diameter, epochs=epochs if self.epochs is None else self.epochs,
                       learning_rate=learning_rate if self.learning_rate is None else self.learning_rate)
