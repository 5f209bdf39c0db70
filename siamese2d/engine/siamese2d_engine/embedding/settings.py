"""What determines a training beside the particles."""

from dataclasses import dataclass

MODES = ("self-supervised", "contrastive", "triplet")
# Losses of each mode, its default first.
LOSSES = {
    "self-supervised": ("nt-xent", "simsiam"),
    "contrastive": ("contrastive",),
    "triplet": ("triplet", "supervised-contrastive"),
}
FIRST_LABELS = ("invariant", "pca", "resnet18")
COMPARISONS = ("batch", "drawn")
FILTERS = ("random", "averages")
OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("cosine", "constant")
# Steps that a training makes when the number of epochs is not given: small sets need more epochs than large ones.
DEFAULT_STEPS = 450


@dataclass(frozen=True)
class Settings:
    """Parameters of a training.

    Attributes
    ----------
    mode : str
        One of `MODES`.
    loss : str
        One of the `LOSSES` of the mode.
    comparisons : str
        Of contrastive and triplet mode: ``batch`` compares the particles of a step with one another; ``drawn`` embeds
        two or three for every pair or triplet, as the original recipes do.
    epochs, batch_size : int
        Of each round; particles (pairs, triplets where they are drawn) of a step.
    optimizer, schedule : str
        ``adam`` or ``sgd`` (momentum 0.9); the rate rises and falls (``cosine``) or is ``constant``.
    learning_rate : float
        Highest of the schedule.
    margin : float
        Of the contrastive or the triplet loss.
    temperature : float
        Of the losses nt-xent and supervised-contrastive.
    views : str
        What is trained on, one of `recipe_views.VIEWS`.
    shift : float
        Largest random shift of a view along each axis, as a fraction of the box.
    classes, rounds, first_labels : int, int, str
        Of the contrastive mode: k of k-means; rounds; features for the labels of the first round.
    patience : int
        Stop after so many epochs without a lower validation loss.
    memory : float
        Gigabytes (10^9 bytes) for the particles that are trained on; a random part of a larger set is.
    plot : bool
        Place the particles in a plane for a plot (principal components, then t-SNE).
    seed : int
        Of everything random.
    """

    mode: str = "self-supervised"
    loss: str = "nt-xent"
    comparisons: str = "batch"
    epochs: int = 20
    batch_size: int = 128
    optimizer: str = "adam"
    schedule: str = "cosine"
    learning_rate: float = 1e-2
    margin: float = 2.0
    temperature: float = 0.2
    views: str = "halves"
    shift: float = 0.01
    classes: int = 10
    rounds: int = 3
    first_labels: str = "invariant"
    patience: int = 5
    memory: float = 4.0
    plot: bool = False
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
    hidden : tuple of int or None
        Widths of the dense layers of the network resnet50 before its last; None for those of the network.
    filters : str
        What the filters of the network steerable start from: ``random``, or the ``averages`` of the given classes,
        which then centre the particles, too.
    working_box : int
        Pixels that the network sees.
    phase_flip : bool
        Correct the CTF's sign.
    centre : bool
        Move particles to the centre that is found without knowing their orientation.
    mask_diameter : float or None
        Angstroms.
    """

    network: str = "steerable"
    dimensions: int = 32
    hidden: tuple[int, ...] | None = None
    filters: str = "random"
    working_box: int = 32
    phase_flip: bool = True
    centre: bool = True
    mask_diameter: float | None = None


def default_epochs(particles: int, batch_size: int) -> int:
    """Epochs that make about `DEFAULT_STEPS` steps, at least 5."""
    return max(5, round(DEFAULT_STEPS / max(1.0, particles / batch_size)))
