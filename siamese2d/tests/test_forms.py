"""Forms: few questions with advice; bad input is one message that names the parameter and the way out; what costs hours
is announced."""

import itertools
import re
from unittest import mock

from pwem.constants import ALIGN_NONE
from pwem.objects import Class2D, Coordinate, SetOfAverages, SetOfClasses2D, SetOfCTF, SetOfMicrographs, SetOfParticles
from pwem.protocols import EMProtocol
from pyworkflow.exceptions import ValidationException
from pyworkflow.object import Pointer
from pyworkflow.protocol import params
from pyworkflow.utils.process import buildRunCommand

import siamese2d.protocols
import siamese2d.wizards
from siamese2d import Plugin
from siamese2d.objects import EmbeddingModel, PickerModel
from siamese2d.protocols import (Siamese2DProtAssign, Siamese2DProtClassify, Siamese2DProtExtract,
                                 Siamese2DProtNormalize, Siamese2DProtPick, Siamese2DProtPickUnlabeled,
                                 Siamese2DProtSelectParticles, Siamese2DProtTrainEmbedding, Siamese2DProtTrainPicker)
from siamese2d.protocols.protocol_extract import OTHER
from siamese2d.protocols.protocol_train_embedding import ALIGNED_CLASSES, PRESET_CHOICES, PRESETS, TRIPLET
from siamese2d.tests.layer import FolderTest, makeCtf

DEVICES = {"version": "0", "devices": ["cpu", "cuda:0"]}


class FormTest(FolderTest):
    """Validates protocols that belong to no project; the environment answers that it has one GPU."""

    def setUp(self):
        super().setUp()
        handshake = mock.patch.object(Plugin, "handshake", return_value=DEVICES)
        handshake.start()
        self.addCleanup(handshake.stop)

    def make(self, protocolClass, **parameters):
        protocol = protocolClass()
        for name, value in parameters.items():
            getattr(protocol, name).set(value)
        return protocol

    def assertAccepted(self, protocolClass, **parameters):
        self.assertEqual(self.make(protocolClass, **parameters).validate(), [])

    def assertRefused(self, protocolClass, *words, **parameters):
        errors = self.make(protocolClass, **parameters).validate()
        self.assertEqual(len(errors), 1, errors)
        for word in words:
            self.assertIn(word, errors[0])

    def emptyMicrographs(self):
        micrographs = SetOfMicrographs(filename="empty.sqlite")
        micrographs.setSamplingRate(2.0)
        micrographs.write()
        return micrographs

    def picker(self, pixelSize=2.0, exists=True):
        if exists:
            open("picker.safetensors", "w").close()
        return PickerModel(filename="picker.safetensors", pixelSize=pixelSize, diameter=30.0, summary="")

    def embedding(self, pixelSize=3.0, boxSize=16):
        open("embedding.safetensors", "w").close()
        return EmbeddingModel(filename="embedding.safetensors", pixelSize=pixelSize, boxSize=boxSize, mode="triplet")


def ownProtocols():
    """Every protocol of the plugin."""
    return [getattr(siamese2d.protocols, name) for name in siamese2d.protocols.__all__]


