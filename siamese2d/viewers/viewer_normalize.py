"""Viewer of the normalization."""

from pyworkflow.protocol.params import StringParam

from siamese2d.protocols import Siamese2DProtNormalize
from siamese2d.viewers.browser import Browser
from siamese2d.viewers.plots.normalization import plot_gains, plot_normalization
from siamese2d.viewers.run_files import RunFileError, image_or_reason
from siamese2d.viewers.viewer_base import StageViewer, figure_of, position_of, stem


class Siamese2DNormalizeViewer(StageViewer):
    """Micrographs before and after normalization, the fitted Gaussians, and the gains."""

    _label = "results of normalize micrographs"
    _targets = [Siamese2DProtNormalize]
    PLOTS = {
        "showMicrographs": (
            "Before and after",
            "One micrograph at a time, with the histogram and the Gaussians that were fitted to it. Turn pages "
            "with the buttons or the arrow keys."),
        "showGains": (
            "Gain of each micrograph",
            "Micrographs whose gain or whose share of bright pixels stands out are worth a look: empty holes, "
            "carbon, thick ice."),
    }

    def _defineChoices(self, form):
        form.addParam("micrograph", StringParam, default="1", label="Start at micrograph",
                      help="Its number, or a part of its name. The others are reached from the window.")

    def _records(self):
        records = self.folder.read_records("normalization.json", "micrographs")
        if not records:
            raise RunFileError("This run normalized no micrograph.")
        return records

    def _showGains(self):
        records = self._records()
        return self.plot("gains", lambda figure: plot_gains(records, figure))

    def _showMicrographs(self):
        records = self._records()
        start = position_of(self.micrograph.get(), [record["name"] for record in records])
        originals = {stem(path): path for path in self.input_micrographs()}
        downsampled = self.folder.read_json("normalization.json").get("downsample", 1) != 1

        def draw(page, figure):
            name = records[page]["name"]
            before = image_or_reason(originals.get(name, name))
            after = image_or_reason(self.folder.file("micrographs", f"{name}.mrc"))
            plot_normalization(records[page], before, after, downsampled, figure)

        plotter = self.window("before and after")
        Browser(figure_of(plotter), len(records), draw, start, noun="micrograph")
        return plotter
