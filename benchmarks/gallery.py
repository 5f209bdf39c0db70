#!/usr/bin/env python
"""How fast the class gallery opens and answers on a large set, in a real window.

Run it with Scipion's Python where there is a display. It makes a SetOfClasses2D as Scipion writes it, opens the gallery
on it, prints a table and writes the same as JSON::

    python benchmarks/gallery.py --classes 500 --particles 1000000 --work FOLDER --out gallery.json

``longest stall`` is the longest time in which the window answered no event, measured by a timer that should fire every
5 ms. The set is kept in the folder and used again; ``--drop-caches`` needs root, and reads it from the disk again.
"""

import argparse
import json
import os
import shutil
import sqlite3
import time
import tkinter as tk
from pathlib import Path

import mrcfile
import numpy as np

import pwem
import pyworkflow.object as pwobj
from pwem.constants import ALIGN_2D
from pwem.objects import Class2D, CTFModel, Particle, SetOfClasses2D, SetOfParticles, Transform

from siamese2d.constants import ATTR_CONFIDENCE, ATTR_QUALITY, ATTR_RESOLUTION
from siamese2d.gallery.class_list import Members, class_prefix, read_class_list
from siamese2d.gallery.criteria import Criteria
from siamese2d.gallery.model import GalleryModel
from siamese2d.viewers.gallery.gallery_window import Actions, GalleryWindow
from siamese2d.viewers.gallery.members_window import MembersWindow
from siamese2d.viewers.gallery.pictures import Look

BOX, PIXEL_SIZE = 160, 1.5
STACKED = 2000
HEARTBEAT_MS = 5
PATIENCE = 120


def make_set(classes: int, particles: int) -> str:
    """A SetOfClasses2D in the working directory; sizes fall from class to class."""
    path = f"classes_{classes}_{particles}.sqlite"
    if os.path.exists(path):
        return path
    generator = np.random.default_rng(0)
    write_stack("averages.mrcs", blobs(classes, generator))
    write_stack("particles.mrcs", generator.normal(size=(STACKED, BOX, BOX)))
    template(f"{path}.part")
    shares = np.exp(-np.arange(classes) / classes * 2)
    sizes = np.maximum(np.round(shares / shares.sum() * particles).astype(int), 1)
    sizes[0] += particles - sizes.sum()
    multiply(f"{path}.part", sizes, generator)
    with sqlite3.connect(f"{path}.part") as connection:
        connection.executemany("UPDATE Properties SET value = ? WHERE key = ?",
                               [(f"{path}, ", "_mapperPath"), (str(classes), "_size")])
    os.rename(f"{path}.part", path)
    return path


def template(path: str) -> None:
    """A set of one class with one particle, written by Scipion."""
    particles = SetOfParticles(filename=f"{path}.particles")
    particles.setSamplingRate(PIXEL_SIZE)
    particle = Particle(location=(1, "particles.mrcs"), objId=1)
    particle.setSamplingRate(PIXEL_SIZE)
    ctf = CTFModel()
    ctf.setStandardDefocus(12000, 11800, 35.0)
    particle.setCTF(ctf)
    particle.setTransform(Transform(matrix=np.eye(4)))
    particle.setClassId(1)
    setattr(particle, ATTR_CONFIDENCE, pwobj.Float(0.5))
    particles.append(particle)
    classes = SetOfClasses2D(filename=path)
    classes.getImagesPointer().set(particles)
    item = Class2D(objId=1)
    item.copyInfo(particles)
    item.setAlignment(ALIGN_2D)
    item.setRepresentative(Particle(location=(1, "averages.mrcs")))
    for name in (ATTR_RESOLUTION, ATTR_QUALITY):
        setattr(item, name, pwobj.Float(1.0))
    classes.append(item)
    item.append(particle)
    classes.update(item)
    classes.write()
    classes.close()
    os.remove(f"{path}.particles")


