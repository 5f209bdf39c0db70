"""Particles and classes to other programs and back: nothing lost, and their averages are the classes.

What comes out is read by the converters of the plugins of RELION and cryoSPARC, and averaged by RELION itself, where
these are installed.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import unittest

import mrcfile
import numpy as np
from scipy import ndimage

import pwem
import pyworkflow.tests as pwtests
from pwem.constants import ALIGN_2D, ALIGN_NONE
from pwem.objects import Class2D, Particle, SetOfClasses2D, SetOfParticles, Transform
from pyworkflow.object import Float, Integer, Pointer, String

from siamese2d import convert
from siamese2d.constants import ATTR_CONFIDENCE
from siamese2d.export import writeEverything
from siamese2d.protocols import Siamese2DProtExport
from siamese2d.star import readTable
from siamese2d.tests.layer import FolderTest, makeCtf, runEngine, setAcquisition, writeMrc
from siamese2d.tests.warps import PIXEL, correlation, displace, makeTemplate

# What RELION's plugin keeps on the set.
OPTICS_INFO = """
data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnBeamTiltX #6
_rlnBeamTiltY #7
_rlnImagePixelSize #8
_rlnImageSize #9
north 1 300.0 2.7 0.1 0.12 0.0 1.7 64
south 2 300.0 2.7 0.1 -0.3 0.25 1.7 64
"""
NUMBER = 12
# Plugins of the templates' protocols, by how the names of their classes begin; all others are always there.
PLUGINS = {"ProtRelion": "relion", "ProtCryoSparc": "cryosparc2"}


def poses():
    """Class, psi, origins in angstroms and flip of each particle."""
    rng = np.random.default_rng(3)
    return [(1 + place % 2, rng.uniform(-180, 180), *(rng.uniform(-6, 6, 2) * PIXEL), place % 3 == 0)
            for place in range(NUMBER)]


def template(number):
    """Image of a class."""
    return makeTemplate() if number == 1 else np.rot90(makeTemplate()) + 0.5 * makeTemplate()


def fillParticles(particles, stack):
    """Particles with poses, and with what RELION and others know of them."""
    writeMrc(stack, [displace(template(number), *pose) for number, *pose in poses()], PIXEL)
    particles.setSamplingRate(PIXEL)
    particles.setHasCTF(True)
    setAcquisition(particles)
    particles.getAcquisition().opticsGroupInfo.set(OPTICS_INFO)
    for place in range(NUMBER):
        particle = Particle(location=(place + 1, stack), objId=5 * place + 2)
        particle.setSamplingRate(PIXEL)
        particle.setCTF(makeCtf(9000.0 + 100 * place, phaseShift=90.0))
        particle._rlnOpticsGroup = Integer(1 + place % 2)
        particle._rlnRandomSubset = Integer(2 - place % 2)
        particle._rlnGroupName = String(f"group_{place % 3}")
        particle._rlnCtfBfactor = Float(12.5 + place)
        particle._xmipp_zScore = Float(0.25 * place)
        setattr(particle, ATTR_CONFIDENCE, Float(0.5 + 0.01 * place))
        particles.append(particle)
    particles.write()
    return particles


def fillClasses(classes, particles, averages):
    """The particles in their classes, aligned as this plugin aligns."""
    writeMrc(averages, [template(1), template(2)], PIXEL)
    items = [particle.clone() for particle in particles]
    for number in (1, 2):
        cls = Class2D(objId=number)
        cls.copyInfo(particles)
        cls.setAlignment(ALIGN_2D)
        average = Particle(location=(number, averages))
        average.setSamplingRate(PIXEL)
        cls.setRepresentative(average)
        classes.append(cls)
        for particle, (own, psi, x, y, flip) in zip(items, poses()):
            if own == number:
                particle.setClassId(number)
                particle.setTransform(Transform(matrix=convert.alignmentMatrix(psi, x, y, flip, PIXEL)))
                cls.append(particle)
        classes.update(cls)
    classes.write()
    return classes


def relionAverage(images, psi, originX, originY):
    """RELION's convention: shift the image by its origin, then turn x towards y by psi. Origins in pixels."""
    centre = images.shape[-1] // 2
    y, x = (np.mgrid[:images.shape[-2], :images.shape[-1]] - centre).astype(float)
    aligned = []
    for image, angle, shiftX, shiftY in zip(images, np.deg2rad(psi), originX, originY):
        ownX = np.cos(angle) * x + np.sin(angle) * y - shiftX
        ownY = -np.sin(angle) * x + np.cos(angle) * y - shiftY
        aligned.append(ndimage.map_coordinates(image, [ownY + centre, ownX + centre], order=3))
    return np.mean(aligned, axis=0)


