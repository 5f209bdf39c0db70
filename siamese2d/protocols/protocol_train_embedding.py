"""Training of the Siamese embedding."""

import enum
import math
import os

import pyworkflow.protocol.params as params

from siamese2d.constants import TRAIN
from siamese2d.convert import writeClassMembers, writeParticles
from siamese2d.objects import EmbeddingModel, modelExists
from siamese2d.protocols import costs
from siamese2d.protocols.protocol_base import EXPERT, isOpen, validateNotEmpty
from siamese2d.protocols.protocol_streaming_base import Siamese2DProtWaitingBase

MODES = ["self-supervised", "contrastive", "triplet"]
CONTRASTIVE, TRIPLET = MODES.index("contrastive"), MODES.index("triplet")
NETWORKS = ["steerable", "original", "resnet50", "resnet18"]
# Recipes, and what is similar in each; the first choice is none of them.
ALIGNED_CLASSES = "aligned-classes"
PRESETS = {ALIGNED_CLASSES: "triplet", "contrastive-original": "contrastive", "triplet-original": "triplet",
           "triplet-original-noise": "triplet", "milopyp": "self-supervised"}
# Those that start from a network trained on photographs.
ON_BACKBONES = ["contrastive-original", "triplet-original", "triplet-original-noise"]
NO_PRESET = "none"
PRESET_CHOICES = [NO_PRESET, *PRESETS]
_NUMBER = {name: number for number, name in enumerate(PRESET_CHOICES)}
IS_OWN = f"preset == {_NUMBER[NO_PRESET]}"
NEEDS_CLASSES = " or ".join([f"({IS_OWN} and mode == {TRIPLET})",
                             *(f"preset == {_NUMBER[name]}" for name, mode in PRESETS.items() if mode == "triplet")])
IS_CONTRASTIVE = f"{IS_OWN} and mode == {CONTRASTIVE}"
TAKES_BACKBONE = " or ".join([f"({IS_OWN} and network == {NETWORKS.index('resnet50')})",
                              *(f"preset == {_NUMBER[name]}" for name in ON_BACKBONES)])
PRESET_NETWORKS = {ALIGNED_CLASSES: "steerable", "contrastive-original": "original", "triplet-original": "resnet50",
                   "triplet-original-noise": "resnet50", "milopyp": "resnet18"}
# The engine's epochs of a round; where none are asked for, it trains on so many particles in all (450 steps of 128),
# and on each so often at least.
CONTRASTIVE_EPOCHS, USUAL_PARTICLES, USUAL_EPOCHS = 20, 57_600, 5
# In memory; and the number from which a part of the particles is advised.
BYTES_OF_PARTICLE, MOST_PARTICLES = 17_000, 200_000
# What the engine needs at least: of particles, and of members of a class that triplets are drawn from.
FEWEST_PARTICLES, FEWEST_MEMBERS = 20, 3
CITATIONS = {"self-supervised": ["Chen2020"], "contrastive": ["Hadsell2006"], "triplet": ["Schroff2015"]}
# Of recipes with other losses than those of their mode.
PRESET_CITATIONS = {ALIGNED_CLASSES: ["Khosla2020"], "milopyp": ["ChenHe2021", "Huang2024"]}


class TrainEmbeddingOutput(enum.Enum):
    outputEmbedding = EmbeddingModel