class TestRules(FolderTest):
    """What holds for the form of every protocol."""

    # More questions than these beyond the inputs are for experts.
    MOST_QUESTIONS = 3
    # Questions of Scipion itself, which every form has that computes or streams.
    SCIPIONS = {"hostName", "numberOfThreads", "binThreads", "numberOfMpi", "streamingSleepOnWait"}

    def questions(self, protocol):
        """Names and parameters that the plugin asks for, in the order of the form."""
        scipions = {name for name, _ in EMProtocol().getDefinition().iterParams()} | self.SCIPIONS
        return [(name, param) for name, param in protocol.getDefinition().iterParams() if name not in scipions]

    def inputs(self, questions):
        """Names of the inputs."""
        return {name for name, param in questions if isinstance(param, (params.PointerParam, params.FileParam))}

    def choosers(self, questions):
        """Names of choices that say which inputs are asked for: Scipion wants them before these."""
        conditions = " ".join(param.condition.get("") for name, param in questions if name in self.inputs(questions))
        return {name for name, param in questions
                if isinstance(param, params.EnumParam) and re.search(rf"\b{name}\b", conditions)}

    def visible(self, protocol, questions):
        return [name for name, param in questions
                if not param.isExpert() and protocol.evalParamCondition(name) and param.condition.get("") != "False"]

    def combinations(self, protocol, questions):
        """The protocol with every combination of choices that show or hide other questions."""
        conditions = " ".join(param.condition.get("") for _, param in questions)
        choosers = [(name, range(len(param.choices))) for name, param in questions
                    if isinstance(param, params.EnumParam) and re.search(rf"\b{name}\b", conditions)]
        for values in itertools.product(*(numbers for _, numbers in choosers)):
            for (name, _), value in zip(choosers, values):
                getattr(protocol, name).set(value)
            yield values

    def testFewQuestions(self):
        tooMany = []
        for protocolClass in ownProtocols():
            protocol = protocolClass()
            questions = self.questions(protocol)
            # Which of two inputs to take is the same question as which input to take.
            inputs = self.inputs(questions) | {"micrographsSource"}
            for values in self.combinations(protocol, questions):
                asked = [name for name in self.visible(protocol, questions) if name not in inputs]
                tooMany += [(protocolClass, values, asked)] if len(asked) > self.MOST_QUESTIONS else []
        self.assertEqual([], tooMany)

    def testInputsComeFirst(self):
        late = []
        for protocolClass in ownProtocols():
            protocol = protocolClass()
            questions = self.questions(protocol)
            inputs = self.inputs(questions)
            required = {name for name, param in questions if name in inputs and param.isImportant()}
            for values in self.combinations(protocol, questions):
                asked = self.visible(protocol, questions)
                first = set(itertools.takewhile(lambda name: name in inputs | self.choosers(questions), asked))
                late += [(protocolClass, values, asked)] if not required & set(asked) <= first else []
        self.assertEqual([], late)

    def testEveryHelpSaysWhatToDoWhenUnsure(self):
        silent = [(protocolClass, name, param.help.get("")) for protocolClass in ownProtocols()
                  for name, param in self.questions(protocolClass()) if not self.advises(param)]
        self.assertEqual([], silent)

    def advises(self, param):
        text = param.help.get("")
        isInput = isinstance(param, (params.PointerParam, params.FileParam))
        # Nobody can go without such an input.
        needed = isInput and (not getattr(param, "allowsNull", False) or bool(param.condition.get("")))
        return text.endswith(".") and (needed and len(text) > 20 or bool(re.search("[Ww]hen unsure", text)))

    def testHelpAndWizardsAgree(self):
        """A question with a wizard says so, as the wand is easily overlooked; none promises what is not there."""
        targets = {(protocolClass, name) for wizard in map(siamese2d.wizards.__dict__.get, siamese2d.wizards.__all__)
                   for protocolClass, names in wizard._targets for name in names}
        promised = {(protocolClass, name) for protocolClass in ownProtocols()
                    for name, param in self.questions(protocolClass()) if "wand" in param.help.get("")}
        self.assertEqual(targets, promised)

    def testEmptyFormsHaveNoWarnings(self):
        for protocolClass in ownProtocols():
            self.assertEqual([], protocolClass().warnings())