def mirrored(image):
    """Mirrored in x about the centre of an even box."""
    return np.roll(image[:, ::-1], 1, axis=1)


class RoundTripTest(FolderTest):
    def setUp(self):
        super().setUp()
        self.particles = fillParticles(self.emptySet(SetOfParticles), "stack.mrcs")
        self.classes = self.emptySet(SetOfClasses2D)
        self.classes.getImagesPointer().set(self.particles)
        fillClasses(self.classes, self.particles, "averages.mrcs")

    def export(self, program):
        """Folder with the classes as the protocol exports them."""
        writeEverything("all.star", self.classes)
        convert.writeTemplates("templates.star", self.classes)
        runEngine("export", "--particles", "all.star", "--classes", "templates.star", "--format", program,
                  "--out", program)
        return program

    def assertAverages(self, rows):
        """Rows of (class, image number, psi, origin x and y in angstroms) average to the classes and their mirrors."""
        stack = mrcfile.read("stack.mrcs")
        truth = {1: template(1), 2: template(2), 3: mirrored(template(1)), 4: mirrored(template(2))}
        self.assertEqual({row[0] for row in rows}, set(truth))
        for number, image in truth.items():
            _, places, psi, x, y = map(np.array, zip(*(row for row in rows if row[0] == number)))
            average = relionAverage(stack[places - 1], psi, x / PIXEL, y / PIXEL)
            self.assertGreater(correlation(average, image), 0.99, number)
            self.assertLess(correlation(relionAverage(stack[places - 1], -psi, x / PIXEL, y / PIXEL), image), 0.95)


