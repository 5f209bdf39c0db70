"""Names shared by the modules of the Scipion side."""

VERSION = "0.1.0"

# Variables that a site sets in scipion.conf or in the environment.
ENV_ACTIVATION = "SIAMESE2D_ENV_ACTIVATION"
TORCH_BUILD = "SIAMESE2D_TORCH"
PIP_ARGS = "SIAMESE2D_PIP_ARGS"
PYTHON = "SIAMESE2D_PYTHON"
# Not for sites: passes the environment's answer on to the processes of protocols.
HANDSHAKE = "SIAMESE2D_HANDSHAKE"

TORCH_CPU = "cpu"
TORCH_CUDA = "cuda"

# Packages that `scipion3 installb` builds. A package is installed when its marker file is there, nothing else.
CONDA_PACKAGE = "siamese2d"
VENV_PACKAGE = "siamese2d_venv"
CONDA_ENV_NAME = f"siamese2d-{VERSION}"
CONDA_PYTHON = "3.12"
VENV_FOLDER = "env"
INSTALLED_MARKER = f"siamese2d-{VERSION}.installed"

ENGINE_PROGRAM = "siamese2d-engine"
# The same in several processes, one for each GPU; a port of its own keeps runs on one machine apart.
ENGINE_LAUNCHER = "torchrun --standalone --nproc_per_node {processes} -m siamese2d_engine"

# Sub-commands of the engine; each writes into extra/<stage>/ of its protocol.
NORMALIZE = "normalize"
TRAIN_PICKER = "train-picker"
PICK = "pick"
PICK_UNLABELED = "pick-unlabeled"
EXTRACT = "extract"
TRAIN = "train"
CLASSIFY = "classify"
ASSIGN = "assign"
EXPORT = "export"

# Extra attributes of the output items.
ATTR_SCORE = "_siamese2dScore"            # Coordinate: the picker's score
ATTR_CONFIDENCE = "_siamese2dConfidence"  # Particle in a class: probability of that class, 0 to 1
ATTR_FIT = "_siamese2dFit"                # Particle: how it matches its class, standard deviations of the noise
ATTR_REASON = "_siamese2dReason"          # Particle in no class: why
ATTR_CLASS_SIZE = "_siamese2dClassSize"   # Class2D and average: number of members
ATTR_RESOLUTION = "_siamese2dResolution"  # Class2D and average: angstroms, FRC of halves
ATTR_QUALITY = "_siamese2dQuality"        # Class2D and average: quality score

# Column that carries the objId of a Scipion item through the engine.
ITEM_ID = "siamese2dItemId"