class TestCosts(FormTest):
    """What takes hours or fills a disk is announced, and nothing else."""

    def large(self, items, size):
        """The same set, said to hold more."""
        patched = mock.patch.object(items, "getSize", return_value=size)
        patched.start()
        self.addCleanup(patched.stop)
        return items

    def announced(self, protocolClass, **parameters):
        protocol = self.make(protocolClass, **{"useGpu": False, **parameters} if protocolClass().allowsGpu()
                             else parameters)
        return " ".join(protocol.warnings())

    def testClassify(self):
        small = {"inputParticles": self.makeParticles(), "numberOfClasses": 2}
        self.assertNotIn("hours", self.announced(Siamese2DProtClassify, **small))
        large = {"inputParticles": self.large(self.makeParticles(), 3_000_000), "numberOfClasses": 50}
        # 11.5 ms for each particle.
        self.assertIn("about 2 hours on 4 threads", self.announced(Siamese2DProtClassify, **large))
        self.assertIn("about 10 hours on 1 threads", self.announced(Siamese2DProtClassify, numberOfThreads=1, **large))
        self.assertNotIn("hours", self.announced(Siamese2DProtClassify, useGpu=True, **large))

    def testPicking(self):
        micrographs = self.makeMicrographs()
        self.large(micrographs, 10_000)
        dimensions = mock.patch.object(micrographs, "getDim", return_value=(5760, 4092, 1))
        dimensions.start()
        self.addCleanup(dimensions.stop)
        one = self.announced(Siamese2DProtPickUnlabeled, inputMicrographs=micrographs, diameter=100)
        several = self.announced(Siamese2DProtPickUnlabeled, inputMicrographs=micrographs, diameter=60,
                                 largestDiameter=150)
        hours = [float(re.search("about (.*) hours", text)[1].replace(",", "")) for text in (one, several)]
        self.assertAlmostEqual(15, hours[1] / hours[0], delta=2)
        self.assertIn("hours", self.announced(Siamese2DProtPick, inputMicrographs=micrographs,
                                              inputPicker=self.picker()))
        self.assertIn("943 GB", self.announced(Siamese2DProtNormalize, inputMicrographs=micrographs))
        self.assertNotIn("GB", self.announced(Siamese2DProtNormalize, inputMicrographs=micrographs, downsample=4))

    def testExtraction(self):
        micrographs = self.makeMicrographs()
        coordinates = self.large(self.makeCoordinates(micrographs, [(0, 10, 20)]), 1_000_000)
        self.assertIn("360 GB", self.announced(Siamese2DProtExtract, inputCoordinates=coordinates, boxSize=300))
        self.assertNotIn("GB", self.announced(Siamese2DProtExtract, inputCoordinates=coordinates, boxSize=300,
                                              downsample=3))
        coordinates.setBoxSize(None)
        self.assertEqual("", self.announced(Siamese2DProtExtract, inputCoordinates=coordinates))

    def testTrainPicker(self):
        micrographs = self.makeMicrographs()
        marked = {"inputMicrographs": micrographs, "inputCoordinates": self.makeCoordinates(micrographs, [(0, 9, 9)])}
        self.assertNotIn("hours", self.announced(Siamese2DProtTrainPicker, **marked))
        with mock.patch.object(micrographs, "getDim", return_value=(5760, 4092, 1)):
            self.large(micrographs, 20_000), self.large(marked["inputCoordinates"], 1_000_000)
            self.assertIn("take a part", self.announced(Siamese2DProtTrainPicker, **marked))

    def testTrainEmbedding(self):
        particles = self.large(self.makeParticles(20), 50_000)
        slow = {"preset": PRESET_CHOICES.index("milopyp"), "inputParticles": particles}
        self.assertIn("hours", self.announced(Siamese2DProtTrainEmbedding, numberOfThreads=1, **slow))
        self.assertNotIn("hours", self.announced(Siamese2DProtTrainEmbedding, useGpu=True, **slow))
        self.assertNotIn("hours", self.announced(Siamese2DProtTrainEmbedding, inputParticles=particles))
        self.large(particles, 1_000_000)
        self.assertIn("17 GB", self.announced(Siamese2DProtTrainEmbedding, useGpu=True, inputParticles=particles))

    def testAssign(self):
        averages = SetOfAverages(filename="averages.sqlite")
        averages.copyInfo(self.makeParticles())
        averages.append(self.makeParticles().getFirstItem().clone())
        averages.write()
        parameters = {"inputParticles": self.large(self.makeParticles(), 5_000_000),
                      "inputClasses": self.large(averages, 100), "numberOfThreads": 1, "binThreads": 1}
        once, twice = (float(re.search("about (.*) hours", self.announced(
            Siamese2DProtAssign, newAverages=new, **parameters))[1]) for new in (False, True))
        self.assertAlmostEqual(2, twice / once, delta=0.4)