class TestEverything(RoundTripTest):
    """The table for the engine holds all."""

    def testNothingIsLeftOut(self):
        self.assertEqual(writeEverything("all.star", self.classes), NUMBER)
        optics = list(readTable("all.star", "optics"))
        self.assertEqual([row["rlnOpticsGroupName"] for row in optics], ["north", "south"])
        self.assertEqual([float(row["rlnBeamTiltX"]) for row in optics], [0.12, -0.3])
        rows = {int(row["siamese2dItemId"]): row for row in readTable("all.star", "particles")}
        self.assertEqual(len(rows), NUMBER)
        for place, (number, psi, x, y, flip) in enumerate(poses()):
            row = rows[5 * place + 2]
            self.assertEqual(row["rlnImageName"], f"{place + 1:06d}@{os.path.abspath('stack.mrcs')}")
            self.assertEqual((int(row["rlnClassNumber"]), int(row["rlnOpticsGroup"]), int(row["rlnRandomSubset"]),
                              int(row["rlnIsFlip"])), (number, 1 + place % 2, 2 - place % 2, flip))
            values = [float(row[name]) for name in ("rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnDefocusU",
                                                    "rlnPhaseShift", "rlnCtfBfactor", "xmipp_zScore",
                                                    "rlnMaxValueProbDistribution")]
            np.testing.assert_allclose(values, [psi, x, y, 9200 + 100 * place, 90, 12.5 + place, 0.25 * place,
                                                0.5 + 0.01 * place], atol=1e-5)
            self.assertEqual(row["rlnGroupName"], f"group_{place % 3}")

    def testDisabledItemsAndClassesAreLeftOut(self):
        cls = self.classes[2]
        cls.setEnabled(False)
        self.classes.update(cls)
        self.assertEqual(writeEverything("all.star", self.classes), NUMBER // 2)

    def testParticlesWithoutAnythingMore(self):
        plain = self.makeParticles(ctf=False)
        self.assertEqual(writeEverything("plain.star", plain), 6)
        self.assertEqual([float(row["rlnVoltage"]) for row in readTable("plain.star", "optics")], [300.0])
        self.assertEqual(set(next(readTable("plain.star", "particles"))),
                         {"rlnImageName", "rlnOpticsGroup", "siamese2dItemId"})


class TestRelion(RoundTripTest):
    """With scipion-em-relion beside."""

    def setUp(self):
        _require("relion")
        super().setUp()

    def testItsReaderFindsClassesPosesAndTheRest(self):
        from relion.convert import readSetOfParticles

        star = os.path.join(self.export("relion"), "particles.star")
        read = self.emptySet(SetOfParticles)
        readSetOfParticles(star, read, alignType=ALIGN_2D, extraLabels=["rlnOpticsGroup"])
        self.assertAverages([(particle.getClassId(), particle.getLocation()[0], *_asRelionPluginReads(particle))
                             for particle in read])
        originals = {particle.getLocation()[0]: particle.clone() for particle in self.particles}
        for particle in read:
            before = originals[particle.getLocation()[0]]
            for name in ("_rlnRandomSubset", "_rlnCtfBfactor", "_rlnGroupName", "_rlnOpticsGroup"):
                self.assertEqual(particle.getAttributeValue(name), before.getAttributeValue(name), name)
            self.assertAlmostEqual(particle.getCTF().getDefocusU(), before.getCTF().getDefocusU(), places=3)
            self.assertAlmostEqual(particle.getCTF().getPhaseShift(), 90)
        self.assertIn("rlnBeamTiltX", read.getAcquisition().opticsGroupInfo.get())

    def testItsParticlesComeThroughClassesAndBack(self):
        """RELION's table, its plugin's reader, this plugin's classes, its plugin's writer: nothing is missing."""
        from relion.convert import readSetOfParticles, writeSetOfParticles

        star = os.path.join(self.export("relion"), "particles.star")
        read = self.emptySet(SetOfParticles)
        readSetOfParticles(star, read, alignType=ALIGN_NONE, extraLabels=["rlnOpticsGroup"])
        read.write()
        classes = self.emptySet(SetOfClasses2D)
        classes.getImagesPointer().set(read)
        fillClasses(classes, read, "again.mrcs")
        members = self.emptySet(SetOfParticles)
        members.copyInfo(read)
        for cls in classes.iterItems():
            members.appendFromImages(cls)
        members.write()
        writeSetOfParticles(members, "back.star", alignType=ALIGN_NONE, extraLabels=["rlnOpticsGroup"])
        before = {row["rlnImageName"]: row for row in readTable(star, "particles")}
        for row in readTable("back.star", "particles"):
            for name in ("rlnRandomSubset", "rlnOpticsGroup", "rlnCtfBfactor", "rlnDefocusU", "rlnDefocusAngle"):
                self.assertAlmostEqual(float(row[name]), float(before[row["rlnImageName"]][name]), places=3, msg=name)
        self.assertEqual([row["rlnBeamTiltY"] for row in readTable("back.star", "optics")], ["0.000000", "0.250000"])


class TestRelionItself(RoundTripTest):
    """With RELION's programs on the path."""

    def testItMovesParticlesToTheirClasses(self):
        program = shutil.which("relion_stack_create")
        if program is None:
            raise unittest.SkipTest("RELION's relion_stack_create is not on the path")
        star = os.path.join(self.export("relion"), "particles.star")
        subprocess.run([program, "--i", star, "--o", "moved", "--apply_transformation"], check=True,
                       capture_output=True)
        moved, averages = mrcfile.read("moved.mrcs"), mrcfile.read(os.path.join("relion", "classes.mrcs"))
        # RELION may sort particles; the moved ones are named in its own table.
        rows = list(readTable("moved.star", "particles"))
        numbers = np.array([int(row["rlnClassNumber"]) for row in rows])
        places = np.array([int(row["rlnImageName"].partition("@")[0]) - 1 for row in rows])
        self.assertEqual(sorted(set(numbers)), [1, 2, 3, 4])
        for number in set(numbers):
            average = moved[places[numbers == number]].mean(axis=0)
            self.assertGreater(correlation(average, averages[number - 1]), 0.98, number)


class TestCryosparc(RoundTripTest):
    """With scipion-em-cryosparc2 and cryosparc-tools beside."""

    def setUp(self):
        _require("cryosparc2")
        super().setUp()

    def testItsReaderFindsClassesAndPoses(self):
        from cryosparc2.convert import readSetOfParticles

        star = os.path.join(self.export("relion"), "particles.star")
        read = self.emptySet(SetOfParticles)
        readSetOfParticles(f"particles@{star}", read, alignType=ALIGN_2D, samplingRate=PIXEL)
        self.assertAverages([(particle.getClassId(), particle.getLocation()[0], *_asRelionPluginReads(particle))
                             for particle in read])

    def testItsToolsReadEveryFieldOfTheGroup(self):
        from cryosparc.dataset import Dataset

        folder = self.export("cryosparc")
        data = Dataset.load(os.path.join(folder, "particles.cs"))
        self.assertEqual(len(data), NUMBER)
        rows = zip(data["alignments2D/class"] + 1, data["blob/idx"] + 1, np.rad2deg(data["alignments2D/pose"]),
                   *(data["alignments2D/shift"] * PIXEL).T)
        self.assertAverages([tuple(map(float, row[:1])) + (int(row[1]), *map(float, row[2:])) for row in rows])
        self.assertEqual(sorted(set(data["alignments2D/split"].tolist())), [0, 1])
        np.testing.assert_allclose(np.abs(data["ctf/phase_shift_rad"]), np.pi / 2, rtol=1e-6)
        templates = Dataset.load(os.path.join(folder, "templates.cs"))
        self.assertEqual(sorted(templates["blob/idx"].tolist()), [0, 1, 2, 3])

    def testWhatItsToolsWriteIsRead(self):
        from cryosparc.dataset import Dataset

        folder = self.export("cryosparc")
        Dataset.load(os.path.join(folder, "particles.cs")).save("saved.cs")
        runEngine("export", "--particles", "saved.cs", "--format", "relion", "--out", "again")
        self.assertAverages([(int(row["rlnClassNumber"]), int(row["rlnImageName"].partition("@")[0]),
                              *(float(row[name]) for name in ("rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")))
                             for row in readTable(os.path.join("again", "particles.star"), "particles")])


class TestExportProtocol(pwtests.BaseTest):
    @classmethod
    def setUpClass(cls):
        pwtests.setupTestProject(cls)
        cls.owner = cls.newProtocol(Siamese2DProtExport)
        cls.proj.saveProtocol(cls.owner)
        os.makedirs(cls.owner._getExtraPath(), exist_ok=True)
        particles = fillParticles(cls.owner._createSetOfParticles(), cls.owner._getExtraPath("stack.mrcs"))
        cls.owner._defineOutputs(outputParticles=particles)
        classes = cls.owner._createSetOfClasses2D(particles)
        classes.getImagesPointer().set(cls.owner)
        classes.getImagesPointer().setExtended("outputParticles")
        fillClasses(classes, particles, cls.owner._getExtraPath("averages.mrcs"))
        cls.owner._defineOutputs(outputClasses=classes)

    def export(self, output, program):
        protocol = self.newProtocol(Siamese2DProtExport, format=program)
        protocol.inputParticles.set(self.owner)
        protocol.inputParticles.setExtended(output)
        self.launchProtocol(protocol)
        return protocol

    def testClassesForRelion(self):
        protocol = self.export("outputClasses", 0)
        table = list(readTable(protocol.getStagePath("particles.star"), "particles"))
        self.assertEqual({int(row["rlnClassNumber"]) for row in table}, {1, 2, 3, 4})
        self.assertEqual(mrcfile.read(protocol.getStagePath("classes.mrcs")).shape[0], 4)
        self.assertIn(f"{NUMBER} particles in {os.path.abspath(protocol.getStagePath('particles.star'))}",
                      protocol.summary())

    def testParticlesForCryosparc(self):
        protocol = self.export("outputParticles", 1)
        rows = np.load(protocol.getStagePath("particles.cs"), allow_pickle=False)
        self.assertEqual(len(rows), NUMBER)
        self.assertTrue(all(os.path.isabs(path.decode()) for path in rows["blob/path"]))
        self.assertFalse(os.path.exists(protocol.getStagePath("templates.cs")))


class TestTemplates(pwtests.BaseTest):
    """Workflow templates become projects whose protocols are connected."""

    NAMES = ["cryosparc_particles", "micrographs_to_classes", "relion_particles"]

    @classmethod
    def setUpClass(cls):
        pwtests.setupTestProject(cls)

    @staticmethod
    def templates():
        """By name; new ones each time, because they are filled in only once."""
        plugin = pwem.Domain.getPlugins()["siamese2d"]._pluginInstance
        return {template.name: template for template in plugin.getTemplates()}

    def write(self, name, **values):
        """Path of a template's workflow with these values of its fields."""
        template = self.templates()[name]
        template.replaceEnvVariables()
        template.parseContent()
        for alias, value in values.items():
            self.assertEqual(template.setParamValue(alias, value), 1, alias)
        path = template.createTemplateFile()
        self.addCleanup(os.remove, path)
        return path

    def entries(self, name, **values):
        """Protocols as the workflow lists them."""
        with open(self.write(name, **values)) as workflow:
            return json.load(workflow)

    def load(self, name, **values):
        """Protocols that the project gets, by their numbers in the file."""
        path = self.write(name, **values)
        loaded = self.proj.loadProtocols(path)
        with open(path) as workflow:
            self.listed = json.load(workflow)
        return {number: self.proj.mapper.selectById(protocol.getObjId()) for number, protocol in loaded.items()}

    def assertConnected(self, protocols):
        """Every protocol of the file is there, with the values and inputs that the file gives it."""
        for entry in self.listed:
            protocol = protocols[entry["object.id"]]
            self.assertEqual(protocol.getClassName(), entry["object.className"])
            for name, value in entry.items():
                if name.startswith("object."):
                    continue
                attribute = getattr(protocol, name)
                if isinstance(attribute, Pointer):
                    number, _, output = value.partition(".")
                    self.assertEqual((attribute.getObjValue().getObjId(), attribute.getExtended()),
                                     (protocols[number].getObjId(), output))
                else:
                    self.assertEqual(str(attribute.get()), str(attribute._convertValue(value)), name)

    def testEachHasADescription(self):
        self.assertEqual(sorted(self.templates()), self.NAMES)
        for template in self.templates().values():
            self.assertIn("classified", template.description)

    def testEachProtocolHasTheParametersOfTheTemplate(self):
        protocols = pwem.Domain.getProtocols()
        for name in self.NAMES:
            for entry in self.entries(name):
                className = entry["object.className"]
                plugin = next((plugin for start, plugin in PLUGINS.items() if className.startswith(start)), None)
                if plugin and importlib.util.find_spec(plugin) is None:
                    continue
                self.assertIn(className, protocols, name)
                protocol = self.newProtocol(protocols[className])
                for parameter in entry:
                    if not parameter.startswith("object."):
                        self.assertIsNotNone(protocol.getParam(parameter), f"{name}: {className}.{parameter}")

    def testEachInputIsAnOutputOfAnEarlierProtocol(self):
        protocols = pwem.Domain.getProtocols()
        for name in self.NAMES:
            before = {}
            for entry in self.entries(name):
                for parameter, value in entry.items():
                    number, dot, output = value.partition(".") if isinstance(value, str) else ("", "", "")
                    if dot and output.startswith("output"):
                        where = f"{name}: {entry['object.className']}.{parameter}"
                        self.assertIn(number, before, where)
                        known = getattr(protocols.get(before[number]), "_possibleOutputs", None)
                        if known:
                            self.assertIn(output, _outputNames(known), where)
                before[entry["object.id"]] = entry["object.className"]

    def testMicrographsToClasses(self):
        protocols = self.load("micrographs_to_classes", folder=self.proj.path, pixel="2.5", diameter="120",
                              resolution="30")
        self.assertConnected(protocols)
        self.assertEqual(len(protocols), 11)
        self.assertEqual(protocols["3"].diameter.get(), 120)
        self.assertEqual(protocols["1"].filesPath.get(), self.proj.path)
        self.assertEqual(protocols["6"].maxResolution.get(), 30)

    def testRelionParticles(self):
        _require("relion")
        self.assertConnected(self.load("relion_particles", folder=self.proj.path, ctfs=self.proj.path))

    def testCryosparcParticles(self):
        _require("cryosparc2")
        self.assertConnected(self.load("cryosparc_particles", cs=self.proj.path))


def _asRelionPluginReads(particle):
    """psi and origins in angstroms of the matrix that these plugins make of a row: [R(psi) | origin]."""
    matrix = particle.getTransform().getMatrix()
    return np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0])), matrix[0, 3] * PIXEL, matrix[1, 3] * PIXEL


def _outputNames(possible):
    """Names of the outputs that a protocol declares, as an enumeration or a dictionary."""
    return set(possible) if isinstance(possible, dict) else {output.name for output in possible}


def _require(plugin):
    pwem.Domain.getProtocols()
    if importlib.util.find_spec(plugin) is None:
        raise unittest.SkipTest(f"scipion-em-{plugin} is not installed beside this plugin")
