"""What determines a training beside the particles."""

from dataclasses import dataclass

MODES = ("self-supervised", "contrastive", "triplet")
FIRST_LABELS = ("invariant", "pca")
# Steps that a training makes when the number of epochs is not given: small sets need more epochs than large ones.
DEFAULT_STEPS = 450


@dataclass(frozen=True)
class Settings:
    """Parameters of a training.

    Attributes
    ----------
    mode : str
        One of `MODES`.
    epochs, batch_size : int
        Of each round; particles of a step.
    learning_rate : float
        Highest of the schedule.
    margin : float
        Of the contrastive or the triplet loss.
    temperature : float
        Of the self-supervised loss.
    shift : float
        Largest random shift of a view along each axis, as a fraction of the box.
    random_views : bool
        Train contrastive and triplet modes on random views instead of the images themselves.
    classes, rounds, first_labels : int, int, str
        Of the contrastive mode: k of k-means; rounds; features for the labels of the first round.
    patience : int
        Stop after so many epochs without a lower validation loss.
    seed : int
        Of everything random.
    """

    mode: str = "self-supervised"
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 1e-2
    margin: float = 2.0
    temperature: float = 0.2
    shift: float = 0.01
    random_views: bool = True
    classes: int = 10
    rounds: int = 3
    first_labels: str = "invariant"
    patience: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Architecture:
    """The network to train, and what it sees.

    Attributes
    ----------
    network : str
        Name in `NETWORKS`.
    dimensions : int
        Of the vectors.
    working_box : int
        Pixels that the network sees.
    phase_flip : bool
        Correct the CTF's sign.
    mask_diameter : float or None
        Angstroms.
    """

    network: str = "steerable"
    dimensions: int = 32
    working_box: int = 32
    phase_flip: bool = True
    mask_diameter: float | None = None


def default_epochs(particles: int, batch_size: int) -> int:
    """Epochs that make about `DEFAULT_STEPS` steps, at least 5."""
    return max(5, round(DEFAULT_STEPS / max(1.0, particles / batch_size)))