class TestNormalizeForm(FormTest):
    def testGood(self):
        self.assertAccepted(Siamese2DProtNormalize, inputMicrographs=self.makeMicrographs())

    def testNoInput(self):
        self.assertRefused(Siamese2DProtNormalize, "Input micrographs", "EMPTY")

    def testEmptySet(self):
        self.assertRefused(Siamese2DProtNormalize, "Input micrographs", "the set is empty",
                           inputMicrographs=self.emptyMicrographs())

    def testUpsampling(self):
        self.assertRefused(Siamese2DProtNormalize, "Downsample", inputMicrographs=self.makeMicrographs(),
                           downsample=0.5)


class TestTrainPickerForm(FormTest):
    def setUp(self):
        super().setUp()
        self.micrographs = self.makeMicrographs()

    def testGood(self):
        self.assertAccepted(Siamese2DProtTrainPicker, inputMicrographs=self.micrographs,
                            inputCoordinates=self.makeCoordinates(self.micrographs, [(0, 10, 20)]))

    def testZeroCoordinates(self):
        self.assertRefused(Siamese2DProtTrainPicker, "Marked particles", "the set is empty",
                           inputMicrographs=self.micrographs,
                           inputCoordinates=self.makeCoordinates(self.micrographs, []))

    def testWrongPixelSize(self):
        """Coordinates marked on 60 pixels, used on micrographs that claim half the pixel size with as many pixels."""
        coordinates = self.makeCoordinates(self.micrographs, [(0, 55, 20)])
        self.micrographs.setSamplingRate(2.0)
        finer = self.makeMicrographs(pixelSize=1.0, name="finer")
        self.assertRefused(Siamese2DProtTrainPicker, "Marked particles", "outside", "2.000", "1.000",
                           inputMicrographs=finer, inputCoordinates=coordinates)

    def testDiameterLargerThanTheImage(self):
        self.assertRefused(Siamese2DProtTrainPicker, "Particle diameter", "250.0 px", "larger than the micrographs",
                           inputMicrographs=self.micrographs, diameter=500,
                           inputCoordinates=self.makeCoordinates(self.micrographs, [(0, 10, 20)]))

    def testSeveralSizesNeedTheLargest(self):
        coordinates = self.makeCoordinates(self.micrographs, [(0, 10, 20)])
        for diameter in (-1, 20):
            self.assertRefused(Siamese2DProtTrainPicker, "Smallest particle diameter",
                               inputMicrographs=self.micrographs, inputCoordinates=coordinates, diameter=diameter,
                               smallestDiameter=30)

    def testTrainPickerArguments(self):
        inputs = {"inputMicrographs": self.micrographs,
                  "inputCoordinates": self.makeCoordinates(self.micrographs, [(0, 10, 20)])}
        plain = self.make(Siamese2DProtTrainPicker, **inputs)._engineArguments()
        self.assertNotIn("--from-scratch", plain)
        self.assertNotIn("--epochs", plain)
        chosen = self.make(Siamese2DProtTrainPicker, diameter=40, smallestDiameter=30, epochs=7, shippedWeights=False,
                           **inputs)._engineArguments()
        self.assertIn("--from-scratch", chosen)
        self.assertEqual(chosen[chosen.index("--epochs") + 1], 7)
        self.assertEqual(chosen[chosen.index("--diameter") + 1:][:2], [30, 40])

    def testDiameterFromTheBox(self):
        protocol = self.make(Siamese2DProtTrainPicker,
                             inputMicrographs=self.makeMicrographs(pixelSize=4.0, name="smaller"),
                             inputCoordinates=self.makeCoordinates(self.micrographs, [(0, 10, 20)], boxSize=12))
        self.assertEqual(protocol.getDiameter(), 24)

    def testStartModelIsGone(self):
        self.assertRefused(Siamese2DProtTrainPicker, "picker.safetensors is gone", inputMicrographs=self.micrographs,
                           inputCoordinates=self.makeCoordinates(self.micrographs, [(0, 10, 20)]),
                           startModel=self.picker(exists=False))


    def testParticlesAndClassesAreLabelsToo(self):
        particles = self.located(self.makeParticles())
        self.assertAccepted(Siamese2DProtTrainPicker, inputMicrographs=self.micrographs, inputCoordinates=particles)
        classes = SetOfClasses2D(filename="classes.sqlite")
        classes.setImages(Pointer(value=particles))
        classes.classifyItems(updateItemCallback=lambda particle, _: particle.setClassId(1 + particle.getObjId() % 2))
        classes.write()
        protocol = self.make(Siamese2DProtTrainPicker, inputMicrographs=self.micrographs, inputCoordinates=classes)
        self.assertEqual(protocol.validate(), [])
        self.assertIn("6 marked particles are few", " ".join(protocol.warnings()))

    def testParticlesWithoutCoordinates(self):
        self.assertRefused(Siamese2DProtTrainPicker, "Marked particles", "do not know where",
                           inputMicrographs=self.micrographs, inputCoordinates=self.makeParticles())

    def testParticlesOfLargerMicrographs(self):
        self.assertRefused(Siamese2DProtTrainPicker, "Marked particles", "outside", "3.000", "2.000",
                           inputMicrographs=self.micrographs,
                           inputCoordinates=self.located(self.makeParticles(), x=50))

    def located(self, particles, x=10):
        """A copy of a set of particles, each of which knows where it was cut out."""
        located = SetOfParticles(filename="located.sqlite")
        located.copyInfo(particles)
        for particle in particles:
            coordinate = Coordinate()
            coordinate.setMicrograph(self.micrographs.getFirstItem())
            coordinate.setPosition(x, 10)
            particle.setCoordinate(coordinate)
            located.append(particle.clone())
        located.write()
        return located


