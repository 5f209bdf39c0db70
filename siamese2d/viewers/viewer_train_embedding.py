"""Viewer of the training of an embedding."""

from pyworkflow.protocol.params import EnumParam

from siamese2d.protocols import Siamese2DProtTrainEmbedding
from siamese2d.viewers.plots.embedding import plot_cluster_count, plot_embedding_map, plot_embedding_training
from siamese2d.viewers.run_files import RunFileError, read_table
from siamese2d.viewers.viewer_base import StageViewer

NOTHING, DEFOCUS, CLASS = range(3)
# Column of the input, what to call it, and what to multiply it by.
COLUMNS = {DEFOCUS: ("rlnDefocusU", "defocus (µm)", 1e-4), CLASS: ("rlnClassNumber", "class", 1)}


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
        form.addParam("colorBy", EnumParam, choices=["nothing", "defocus", "class in the input"], default=NOTHING,
                      label="Colour of the map", help="What colours the dots.")

    def _showTraining(self):
        training = self.folder.read_json("training.json")
        return self.plot("training", lambda figure: plot_embedding_training(
            training.get("epochs", []), training.get("best_epoch"), figure))

    def _showClusterCount(self):
        rows = self.folder.read_json("training.json").get("elbow") or []
        return self.plot("number of clusters", lambda figure: plot_cluster_count(rows, figure))

    def _showMap(self):
        embeddings = self.folder.read_array("embeddings.npy")
        values, name = self._colors(len(embeddings))
        return self.plot("map", lambda figure: plot_embedding_map(embeddings, values, name, figure))

    def _colors(self, count):
        choice = self.colorBy.get()
        if choice == NOTHING:
            return None, ""
        path = self.protocol.getInputPath("particles.star")
        table = read_table(path, "particles")
        name, label, scale = COLUMNS[choice]
        if name not in table:
            raise RunFileError(f"The input particles have no {label.split(' ')[0]} to colour the map with.")
        if len(table[name]) != count:
            raise RunFileError(f"{path} has {len(table[name]):,} particles, but there are {count:,} embeddings. Run "
                               "the protocol again.")
        return table[name] * scale, label
