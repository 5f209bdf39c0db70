"""Recipes as default values of the settings; what is given explicitly wins.

``aligned-classes``
    Our own: what an aligned classification found, learnt by a network that needs no alignment.
``contrastive-original``
    Rounds of k-means and contrastive training of a small network that starts anew in each; the first clusters come
    from features of a ResNet-18.
``triplet-original``, ``triplet-original-noise``
    A frozen ResNet-50 with a dense head, trained with triplets of given classes; the settings that were tried first,
    and those that were found best.
``milopyp``
    SimSiam on whole images (Huang, Zhou & Bartesaghi 2024, Nature Methods; Chen & He 2021, CVPR).

What the recipes of others leave open follows this version's own defaults: phases are flipped, images are masked, and
the weights of the epoch with the lowest held-out loss are kept.
"""

from __future__ import annotations

from siamese2d_engine.embedding.settings import LOSSES, Architecture, Settings, default_epochs

_TRIPLET = {
    "mode": "triplet", "loss": "triplet", "comparisons": "drawn", "network": "resnet50", "working_box": 128,
    "centre": False, "optimizer": "adam", "schedule": "constant", "batch_size": 8, "epochs": 100, "patience": 5,
    "plot": True,
}
PRESETS = {
    "aligned-classes": {
        "mode": "triplet", "loss": "supervised-contrastive", "network": "steerable", "filters": "averages",
        "batch_size": 256,
    },
    "contrastive-original": {
        "mode": "contrastive", "loss": "contrastive", "comparisons": "drawn", "margin": 2.0, "network": "original",
        "dimensions": 20, "working_box": 64, "centre": False, "views": "plain", "first_labels": "resnet18",
        "classes": 4, "rounds": 5, "epochs": 20, "patience": 20, "batch_size": 128, "optimizer": "adam",
        "schedule": "constant", "learning_rate": 5e-4, "plot": True,
    },
    "triplet-original": {
        **_TRIPLET, "views": "plain", "margin": 0.5, "hidden": (512, 256), "dimensions": 256, "learning_rate": 1e-4,
    },
    "triplet-original-noise": {
        **_TRIPLET, "views": "noisy", "margin": 0.75, "hidden": (256, 128), "dimensions": 128, "learning_rate": 1e-5,
    },
    "milopyp": {
        "mode": "self-supervised", "loss": "simsiam", "network": "resnet18", "dimensions": 128, "working_box": 32,
        "centre": False, "views": "patches", "batch_size": 256, "optimizer": "sgd", "schedule": "constant",
        "learning_rate": 1e-3, "plot": True,
    },
}
# What suits each mode and network, where neither the user nor a preset says.
_RATES = {"self-supervised": 1e-2, "contrastive": 5e-3, "triplet": 5e-3}
_RATE_OF_NETWORK = {"original": 5e-4, "resnet50": 1e-4, "resnet18": 1e-3}
_DIMENSIONS = {"original": 20, "resnet50": 256, "resnet18": 128}
_MARGINS = {"self-supervised": 0.0, "contrastive": 2.0, "triplet": 0.5}
_CONTRASTIVE_EPOCHS = 20
_TEMPERATURES = {"nt-xent": 0.2, "supervised-contrastive": 0.1}


def resolve(preset: str | None, given: dict, particles: int, seed: int) -> tuple[Settings, Architecture]:
    """Settings of a training.

    Parameters
    ----------
    preset
        One of `PRESETS`, or None.
    given
        Values by the names of the fields of `Settings` and `Architecture`; None counts as not given.
    particles
        Number of them: small sets get more epochs.
    seed
        Of the training.
    """
    chosen = {**PRESETS.get(preset or "", {}), **{name: value for name, value in given.items() if value is not None}}
    mode = chosen.setdefault("mode", Settings.mode)
    network = chosen.setdefault("network", Architecture.network)
    # A preset's loss belongs to its mode: another mode has its own.
    if chosen.get("loss") not in LOSSES[mode] and "loss" not in _explicit(given):
        chosen["loss"] = LOSSES[mode][0]
    batch_size = chosen.setdefault("batch_size", Settings.batch_size)
    if chosen.get("epochs") is None:
        chosen["epochs"] = _CONTRASTIVE_EPOCHS if mode == "contrastive" else default_epochs(particles, batch_size)
    chosen.setdefault("learning_rate", _RATE_OF_NETWORK.get(network, _RATES[mode]))
    chosen.setdefault("margin", _MARGINS[mode])
    chosen.setdefault("temperature", _TEMPERATURES.get(chosen["loss"], Settings.temperature))
    chosen.setdefault("dimensions", _DIMENSIONS.get(network, Architecture.dimensions))
    if network != "resnet50":
        chosen.pop("hidden", None)
    if network != "steerable" or mode != "triplet":
        chosen.pop("filters", None)
    of_network = {name: chosen.pop(name) for name in list(chosen) if name in Architecture.__dataclass_fields__}
    return Settings(**chosen, seed=seed), Architecture(**of_network)


def _explicit(given: dict) -> set[str]:
    return {name for name, value in given.items() if value is not None}