class TestPickUnlabeledForm(FormTest):
    def testGood(self):
        self.assertAccepted(Siamese2DProtPickUnlabeled, inputMicrographs=self.makeMicrographs(), diameter=30)
        self.assertAccepted(Siamese2DProtPickUnlabeled, inputMicrographs=self.makeMicrographs(name="more"), diameter=30,
                            largestDiameter=50)

    def testBadDiameters(self):
        micrographs = self.makeMicrographs()
        for words, values in ((("Particle diameter", "angstroms"), {}),
                              (("Particle diameter", "at least 8"), {"diameter": 10}),
                              (("Largest diameter", "smaller than"), {"diameter": 30, "largestDiameter": 20}),
                              (("Largest diameter", "larger than the micrographs"),
                               {"diameter": 30, "largestDiameter": 200}),
                              (("Largest diameter", "templates"), {"diameter": 30, "largestDiameter": 40,
                                                                   "inputTemplates": self.makeParticles()})):
            self.assertRefused(Siamese2DProtPickUnlabeled, *words, inputMicrographs=micrographs, **values)

    def testThreshold(self):
        self.assertRefused(Siamese2DProtPickUnlabeled, "Score threshold", "0 or more", diameter=30, threshold=-1.0,
                           inputMicrographs=self.makeMicrographs())


