"""The forms and the engine speak of the same things: every option and choice that a form passes is the engine's."""

import json
import re
import subprocess
import unittest

from siamese2d import Plugin
from siamese2d.objects import EmbeddingModel, PickerModel
from siamese2d.protocols import (Siamese2DProtAssign, Siamese2DProtClassify, Siamese2DProtExtract,
                                 Siamese2DProtNormalize, Siamese2DProtPick,
                                 Siamese2DProtPickUnlabeled, Siamese2DProtTrainEmbedding, Siamese2DProtTrainPicker,
                                 protocol_extract, protocol_normalize, protocol_pick_unlabeled,
                                 protocol_train_embedding, protocol_train_picker)
from siamese2d.tests.layer import FolderTest

# All in one process: most of the time of a --help goes into starting the engine.
PRINT_HELP = """
import argparse, json
from siamese2d_engine.cli.main import build_parser
commands = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
print(json.dumps({name: parser.format_help() for name, parser in commands.choices.items()}))
"""
CHOICES = [("normalize", "--method", protocol_normalize.METHODS),
           ("pick-unlabeled", "--contrast", protocol_pick_unlabeled.CONTRASTS),
           ("train-picker", "--objective", protocol_train_picker.OBJECTIVES),
           ("train-picker", "--network", protocol_train_picker.NETWORKS),
           ("extract", "--edge", protocol_extract.EDGES),
           ("train", "--preset", list(protocol_train_embedding.PRESETS)),
           ("train", "--mode", protocol_train_embedding.MODES),
           ("train", "--network", protocol_train_embedding.NETWORKS)]


class TestContract(FolderTest):
    def setUp(self):
        super().setUp()
        problems = Plugin.validateInstallation()
        if problems:
            raise unittest.SkipTest(f"the engine can't run here: {problems[0]}")
        command = f"{Plugin.getActivationCmd()} && python -c '{PRINT_HELP}'"
        done = subprocess.run(command, shell=True, env=Plugin.getEnviron(), capture_output=True, text=True, check=True)
        self.help = json.loads(done.stdout)

    def testChoices(self):
        for stage, option, values in CHOICES:
            text = " ".join(self.help[stage].split())
            found = re.search(rf"{option} \{{([^}}]*)\}}", text)
            self.assertIsNotNone(found, f"{stage} has no choices for {option}")
            self.assertEqual(found.group(1).split(","), values, f"{stage} {option}")

    def testOptions(self):
        for protocol in self.protocols():
            protocol.workingDir.set("Runs/1")
            command = protocol._engineCommand()
            text = self.help[command[0]]
            for option in (part for part in command if part.startswith("--")):
                self.assertRegex(text, rf"{option}\b", f"{command[0]} knows no {option}")

    def protocols(self):
        """Every protocol with everything set that adds an argument."""
        micrographs, particles = self.makeMicrographs(), self.makeParticles()
        coordinates = self.makeCoordinates(micrographs, [(0, 10, 10)])
        picker = PickerModel(filename="picker.safetensors", pixelSize=2.0, diameter=20.0)
        embedding = EmbeddingModel(filename="embedding.safetensors", pixelSize=3.0, boxSize=16, mode="triplet")
        contrastive = protocol_train_embedding.CONTRASTIVE
        settings = [
            (Siamese2DProtNormalize, {"inputMicrographs": micrographs}),
            (Siamese2DProtPickUnlabeled, {"inputMicrographs": micrographs, "diameter": 30.0, "threshold": 4.0,
                                          "inputTemplates": particles}),
            (Siamese2DProtTrainPicker, {"inputMicrographs": micrographs, "inputCoordinates": coordinates,
                                        "expectedParticles": 30, "startModel": picker}),
            (Siamese2DProtTrainPicker, {"inputMicrographs": micrographs, "inputCoordinates": coordinates, "epochs": 3,
                                        "diameter": 30.0, "smallestDiameter": 20.0, "shippedWeights": False}),
            (Siamese2DProtPick, {"inputMicrographs": micrographs, "inputPicker": picker, "threshold": 0.5}),
            (Siamese2DProtExtract, {"inputCoordinates": coordinates}),
            (Siamese2DProtTrainEmbedding, {"inputParticles": particles, "mode": contrastive, "startModel": embedding,
                                           "maskDiameter": 30, "epochs": 2}),
            (Siamese2DProtTrainEmbedding, {"inputParticles": particles, "preset": 2, "backbone": "resnet18.pth"}),
            (Siamese2DProtClassify, {"inputParticles": particles, "inputEmbedding": embedding, "numberOfClasses": 3,
                                     "maskDiameter": 30, "maxShift": 5, "maxResolution": 10}),
            (Siamese2DProtAssign, {"inputParticles": particles, "inputClasses": particles, "newAverages": True,
                                   "maskDiameter": 30, "maxShift": 5, "maxResolution": 10})]
        for protocolClass, values in settings:
            protocol = protocolClass()
            for name, value in values.items():
                getattr(protocol, name).set(value)
            yield protocol
