"""Everything of the plugin loads: Scipion only logs what does not, and then leaves it out."""

import ast
import configparser
import inspect
import json
import os
import unittest

import pwem
import siamese2d
from pwem.objects import EMObject
from pyworkflow import Config
from pyworkflow.protocol import Protocol
from pyworkflow.protocol.params import LEVEL_NORMAL
from pyworkflow.viewer import Viewer
from pyworkflow.wizard import Wizard

from siamese2d.constants import VERSION
from siamese2d.protocols import Siamese2DProtExport
from siamese2d.protocols.protocol_base import Siamese2DProtBase

PACKAGE = os.path.dirname(siamese2d.__file__)


class TestDiscovery(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.domain = Config.getDomain()
        cls.domain.getPlugins()

    def testPluginIsThere(self):
        self.assertIs(self.domain, pwem.Domain)
        self.assertIn("siamese2d", self.domain.getPlugins())

    def testEveryProtocolLoads(self):
        self._assertLoaded(self.domain.getProtocols(), "protocols", Protocol)

    def testEveryViewerLoads(self):
        self._assertLoaded(self.domain.getViewers(), "viewers", Viewer)

    def testEveryWizardLoads(self):
        self._assertLoaded(self.domain.getWizards(), "wizards", Wizard)

    def testObjectsLoad(self):
        self._assertLoaded(self.domain.getObjects(), "objects", EMObject)

    def testViewersTargetClasses(self):
        viewers = [viewer for viewer in self.domain.getViewers().values() if viewer.__module__.startswith("siamese2d.")]
        for viewer in viewers:
            self.assertTrue(all(inspect.isclass(target) for target in viewer._targets), viewer)

    def testWizardsTargetParameters(self):
        for wizard in self.domain.getWizards().values():
            if wizard.__module__.startswith("siamese2d."):
                for protocolClass, names in wizard._targets:
                    self.assertTrue(set(names) <= set(dict(protocolClass().getDefinition().iterParams())), wizard)

    def testEveryStageHasAViewer(self):
        stages = [protocol for protocol in ownProtocols() if issubclass(protocol, Siamese2DProtBase)]
        # What is exported is for other programs.
        stages.remove(Siamese2DProtExport)
        for protocolClass in stages:
            self.assertTrue(self.domain.findViewers(protocolClass(), "tkinter"), protocolClass)

    def _assertLoaded(self, found, subpackage, base):
        """Classes that the source declares, found without importing it, are those that Scipion knows."""
        declared = declaredClasses(subpackage)
        self.assertTrue(declared)
        module = __import__(f"siamese2d.{subpackage}", fromlist=["x"])
        wanted = {name for name in declared if issubclass(findClass(subpackage, name), base)} - baseClasses(subpackage)
        self.assertTrue(wanted)
        self.assertEqual(sorted(wanted - set(found)), [], f"declared below siamese2d/{subpackage}, unknown to Scipion")
        self.assertEqual(sorted(name for name in wanted if not hasattr(module, name)), [])


class TestMenu(unittest.TestCase):
    def testEntriesAreTheProtocols(self):
        parser = configparser.ConfigParser()
        parser.optionxform = str
        parser.read(os.path.join(PACKAGE, "protocols.conf"))
        names = sorted(name for tree in parser["PROTOCOLS"].values() for name in protocolsOf(json.loads(tree)))
        self.assertEqual(names, sorted(protocol.__name__ for protocol in ownProtocols()))

    def testTreeIsOneOfScipions(self):
        parser = configparser.ConfigParser()
        parser.optionxform = str
        parser.read([os.path.join(os.path.dirname(pwem.__file__), "protocols.conf")])
        known = set(parser["PROTOCOLS"])
        parser.read([os.path.join(PACKAGE, "protocols.conf")])
        self.assertEqual(set(parser["PROTOCOLS"]), known)


class TestCitations(unittest.TestCase):
    def testAllResolve(self):
        known = set(pwem.Domain.getPlugins()["siamese2d"]._bibtex)
        cited = set(siamese2d._references)
        for protocolClass in ownProtocols():
            protocol = protocolClass()
            for name, param in protocol.getDefinition().iterParams():
                if param.__class__.__name__ == "EnumParam":
                    for value in range(len(param.choices)):
                        getattr(protocol, name).set(value)
                        cited |= set(protocol._citations() or [])
            cited |= set(protocol._citations() or [])
        self.assertEqual(sorted(cited - known), [])
        self.assertEqual(sorted(known - cited), [], "in bibtex.py, but cited nowhere")


class TestForms(unittest.TestCase):
    def testEveryParameterHasHelpAndLabel(self):
        for protocolClass in ownProtocols():
            for name, param in ownParams(protocolClass):
                self.assertTrue(param.help.get(), f"{protocolClass.__name__}.{name} has no help")
                self.assertTrue(param.label.get(), f"{protocolClass.__name__}.{name} has no label")

    def testFewParametersAtNormalLevel(self):
        for protocolClass in ownProtocols():
            shown = [name for name, param in ownParams(protocolClass)
                     if param.expertLevel.get() == LEVEL_NORMAL and not param.isImportant()
                     and param.__class__.__name__ != "PointerParam"]
            self.assertLessEqual(len(shown), 3, f"{protocolClass.__name__}: {shown}")

    def testDefaultsAreAccepted(self):
        for protocolClass in ownProtocols():
            protocol = protocolClass()
            for name, param in ownParams(protocolClass):
                if param.__class__.__name__ not in ("PointerParam", "FileParam"):
                    errors = param.validate(getattr(protocol, name).get())
                    self.assertEqual(errors, [], f"{protocolClass.__name__}.{name}")

    def testOutputsAreDeclared(self):
        protocols = ownProtocols()
        # What is exported are files.
        protocols.remove(Siamese2DProtExport)
        for protocolClass in protocols:
            outputs = {output.name: output.value for output in protocolClass._possibleOutputs}
            self.assertTrue(outputs)
            for name, kind in outputs.items():
                self.assertTrue(name.startswith("output") and issubclass(kind, EMObject), name)

    def testEmptyFormsSayWhatIsMissing(self):
        """Forms without inputs must neither fail nor be accepted."""
        for protocolClass in ownProtocols():
            protocol = protocolClass()
            for text in (protocol._summary(), protocol._methods(), protocol._warnings()):
                self.assertIsInstance(text, list)


class TestPackageData(unittest.TestCase):
    def testLogo(self):
        path = os.path.join(PACKAGE, siamese2d._logo)
        self.assertLess(os.path.getsize(path), 20000)

    def testOneVersion(self):
        with open(os.path.join(PACKAGE, "engine", "siamese2d_engine", "__init__.py")) as source:
            assigned = {node.targets[0].id: node.value.value for node in ast.parse(source.read()).body
                        if isinstance(node, ast.Assign)}
        self.assertEqual(assigned["__version__"], VERSION)
        self.assertEqual(siamese2d.__version__, VERSION)

    def testNoTorchOnThisSide(self):
        for path in pythonFiles(PACKAGE, skip="engine"):
            with open(path) as source:
                tree = ast.parse(source.read())
            imported = {name.split(".")[0] for node in ast.walk(tree) for name in importedNames(node)}
            self.assertEqual(imported & {"torch", "siamese2d_engine", "sklearn"}, set(), path)


def ownProtocols():
    """Protocol classes of the plugin that are no base classes."""
    return [protocol for protocol in pwem.Domain.getProtocols().values()
            if protocol.__module__.startswith("siamese2d.") and not protocol.isBase()]


def ownParams(protocolClass):
    """Parameters that the plugin declares, without those that Scipion adds to every form."""
    scipions = {"runName", "runMode", "hostName", "numberOfThreads", "binThreads", "numberOfMpi", "useGpu", "gpuList",
                "streamingSleepOnWait"}
    return [(name, param) for name, param in protocolClass().getDefinition().iterParams() if name not in scipions]


def declaredClasses(subpackage):
    """Names of the classes that the files of a subpackage (or module) declare, private ones apart."""
    path = os.path.join(PACKAGE, subpackage)
    files = [path + ".py"] if os.path.exists(path + ".py") else list(pythonFiles(path))
    names = set()
    for file in files:
        with open(file) as source:
            names |= {node.name for node in ast.parse(source.read()).body if isinstance(node, ast.ClassDef)}
    return {name for name in names if not name.startswith("_")}


def findClass(subpackage, name):
    """A class that a file of the subpackage declares."""
    path = os.path.join(PACKAGE, subpackage)
    files = [path + ".py"] if os.path.exists(path + ".py") else pythonFiles(path)
    for file in files:
        relative = os.path.relpath(file, os.path.dirname(PACKAGE))[:-3].replace(os.sep, ".")
        module = __import__(relative.replace(".__init__", ""), fromlist=["x"])
        found = getattr(module, name, None)
        if inspect.isclass(found) and found.__module__ == module.__name__:
            return found
    raise LookupError(name)


def baseClasses(subpackage):
    """Classes that only others derive from; Scipion need not know them."""
    names = declaredClasses(subpackage)
    return {base.__name__ for name in names for base in findClass(subpackage, name).__bases__} & names


def protocolsOf(tree):
    """Names of the protocols in a menu tree."""
    for entry in tree:
        if entry["tag"] == "protocol":
            yield entry["value"]
        yield from protocolsOf(entry.get("children", []))


def pythonFiles(folder, skip=None):
    """Python files below a folder."""
    for base, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in (skip, "__pycache__")]
        yield from (os.path.join(base, name) for name in files if name.endswith(".py"))


def importedNames(node):
    """Modules that a node of the syntax tree imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