class TestGpu(FormTest):
    def form(self, **parameters):
        return {"inputMicrographs": self.makeMicrographs(), "inputPicker": self.picker(), "useGpu": True, **parameters}

    def testThere(self):
        self.assertAccepted(Siamese2DProtPick, **self.form())

    def testNotThere(self):
        self.assertRefused(Siamese2DProtPick, "cuda:3 is not there", "cpu, cuda:0", "Use GPU", **self.form(gpuList="3"))

    def testNoFallBackWithACpuBuild(self):
        with mock.patch.object(Plugin, "handshake", return_value={"devices": ["cpu"]}):
            self.assertRefused(Siamese2DProtPick, "cuda:0 is not there", "SIAMESE2D_TORCH", **self.form())
            self.assertAccepted(Siamese2DProtPick, **self.form(useGpu=False))

    def testSeveral(self):
        self.assertRefused(Siamese2DProtPick, "one GPU", "0 1", **self.form(gpuList="0 1"))
        self.assertRefused(Siamese2DProtPick, "one GPU", **self.form(gpuList=""))
        values = {"inputParticles": self.makeParticles(), "useGpu": True, "gpuList": "0 1"}
        self.assertRefused(Siamese2DProtClassify, "cuda:1 is not there", **values)
        with mock.patch.object(Plugin, "handshake", return_value={"devices": ["cpu", "cuda:0", "cuda:1"]}):
            self.assertAccepted(Siamese2DProtClassify, **values)
            self.assertRefused(Siamese2DProtClassify, "twice", **{**values, "gpuList": "0 0"})

    def testSeveralShareTheThreads(self):
        protocol = self.make(Siamese2DProtClassify, useGpu=True, gpuList="0 1", numberOfThreads=8)
        protocol.workingDir.set("Runs/1")
        command = protocol._command([], "out")
        self.assertEqual(command[command.index("--threads") + 1], "4")
        with mock.patch.object(protocol, "runJob") as runJob:
            protocol._runEngine(command, "out")
        program, arguments = runJob.call_args.args
        # Scipion's own way from there to the shell.
        line = buildRunCommand(program, arguments, 1, gpuList=[0, 1])
        self.assertIn("torchrun --standalone --nproc_per_node 2 -m siamese2d_engine classify", line)
        self.assertIn("--device 'cuda:0 1'", line)

    def testQueueIsNotAskedHere(self):
        protocol = self.make(Siamese2DProtPick, **self.form(gpuList="3"))
        with mock.patch.object(protocol, "useQueue", return_value=True):
            self.assertEqual(protocol.validate(), [])

    def testCommand(self):
        for useGpu, device in ((True, "cuda:%(GPU)s"), (False, "cpu")):
            protocol = self.make(Siamese2DProtPick, **self.form(useGpu=useGpu))
            protocol.workingDir.set("Runs/1")
            command = protocol._engineCommand()
            self.assertEqual(command[command.index("--device") + 1], device)

    def testBrokenEnvironmentIsReportedOnce(self):
        with mock.patch.object(Plugin, "handshake", side_effect=ValidationException("not built")):
            self.assertRefused(Siamese2DProtPick, "not built", **self.form())


class TestPickForm(FormTest):
    def testOtherPixelSize(self):
        """The engine scales micrographs to the particle: any pixel size at which it can be seen will do."""
        self.assertAccepted(Siamese2DProtPick, inputMicrographs=self.makeMicrographs(),
                            inputPicker=self.picker(pixelSize=8.0))
        self.assertRefused(Siamese2DProtPick, "7.5 px", "at least 8",
                           inputMicrographs=self.makeMicrographs(pixelSize=4.0), inputPicker=self.picker())

    def testModelIsGone(self):
        self.assertRefused(Siamese2DProtPick, "picker.safetensors is gone", inputMicrographs=self.makeMicrographs(),
                           inputPicker=self.picker(exists=False))

    def testThreshold(self):
        self.assertRefused(Siamese2DProtPick, "Score threshold", "0 to 1", inputMicrographs=self.makeMicrographs(),
                           inputPicker=self.picker(), threshold=1.5)
        for threshold, expected in ((None, False), (0.0, True), (0.5, True)):
            protocol = self.make(Siamese2DProtPick, inputMicrographs=self.makeMicrographs(), inputPicker=self.picker())
            protocol.threshold.set(threshold)
            protocol.workingDir.set("Runs/1")
            self.assertEqual("--threshold" in protocol._engineCommand(), expected)


