"""Bad input at the form: one message that names the parameter and the way out, before anything runs."""

from unittest import mock

from pwem.constants import ALIGN_NONE
from pwem.objects import Class2D, Coordinate, SetOfClasses2D, SetOfCTF, SetOfMicrographs, SetOfParticles
from pyworkflow.exceptions import ValidationException
from pyworkflow.object import Pointer

from siamese2d import Plugin
from siamese2d.objects import EmbeddingModel, PickerModel
from siamese2d.protocols import (Siamese2DProtClassify, Siamese2DProtExtract, Siamese2DProtNormalize, Siamese2DProtPick,
                                 Siamese2DProtPickUnlabeled, Siamese2DProtTrainEmbedding, Siamese2DProtTrainPicker)
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
        protocol = self.make(Siamese2DProtClassify, inputParticles=particles, numberOfClasses=2)
        self.assertTrue(any("growing" in line for line in protocol.warnings()))
