"""Viewer of the training of an embedding."""

import os

import numpy as np
from pyworkflow.protocol.params import EnumParam

from siamese2d.protocols import Siamese2DProtClassify, Siamese2DProtTrainEmbedding
from siamese2d.viewers.class_files import PARTICLES, read_particle_classes
from siamese2d.viewers.embedding_colors import COLORS
from siamese2d.viewers.embedding_map.map_model import MapModel
from siamese2d.viewers.embedding_map.map_view import MapView
from siamese2d.viewers.embedding_map.particles import CLASS
from siamese2d.viewers.plots.cosines import plot_cosines
from siamese2d.viewers.plots.embedding import plot_cluster_count, plot_embedding_training
from siamese2d.viewers.run_files import RunFolder
from siamese2d.viewers.viewer_base import StageViewer


class Siamese2DTrainEmbeddingViewer(StageViewer):
    """Training curves, number of clusters, how far classes are apart, and a map of the embedding."""

    _label = "results of train embedding"
    _targets = [Siamese2DProtTrainEmbedding]
    PLOTS = {
        "showTraining": (
            "Training curves",
            "The loss falls and levels off. A validation loss that rises again means that the network learns "
            "single particles by heart; the best epoch is the one that is kept, and training stops when none after it "
            "was better."),
        "showClusterCount": (
            "Number of clusters",
            "How well the embedding falls into k groups: look for the bend of the elbow and for a peak of the "
            "silhouette."),
        "showCosines": (
            "Similarity of classes",
            "Mean cosine between the members of each two classes. Training worked when the diagonal stands out: "
            "members of one class are more alike than members of two."),
        "showMap": (
            "Map of the embedding",
            "Each dot is a particle; similar images lie close together. Islands are views or species that the "
            "network tells apart. An order by defocus would mean that it learnt defocus instead of shape. Draw around "
            "a region to see its average and its particles, and to keep them as a subset."),
    }

    def _defineChoices(self, form):
        form.addParam("colorBy", EnumParam, choices=list(COLORS), default=0, label="Colour of the map",
                      help="What colours the dots. *class* and *confidence of the class* are those of the last "
                           "*classify 2D* that used this embedding, else of the last that classified these particles; "
                           "those that it does not have are grey.")

    def _showTraining(self):
        training = self.folder.read_json("training.json")
        return self.plot("training", lambda figure: plot_embedding_training(
            training.get("epochs", []), training.get("best_epoch"), figure))

    def _showClusterCount(self):
        rows = self.folder.read_json("training.json").get("elbow") or []
        classification = self._classification()
        classes = read_particle_classes(classification)[CLASS] if classification else np.empty(0)
        chosen = len(np.unique(classes[classes >= 1])) or None
        return self.plot("number of clusters", lambda figure: plot_cluster_count(rows, chosen, figure))

    def _showCosines(self):
        cosine = self.folder.read_json("training.json").get("cosine") or {}
        return self.plot("similarity of classes", lambda figure: plot_cosines(
            cosine.get("matrix") or [], cosine.get("classes") or [], cosine.get("diagonal_dominance"), figure))

    def _showMap(self):
        model = MapModel(self.folder, RunFolder(self.protocol.getInputPath()), self._classification())
        return MapView(self, model, list(COLORS)[self.colorBy.get()])

    def _classification(self):
        """Folder of the last classification that used this embedding, else of one of the same particles, else None."""
        runs = [run for run in self.getProject().getRuns(refresh=False)
                if isinstance(run, Siamese2DProtClassify) and os.path.exists(_folder(run).file(PARTICLES))]
        embedding = [run for run in runs if run.inputEmbedding.get() is not None
                     and run.inputEmbedding.get().getObjParentId() == self.protocol.getObjId()]
        particles = self.protocol.getParticles()
        same = [run for run in runs if particles is not None and run.inputParticles.get() is not None
                and run.inputParticles.get().getFileName() == particles.getFileName()]
        found = embedding or same
        return _folder(found[-1]) if found else None


def _folder(run) -> RunFolder:
    return RunFolder(run.getStagePath())