class TestExtractForm(FormTest):
    def setUp(self):
        super().setUp()
        self.micrographs = self.makeMicrographs(size=(80, 120))
        self.coordinates = self.makeCoordinates(self.micrographs, [(0, 30, 30), (1, 40, 40)], boxSize=21)

    def testGood(self):
        self.assertAccepted(Siamese2DProtExtract, inputCoordinates=self.coordinates)

    def testBoxFromTheDiameter(self):
        protocol = self.make(Siamese2DProtExtract, inputCoordinates=self.coordinates)
        self.assertEqual(protocol.getBoxSize(), 32)
        protocol.micrographsSource.set(OTHER)
        protocol.inputMicrographs.set(self.makeMicrographs(pixelSize=1.0, name="finer"))
        self.assertEqual(protocol.getBoxSize(), 64)

    def testBoxLargerThanTheImage(self):
        self.assertRefused(Siamese2DProtExtract, "Box size", "larger than the micrographs", "120 x 80",
                           inputCoordinates=self.coordinates, boxSize=90)

    def testOddBox(self):
        self.assertRefused(Siamese2DProtExtract, "Box size", "even", "32", inputCoordinates=self.coordinates,
                           boxSize=31)

    def testNoBoxToDeriveFrom(self):
        self.coordinates.setBoxSize(None)
        self.assertRefused(Siamese2DProtExtract, "Box size", inputCoordinates=self.coordinates)

    def testTooSmallAfterDownsampling(self):
        self.assertRefused(Siamese2DProtExtract, "Downsample", inputCoordinates=self.coordinates, downsample=10.0)

    def testNoOtherMicrographs(self):
        self.assertRefused(Siamese2DProtExtract, "Other micrographs", inputCoordinates=self.coordinates,
                           micrographsSource=OTHER)

    def testZeroCoordinates(self):
        self.assertRefused(Siamese2DProtExtract, "Input coordinates", "empty",
                           inputCoordinates=self.makeCoordinates(self.micrographs, []))

    def testMicrographsWithoutCtfAreAnnounced(self):
        ctfs = SetOfCTF(filename="ctfs.sqlite")
        ctfs.setMicrographs(Pointer(value=self.micrographs))
        for mic, defocus in zip([mic.clone() for mic in self.micrographs], (9000, 8000)):
            ctf = makeCtf(defocus)
            ctf.setMicrograph(mic)
            if defocus == 8000:
                ctf.setWrongDefocus()
            ctfs.append(ctf)
        ctfs.write()
        protocol = self.make(Siamese2DProtExtract, inputCoordinates=self.coordinates, inputCTF=ctfs)
        self.assertEqual(protocol.validate(), [])
        self.assertTrue(any(line.startswith("2 micrographs have no CTF") for line in protocol.warnings()))


