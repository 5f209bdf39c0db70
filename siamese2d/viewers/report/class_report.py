"""Gathers what a report tells about a set of classes: averages, curves, parameters, versions and citations."""

import datetime
import io
import os
import re
import time

import pwem
import pyworkflow
from matplotlib.figure import Figure
from PIL import Image
from pyworkflow.protocol.params import EnumParam, PointerParam

from siamese2d.constants import VERSION
from siamese2d.gallery.model import GalleryModel
from siamese2d.viewers.gallery.pictures import Look, read_picture, render
from siamese2d.viewers.plots.frc import plot_frc
from siamese2d.viewers.report.html_report import Report, ReportClass, render_report
from siamese2d.viewers.run_files import RunFileError, RunFolder

SIDE = 128
DPI = 110
# Scipion's own parameters, which say nothing about the result.
LEFT_OUT = ("runName", "runMode", "useGpu", "gpuList", "hostName", "_useQueue")
LINK = re.compile(r"\[\[(?P<address>[^\]]*)\]\[(?P<text>[^\]]*)\]\]")


def report_picture(model: GalleryModel, number: int) -> bytes | str:
    """PNG of the average of a class, or why there is none."""
    try:
        grey = render(read_picture(model.picture(number)), Look(SIDE), model.classes.pixel_size)
    except RunFileError as problem:
        return str(problem)
    return png_of(Image.fromarray(grey))


def build_report(model: GalleryModel, pictures: dict[int, bytes | str], protocol, title: str) -> Report:
    """All that the report tells.

    Parameters
    ----------
    model : GalleryModel
        The classes; the report has them in the model's order.
    pictures : dict of int to (bytes or str)
        From :func:`report_picture`.
    protocol : pyworkflow.protocol.Protocol or None
        That made the classes.
    title : str
    """
    made = datetime.datetime.now().strftime("%Y-%m-%d %H:%M")
    report = Report(title, [model.heading(), f"Sorted by {model.order_name}. Written on {made}."], model.notices(),
                    [ReportClass(int(number), pictures[int(number)], model.caption(int(number)))
                     for number in model.order])
    if protocol is None:
        return report
    report.plots = _curves(protocol)
    report.tables = [("Parameters", _parameters(protocol)), ("Run", _run(protocol))]
    report.citations = _citations(protocol)
    return report


def write_report(path: str, report: Report) -> None:
    """Write the page; a reader never sees half of it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.partial", "w", encoding="utf-8") as page:
        page.write(render_report(report))
    os.replace(f"{path}.partial", path)


def png_of(picture: Image.Image | Figure) -> bytes:
    """An image, or a figure, as PNG."""
    stream = io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(stream, format="png", dpi=DPI)
    else:
        picture.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _curves(protocol) -> list[tuple[str, bytes]]:
    try:
        found = RunFolder(protocol.getStagePath()).read_json("classification.json") \
            if hasattr(protocol, "getStagePath") else {}
    except RunFileError:
        # Not every stage that makes classes measures curves.
        found = {}
    if not found.get("frc"):
        return []
    return [("Resolution", png_of(plot_frc(found["frc"], found.get("frc_threshold", 0.143))))]


def _parameters(protocol) -> list[tuple[str, str]]:
    return [(param.getLabel(), _value(protocol, name, param)) for name, param in protocol._definition.iterAllParams()
            if name not in LEFT_OUT and param.getLabel() and protocol.hasAttribute(name)
            and protocol.evalParamCondition(name)]


def _value(protocol, name, param) -> str:
    attribute = getattr(protocol, name)
    if isinstance(param, PointerParam):
        if attribute.get() is None:
            return "none"
        source = attribute.getObjValue()
        run = f" (from {source.getRunName()})" if hasattr(source, "getRunName") else ""
        return f"{attribute.get()}{run}"
    if isinstance(param, EnumParam):
        return str(param.choices[attribute.get()])
    value = attribute.get()
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _run(protocol) -> list[tuple[str, str]]:
    rows = [("Project", protocol.getProject().getShortName()),
            ("Protocol", f"{protocol.getClassLabel()}, run {protocol.getObjId()}: {protocol.getRunName()}"),
            ("Status", str(protocol.getStatus()))]
    record = _record(protocol)
    if record:
        # A page that is mailed needs no folders of this machine.
        program, _, arguments = record.get("command", "").partition(" ")
        rows += [("Command", f"{os.path.basename(program)} {arguments}"), ("Started", record.get("started", "")),
                 ("Time", f"{_duration(record.get('wall_seconds'))}, {_duration(record.get('cpu_seconds'))} of CPU"),
                 ("Engine", f"siamese2d {record.get('version', '')}")]
        rows += [("Warning", warning) for warning in record.get("warnings", [])]
    return rows + [("Report by", f"siamese2d {VERSION}, pwem {pwem.__version__}, "
                                 f"pyworkflow {pyworkflow.__version__}")]


def _record(protocol) -> dict:
    return protocol.getReport("run.json") if hasattr(protocol, "getReport") else {}


def _duration(seconds: float | None) -> str:
    return "unknown" if seconds is None else time.strftime("%H:%M:%S", time.gmtime(seconds))


def _citations(protocol) -> list[tuple[str, str]]:
    links = [LINK.search(line) for line in protocol.citations()]
    return [(link["text"], link["address"]) for link in links if link]
