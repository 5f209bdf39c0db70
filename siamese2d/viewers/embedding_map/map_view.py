"""Opens the map of an embedding, and launches what it asks for in the project."""

import os

from pyworkflow.gui.dialog import askString
from pyworkflow.viewer import View

from siamese2d.gallery.particle_list import free_name, write_particle_list
from siamese2d.protocols import Siamese2DProtSelectParticles
from siamese2d.viewers.embedding_map.map_model import MapModel
from siamese2d.viewers.embedding_map.map_window import MapWindow
from siamese2d.viewers.project_runs import launch

FOLDER = "Selections"


class MapView(View):
    """The map of one training run.

    Parameters
    ----------
    viewer : pyworkflow.protocol.viewer
        Knows the project, the run and the window that it was opened from.
    model : MapModel
    color : str
        What colours the dots to begin with, by its name in `COLORS`.
    """

    def __init__(self, viewer, model: MapModel, color: str):
        self._viewer, self.model, self._color = viewer, model, color
        self.window: MapWindow | None = None

    def show(self):
        """Open the window."""
        self.window = MapWindow(self._viewer.getTkRoot(), f"Embedding map: {self._viewer.protocol.getRunName()}",
                                self.model, self._keep, self._color)

    def _keep(self, model, layout, parent):
        label = askString("Keep selected", "Name of the new run:", parent, entryWidth=46,
                          defaultValue=f"select {len(model.selection)} of {len(model.particles)} particles")
        if not label:
            return ""
        viewer = self._viewer
        launch_particles(viewer.getProject(), viewer.formWindow, viewer.protocol, model, layout, label)
        return f"'{label}' was started: it is in the project's tree, and has its output when it has finished."


def launch_particles(project, window, training, model: MapModel, layout: str, label: str):
    """Write the list of the selected particles into the project's folder, and start the protocol that keeps them.

    Parameters
    ----------
    project : pyworkflow.project.Project
    window : pyworkflow.gui.Window or None
        Window from which the map was opened.
    training : Siamese2DProtTrainEmbedding
        Run whose particles these are.
    model : MapModel
    layout : str
        Axes of the map, for the record.
    label : str
        Name of the run.

    Returns
    -------
    Siamese2DProtSelectParticles
    """
    name = os.path.basename(training.getWorkingDir())
    path = free_name(FOLDER, name)
    write_particle_list(path, model.ids, [
        f"{len(model.selection):,} of {len(model.particles):,} particles, chosen on the embedding map ({layout}) of "
        f"{training.getRunName()} ({name})"])
    return launch(project, window, Siamese2DProtSelectParticles, label, {"inputParticles": training.getParticles()},
                  {"listFile": path})