class TestTrainEmbeddingForm(FormTest):
    def testGood(self):
        self.assertAccepted(Siamese2DProtTrainEmbedding, inputParticles=self.makeParticles(20))

    def testTooFewParticles(self):
        self.assertRefused(Siamese2DProtTrainEmbedding, "Input particles", "19", "20",
                           inputParticles=self.makeParticles(19))

    def testMaskLargerThanTheBox(self):
        self.assertRefused(Siamese2DProtTrainEmbedding, "Mask diameter", "48", inputParticles=self.makeParticles(20),
                           maskDiameter=60)

    def testNoParticles(self):
        self.assertRefused(Siamese2DProtTrainEmbedding, "Input particles")

    def testTripletNeedsClasses(self):
        self.assertRefused(Siamese2DProtTrainEmbedding, "Input classes", mode=TRIPLET,
                           inputParticles=self.makeParticles())

    def testEmptyClasses(self):
        classes = SetOfClasses2D(filename="classes.sqlite")
        classes.setImages(Pointer(value=self.makeParticles()))
        classes.write()
        self.assertRefused(Siamese2DProtTrainEmbedding, "Input classes", "empty", mode=TRIPLET, inputClasses=classes)


    def testRecipesSayWhatTheyNeed(self):
        for number, name in enumerate(PRESET_CHOICES[1:], start=1):
            particles = {"inputParticles": self.makeParticles(20)}
            if PRESETS[name] == "triplet":
                self.assertRefused(Siamese2DProtTrainEmbedding, "Input classes", preset=number, **particles)
            else:
                self.assertAccepted(Siamese2DProtTrainEmbedding, preset=number, **particles)

    def testRecipesDecideInPlaceOfTheForm(self):
        protocol = self.make(Siamese2DProtTrainEmbedding, preset=PRESET_CHOICES.index("milopyp"), mode=TRIPLET,
                             inputParticles=self.makeParticles(20))
        arguments = protocol._engineArguments()
        self.assertEqual((protocol.getMode(), "--preset" in arguments, "--mode" in arguments, "--network" in arguments),
                         ("self-supervised", True, False, False))
        self.assertEqual(protocol._citations(), ["ChenHe2021", "Huang2024"])

    def testClassesWithoutAlignment(self):
        particles = self.makeParticles(20)
        classes = SetOfClasses2D(filename="classes.sqlite")
        classes.setImages(Pointer(value=particles))
        for number in (1, 2):
            cls = Class2D(objId=number)
            cls.copyInfo(particles)
            cls.setAlignment(ALIGN_NONE)
            classes.append(cls)
            for particle in particles:
                if particle.getObjId() % 2 == number % 2:
                    cls.append(particle)
            classes.update(cls)
        classes.write()
        preset = {"preset": PRESET_CHOICES.index(ALIGNED_CLASSES), "inputClasses": classes}
        self.assertRefused(Siamese2DProtTrainEmbedding, "Input classes", "not aligned", "another recipe", **preset)

    def testBackboneIsGone(self):
        self.assertRefused(Siamese2DProtTrainEmbedding, "Backbone weights", "nowhere.pth", "leave the field empty",
                           preset=PRESET_CHOICES.index("contrastive-original"), backbone="nowhere.pth",
                           inputParticles=self.makeParticles(20))
        # A file that nothing uses is no error.
        self.assertAccepted(Siamese2DProtTrainEmbedding, backbone="nowhere.pth", inputParticles=self.makeParticles(20))


class TestClassifyForm(FormTest):
    def testGood(self):
        self.assertAccepted(Siamese2DProtClassify, inputParticles=self.makeParticles(), numberOfClasses=3,
                            inputEmbedding=self.embedding())

    def testMoreClassesThanParticles(self):
        self.assertRefused(Siamese2DProtClassify, "Number of classes", "6", inputParticles=self.makeParticles(),
                           numberOfClasses=7)

    def testEmbeddingOfAnotherScaleIsAnnounced(self):
        for changes, announced in (({}, False), ({"boxSize": 64}, True), ({"pixelSize": 6.0}, True)):
            protocol = self.make(Siamese2DProtClassify, inputParticles=self.makeParticles(), numberOfClasses=2,
                                 inputEmbedding=self.embedding(**changes))
            self.assertEqual(protocol.validate(), [])
            self.assertEqual(any("trained on images" in line for line in protocol.warnings()), announced)

    def testMaskLargerThanTheBox(self):
        self.assertRefused(Siamese2DProtClassify, "Mask diameter", "48", inputParticles=self.makeParticles(),
                           numberOfClasses=2, maskDiameter=60)

    def testFlippedPhasesAreAnnounced(self):
        particles = self.makeParticles()
        particles.setIsPhaseFlipped(True)
        protocol = self.make(Siamese2DProtClassify, inputParticles=particles, numberOfClasses=2)
        self.assertTrue(any("phases" in line for line in protocol.warnings()))

    def testGrowingSetIsAnnounced(self):
        particles = self.makeParticles()
        particles.setStreamState(particles.STREAM_OPEN)
        protocol = self.make(Siamese2DProtSelectParticles, inputParticles=particles)
        self.assertTrue(any("growing" in line for line in protocol.warnings()))
        # These wait until there is enough.
        for protocolClass in (Siamese2DProtClassify, Siamese2DProtTrainEmbedding):
            self.assertEqual(self.make(protocolClass, inputParticles=particles).warnings(), [])