def multiply(path: str, sizes: np.ndarray, generator: np.random.Generator) -> None:
    """Copy the class and the particle of a template until there are as many as wanted, straight in the file."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    first = class_prefix(1)
    schemas = {name: sql for name, sql in connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name LIKE ?", (f"{first}%",))}
    columns, row = row_of(connection, "", 1)
    member_columns, member = row_of(connection, first, 1)
    next_id = 1
    for number, size in enumerate(sizes.tolist(), start=1):
        prefix = class_prefix(number)
        if number > 1:
            for name, sql in schemas.items():
                connection.execute(sql.replace(first, prefix, 1))
            for table in ("Classes", "Properties"):
                if f"{first}{table}" in schemas:
                    connection.execute(f"INSERT INTO {prefix}{table} SELECT * FROM {first}{table}")
        values = row | {"id": number, columns["_size"]: size, columns["_representative._index"]: number,
                        columns[ATTR_RESOLUTION]: float(generator.uniform(6, 25)),
                        columns[ATTR_QUALITY]: float(generator.random())}
        insert(connection, "Objects", [values])
        angles, confidence = generator.uniform(0, 2 * np.pi, size), generator.random(size)
        insert(connection, f"{prefix}Objects", (
            member | {"id": next_id + k, member_columns["_index"]: 1 + (next_id + k) % STACKED,
                      member_columns["_transform._matrix"]: rotation(angles[k]), member_columns["_classId"]: number,
                      member_columns[ATTR_CONFIDENCE]: float(confidence[k])} for k in range(size)))
        next_id += size
    connection.commit()
    connection.close()


def row_of(connection, prefix: str, number: int) -> tuple[dict, dict]:
    """Columns by label, and the row of an item."""
    columns = dict(connection.execute(f"SELECT label_property, column_name FROM {prefix}Classes"))
    cursor = connection.execute(f"SELECT * FROM {prefix}Objects WHERE id = ?", (number,))
    return columns, dict(zip([part[0] for part in cursor.description], cursor.fetchone()))


def insert(connection, table: str, rows) -> None:
    """Insert rows, replacing that of the template."""
    rows = iter(rows)
    head = next(rows)
    sql = f"INSERT OR REPLACE INTO {table} ({', '.join(head)}) VALUES ({', '.join('?' for _ in head)})"
    connection.execute(sql, tuple(head.values()))
    connection.executemany(sql, (tuple(values.values()) for values in rows))


def rotation(angle: float) -> str:
    cosine, sine = np.cos(angle), np.sin(angle)
    return json.dumps([[cosine, -sine, 0.0, 1.5], [sine, cosine, 0.0, -0.5], [0.0, 0.0, 1.0, 0.0],
                       [0.0, 0.0, 0.0, 1.0]])


def blobs(count: int, generator: np.random.Generator) -> np.ndarray:
    """Images of a few blurred dots each."""
    y, x = np.mgrid[:BOX, :BOX] - BOX / 2
    images = generator.normal(0, 0.1, (count, BOX, BOX))
    for image in images:
        for dx, dy in generator.normal(0, BOX / 8, (5, 2)):
            image += np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / 60)
    return images


def write_stack(path: str, images: np.ndarray) -> None:
    with mrcfile.new(path, overwrite=True) as stack:
        stack.set_data(images.astype(np.float32))
        stack.voxel_size = PIXEL_SIZE


class Stopwatch:
    """Times steps in a window, and how long the window answered nothing meanwhile."""

    def __init__(self, root: tk.Tk):
        self._root, self.rows, self._stall = root, {}, 0.0
        self._last = time.perf_counter()
        self._beat()

    def measure(self, name: str, act, done) -> None:
        """Do something in the window and wait until it is done."""
        self._root.update()
        self._stall, start = 0.0, time.perf_counter()
        self._last = start
        act()
        while not done():
            self._root.update()
            if time.perf_counter() - start > PATIENCE:
                raise SystemExit(f"{name}: not done after {PATIENCE} s")
        self._root.update()
        self._note()
        self.rows[name] = {"seconds": time.perf_counter() - start, "longest_stall_seconds": self._stall}

    def _beat(self) -> None:
        self._note()
        self._root.after(HEARTBEAT_MS, self._beat)

    def _note(self) -> None:
        now = time.perf_counter()
        self._stall, self._last = max(self._stall, now - self._last), now


def drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def run(path: str) -> dict:
    """All measurements on one set."""
    root = tk.Tk()
    root.withdraw()
    watch, opened = Stopwatch(root), {}

    def open_gallery():
        model = GalleryModel(read_class_list(path))
        opened["gallery"] = GalleryWindow(root, "benchmark", model, Actions())

    def complete(name="gallery"):
        return lambda: opened[name].grid.complete

    def scroll():
        for step in range(1, 21):
            opened["gallery"].grid.canvas.yview_moveto(step / 20)
            root.update()

    def open_members(number):
        opened["members"] = MembersWindow(root, f"Class {number}", Members(path), number, PIXEL_SIZE)

    watch.measure("open the gallery, all on the screen drawn", open_gallery, complete())
    gallery = opened["gallery"]
    watch.measure("scroll through all classes in 20 steps", scroll, complete())
    watch.measure("sort by resolution", lambda: gallery.sort_by("resolution"), complete())
    watch.measure("sort by similarity: compare all averages", lambda: gallery.sort_by("similarity"),
                  lambda: gallery.model.similarity_known and gallery.grid.complete)
    watch.measure("low-pass and contrast", lambda: gallery.grid.set_look(Look(124, 1.5, 12.0)), complete())
    watch.measure("select by thresholds", lambda: (gallery.model.select_where(Criteria(1000, 15.0, 0.3)),
                                                   gallery._show_selection()), complete())
    watch.measure("invert", gallery.invert, complete())
    for number in (1, len(gallery.model.classes)):
        watch.measure(f"members of a class of {gallery.model.size(number):,}", lambda: open_members(number),
                      complete("members"))
        opened["members"].root.destroy()
    root.destroy()
    return watch.rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=500)
    parser.add_argument("--particles", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, required=True, help="folder for the set")
    parser.add_argument("--drop-caches", action="store_true", help="forget the set's file before opening it")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    out = args.out.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    os.chdir(args.work)
    pwem.Domain.getProtocols()
    path = make_set(args.classes, args.particles)
    if args.drop_caches:
        drop_caches()
    rows = run(path)
    width = shutil.get_terminal_size((100, 24)).columns - 30
    print(f"{args.classes:,} classes, {args.particles:,} particles, {os.path.getsize(path) / 1e6:.0f} MB of SQLite")
    for name, row in rows.items():
        print(f"{name:<{min(width, 52)}} {row['seconds']:7.2f} s   longest stall {row['longest_stall_seconds']:5.3f} s")
    out.write_text(json.dumps({"classes": args.classes, "particles": args.particles, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
