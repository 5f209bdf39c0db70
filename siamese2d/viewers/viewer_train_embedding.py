"""Viewer of the training of an embedding."""

import os

from pyworkflow.protocol.params import EnumParam

from siamese2d.protocols import Siamese2DProtClassify, Siamese2DProtTrainEmbedding
from siamese2d.viewers.class_files import PARTICLES
from siamese2d.viewers.embedding_colors import category_colors, classified_colors, column_colors, micrograph_colors
from siamese2d.viewers.plots.embedding import plot_cluster_count, plot_embedding_map, plot_embedding_training
from siamese2d.viewers.run_files import RunFileError, RunFolder, read_table
from siamese2d.viewers.viewer_base import StageViewer

# What can colour the map, in the order of the form.
COLORS = {
    "nothing": None,
    "defocus": column_colors("rlnDefocusU", "defocus (µm)", 1e-4),
    "class in the input": category_colors("rlnClassNumber", "class"),
    "class": classified_colors("rlnClassNumber", "class", True),
    "confidence of the class": classified_colors("rlnMaxValueProbDistribution", "confidence", False),
    "micrograph": micrograph_colors,
}
# Number of the first choice of axes; the other is t-SNE.
COMPONENTS = 0


class Siamese2DTrainEmbeddingViewer(StageViewer):
    """Training curves, number of clusters, and a map of the embedding."""

    _label = "results of train embedding"
    _targets = [Siamese2DProtTrainEmbedding]
    PLOTS = {
        "showTraining": (
            "Training curves",
            "The loss falls and levels off. A validation loss that rises again means that the network learns "
            "single particles by heart; the best epoch is the one that is kept."),
        "showClusterCount": (
            "Number of clusters",
            "How well the embedding falls into k groups: look for the bend of the elbow and for a peak of the "
            "silhouette."),
        "showMap": (
            "Map of the embedding",
            "Each dot is a particle; similar images lie close together. Islands are views or species that the "
            "network tells apart. An order by defocus would mean that it learnt defocus instead of shape."),
    }

    def _defineChoices(self, form):
        form.addParam("colorBy", EnumParam, choices=list(COLORS), default=0, label="Colour of the map",
                      help="What colours the dots. *class* and *confidence of the class* are those of the last "
                           "classification that used this embedding; particles that it does not have are grey.")
        form.addParam("layout", EnumParam, choices=["principal components", "t-SNE"], default=COMPONENTS,
                      label="Axes of the map",
                      help="Principal components keep distances; t-SNE keeps neighbours and draws groups apart, but "
                           "the distances between them mean little.")

    def _showTraining(self):
        training = self.folder.read_json("training.json")
        return self.plot("training", lambda figure: plot_embedding_training(
            training.get("epochs", []), training.get("best_epoch"), figure))

    def _showClusterCount(self):
        rows = self.folder.read_json("training.json").get("elbow") or []
        return self.plot("number of clusters", lambda figure: plot_cluster_count(rows, figure))

    def _showMap(self):
        embeddings = self.folder.read_array("embeddings.npy")
        colors, layout = self._colors(len(embeddings)), self._layout()
        return self.plot("map", lambda figure: plot_embedding_map(
            embeddings, *((None, "", None) if colors is None else (colors.values, colors.label, colors.names)),
            layout, figure))

    def _layout(self):
        if self.layout.get() == COMPONENTS:
            return None
        found = self.folder.read_json("training.json").get("map")
        if not found:
            raise RunFileError("This run made no t-SNE map. Choose the principal components as axes.")
        return found

    def _colors(self, count):
        color = list(COLORS.values())[self.colorBy.get()]
        if color is None:
            return None
        path = self.protocol.getInputPath("particles.star")
        found = color(read_table(path, "particles"), self._classification())
        if len(found.values) != count:
            raise RunFileError(f"{path} has {len(found.values):,} particles, but there are {count:,} embeddings. Run "
                               "the protocol again.")
        return found

    def _classification(self):
        """Folder of the last classification in the project that used this embedding, None where there is none."""
        folders = [RunFolder(run.getStagePath()) for run in self.getProject().getRuns(refresh=False)
                   if isinstance(run, Siamese2DProtClassify) and run.inputEmbedding.get() is not None
                   and run.inputEmbedding.get().getObjParentId() == self.protocol.getObjId()]
        finished = [folder for folder in folders if os.path.exists(folder.file(PARTICLES))]
        return finished[-1] if finished else None