class Siamese2DProtTrainEmbedding(Siamese2DProtWaitingBase):
    """Trains a network that puts similar particle images close together."""

    _label = "train embedding"
    _possibleOutputs = TrainEmbeddingOutput
    STAGE = TRAIN
    SEVERAL_GPUS = True

    # --------------------------- DEFINE param functions --------------------------------
    def _defineParams(self, form):
        self._defineGpuParams(form)
        form.addSection(label="Input")
        # Scipion knows conditions on earlier questions only: these two decide which input is asked for.
        form.addParam("preset", params.EnumParam, choices=PRESET_CHOICES, default=0, label="Recipe",
                      help="*none* takes the settings below; choose it for new data.\n"
                           "*aligned-classes*: for aligned 2D classes; learns to place new particles near the classes "
                           "that they belong to, without aligning them.\n"
                           "The others set network, loss, optimizer and schedule as a published recipe does, for a "
                           "comparison.\n"
                           "*contrastive-original*: rounds of k-means and contrastive pairs, a small network.\n"
                           "*triplet-original*, *triplet-original-noise*: triplets of classes that you have on a "
                           "frozen ResNet-50; the second with added noise and the settings that were found best.\n"
                           "*milopyp*: SimSiam with a ResNet-18.\nWhen unsure take *none*.")
        form.addParam("mode", params.EnumParam, choices=MODES, default=0, condition=IS_OWN, label="What is similar",
                      help="*self-supervised*: two views of one particle (turned, shifted, mirrored, with other "
                           "noise); needs no classes and is the choice for new data.\n*contrastive*: rounds of "
                           "clustering, pairs of one cluster being similar; choose it when classes differ in shape "
                           "more than in orientation.\n*triplet*: members of classes that you have, such as a good "
                           "selection of 2D classes.\nWhen unsure take *self-supervised*.")
        form.addParam("inputParticles", params.PointerParam, pointerClass="SetOfParticles", allowsNull=True,
                      important=True, condition=f"not ({NEEDS_CLASSES})", label="Input particles",
                      help="Extracted particles, bright on dark. Some thousands are enough.")
        form.addParam("inputClasses", params.PointerParam, pointerClass="SetOfClasses2D", allowsNull=True,
                      important=True, condition=NEEDS_CLASSES, label="Input classes",
                      help="2D classes of any program, at least two. Select the good ones first.")
        form.addParam("maskDiameter", params.FloatParam, default=-1, label="Mask diameter (Å)",
                      help="Diameter of the soft circle around the centre that the network sees. -1 takes the whole "
                           "box. Give a value a little larger than the particle when its neighbours reach into the "
                           "box; the wand shows it. When unsure keep -1.")
        form.addParam("network", params.EnumParam, choices=NETWORKS, default=0, expertLevel=EXPERT, condition=IS_OWN,
                      label="Network",
                      help="*steerable*: the same for every rotation and mirror image of a particle.\n*original*: the "
                           "small convolutional network of the first Siamese recipe.\n*resnet50*: frozen, with a dense "
                           "head.\n*resnet18*: small residual network. All but the first are there to compare with.\n"
                           "When unsure keep *steerable*.")
        form.addParam("backbone", params.FileParam, allowsNull=True, expertLevel=EXPERT,
                      condition=TAKES_BACKBONE, label="Backbone weights",
                      help="File of a residual network trained on photographs (.pth as torchvision distributes it, or "
                           ".safetensors): ResNet-18 for contrastive-original, ResNet-50 for the triplet recipes. "
                           "Without it random weights, or features that ignore rotations, take its place, and the log "
                           "says so. When unsure leave it empty.")
        form.addParam("clusters", params.IntParam, default=10, expertLevel=EXPERT, condition=IS_CONTRASTIVE,
                      label="Clusters", help="Number of clusters of each round. Take about the number of classes that "
                                             "you will ask for; when unsure keep 10.")
        form.addParam("rounds", params.IntParam, default=3, expertLevel=EXPERT,
                      condition=IS_CONTRASTIVE, label="Rounds",
                      help="How often clustering and training alternate. More than a few seldom help. When unsure keep "
                           "3.")
        form.addParam("epochs", params.IntParam, default=-1, expertLevel=EXPERT, label="Epochs",
                      help="Passes over the particles (in each round). -1 chooses by the number of particles, or "
                           "takes the recipe's. Raise it when the curve of the viewer still falls at its end. When "
                           "unsure keep -1.")
        form.addParam("startModel", params.PointerParam, pointerClass="EmbeddingModel", allowsNull=True,
                      expertLevel=EXPERT, label="Start from embedding",
                      help="Continue from a network trained before, e.g. to refine a self-supervised one on classes. "
                           "When unsure go without.")
        self._defineWaitParam(form, "waitForParticles", "particles", 5000,
                              "Some thousands teach as much as all.", condition=f"not ({NEEDS_CLASSES})")
        self._defineSeedParam(form)
        self._defineParallel(form)

    # --------------------------- STEPS functions ---------------------------------------
    def _awaited(self):
        # Classes that still grow are not what they will be.
        return [(self._inputPointer().get(), math.inf if self.needsClasses() else self.waitForParticles.get())]

    def _convertInput(self):
        path, withCtf = self.getInputPath("particles.star"), not self.getParticles().isPhaseFlipped()
        if self.needsClasses():
            writeClassMembers(path, self.inputClasses.get(), withCtf, fewest=FEWEST_MEMBERS)
        else:
            writeParticles(path, self.inputParticles.get(), withCtf)

    def _createOutput(self):
        particles, report = self.getParticles(), self.getReport("training.json")
        embedding = EmbeddingModel(filename=self.getStagePath("embedding.safetensors"), boxSize=particles.getXDim(),
                                   pixelSize=particles.getSamplingRate(), mode=self.getMode(),
                                   summary=f"{report['particles']} particles, best of {len(report['epochs'])} epochs: "
                                           f"{report['best_epoch']}")
        self._defineOutputs(**{TrainEmbeddingOutput.outputEmbedding.name: embedding})
        self._defineSourceRelation(self._inputPointer(), embedding)

    # --------------------------- INFO functions ----------------------------------------
    def _validateInputs(self):
        label = "Input classes" if self.needsClasses() else "Input particles"
        items = self._inputPointer().get()
        if items is None:
            return [f"*{label}*: choose the set to train on."]
        errors = validateNotEmpty(label, items)
        if not errors and self.needsClasses() and items.getSize() < 2:
            errors.append("*Input classes*: one class gives no pair of different particles. Give two or more.")
        start = self.startModel.get()
        if start is not None and not modelExists(start):
            errors.append(f"*Start from embedding*: its file {start.getFileName()} is gone. Train it again.")
        if not errors and self.getPreset() == ALIGNED_CLASSES and not items.getFirstItem().hasAlignment2D():
            errors.append("*Input classes*: these are not aligned, which the recipe aligned-classes needs. Give the "
                          "classes of a 2D classification, or choose another recipe.")
        errors += self._validateBackbone()
        particles = self.getParticles()
        if not errors and not isOpen(items) and particles.getSize() < FEWEST_PARTICLES:
            errors.append(f"*{label}*: {particles.getSize()} particles are too few to train on (at least "
                          f"{FEWEST_PARTICLES}; hundreds to learn anything). Give more, or use an embedding trained "
                          "before.")
        return errors + validateMask(self.maskDiameter.get(), particles)

    def _validateBackbone(self):
        path = self._backboneFile()
        if not path or os.path.isfile(path):
            return []
        return [f"*Backbone weights*: there is no file {path}. Choose one, or leave the field empty."]

    def _warnings(self):
        lines = super()._warnings()
        return lines + warnOtherScale("Start from embedding", self.startModel.get(), self.getParticles())

    def _costWarnings(self):
        particles = self.getParticles()
        if particles is None:
            return []
        network, number = self._network(), particles.getSize()
        if network in costs.FROZEN:
            seconds = number * costs.FROZEN[network]
        elif self.epochs.get() > 0 or self.getMode() == MODES[CONTRASTIVE]:
            epochs = self.epochs.get() if self.epochs.get() > 0 else CONTRASTIVE_EPOCHS
            rounds = self.rounds.get() if self.getMode() == MODES[CONTRASTIVE] else 1
            seconds = number * epochs * rounds * costs.TRAIN[network]
        else:
            seconds = max(USUAL_EPOCHS * number, USUAL_PARTICLES) * costs.TRAIN[network]
        lines = costs.hours(self, seconds, "Some thousands of particles, and the network *steerable*, make it shorter.")
        return lines + ([f"{number:,} particles are more than training needs, and all are held in memory (about "
                         f"{number * BYTES_OF_PARTICLE / 1e9:.0f} GB). Some thousands teach as much: take a part."]
                        if number > MOST_PARTICLES else [])

    def _resultSummary(self):
        return [str(self.outputEmbedding)]

    def _methods(self):
        return [f"A Siamese embedding was trained ({self.getMode()}) [{', '.join(self._citations())}]."]

    def _citations(self):
        return PRESET_CITATIONS.get(self.getPreset(), CITATIONS[self.getMode()])

    # --------------------------- UTILS functions ---------------------------------------
    def getParticles(self):
        """The particles of the input, whichever it is; None before it is chosen."""
        items = self._inputPointer().get()
        return items.getImages() if items is not None and self.needsClasses() else items

    def getPreset(self):
        """Name of the recipe; None for none."""
        preset = self._choice("preset", PRESET_CHOICES)
        return None if preset == NO_PRESET else preset

    def getMode(self):
        """What is similar, by the form or by the recipe."""
        return PRESETS.get(self.getPreset()) or self._choice("mode", MODES)

    def _network(self):
        """Name of the network, by the form or by the recipe."""
        return PRESET_NETWORKS.get(self.getPreset()) or self._choice("network", NETWORKS)

    def needsClasses(self):
        """Whether the input are 2D classes."""
        return self.getMode() == MODES[TRIPLET]

    def _inputPointer(self):
        return self.inputClasses if self.needsClasses() else self.inputParticles

    def _backboneFile(self):
        """The file of weights, empty where there is none or nothing would use it."""
        return (self.backbone.get() or "") if self.evalParamCondition("backbone") else ""

    def _engineArguments(self):
        arguments = ["--particles", self.getInputPath("particles.star"), "--plot"]
        if self.getPreset():
            arguments += ["--preset", self.getPreset()]
        else:
            arguments += ["--mode", self._choice("mode", MODES), "--network", self._choice("network", NETWORKS)]
        if self._backboneFile():
            arguments += ["--backbone", self._backboneFile()]
        if self.maskDiameter.get() > 0:
            arguments += ["--mask-diameter", self.maskDiameter.get()]
        if self.evalParamCondition("clusters"):
            arguments += ["--classes", self.clusters.get(), "--rounds", self.rounds.get()]
        if self.epochs.get() > 0:
            arguments += ["--epochs", self.epochs.get()]
        if self.startModel.get() is not None:
            arguments += ["--model", self.startModel.get().getFileName()]
        return arguments


def validateMask(diameter, particles):
    """Errors for a mask diameter (angstroms, or -1) that is larger than the images."""
    width = particles.getXDim() * particles.getSamplingRate()
    if diameter <= width:
        return []
    return [f"*Mask diameter*: {diameter:.0f} Å is larger than the particle images ({width:.0f} Å). Give a "
            "smaller one, or -1."]


def warnOtherScale(label, embedding, particles):
    """A line when an embedding was trained on images of another size or pixel size: they will be scaled for it."""
    if embedding is None or particles is None:
        return []
    trained = (embedding.getBoxSize(), embedding.getPixelSize())
    present = (particles.getXDim(), particles.getSamplingRate())
    if trained[0] == present[0] and abs(trained[1] / present[1] - 1) < 1e-3:
        return []
    return [f"*{label}*: it was trained on images of {trained[0]} px of {trained[1]:.3f} Å, the particles have "
            f"{present[0]} px of {present[1]:.3f} Å. They are cut and scaled to match, as far as they can be."]
