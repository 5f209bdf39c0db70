"""Trained models as objects: readable, and the same after a round trip through a project's database."""

from pyworkflow.mapper import SqliteMapper

from siamese2d import objects
from siamese2d.tests.layer import FolderTest


class TestModels(FolderTest):
    def testText(self):
        picker = objects.PickerModel(filename="p.safetensors", pixelSize=4.0, diameter=180.4,
                                     summary="best of 12 epochs: 9")
        self.assertEqual(str(picker), "PickerModel (diameter 180 Å, 4.00 Å/px, best of 12 epochs: 9)")
        embedding = objects.EmbeddingModel(filename="e.safetensors", pixelSize=3.2, boxSize=64, mode="triplet")
        self.assertEqual(str(embedding), "EmbeddingModel (triplet, 64 x 64 px, 3.20 Å/px)")

    def testTextOfAnEmptyObject(self):
        """Scipion makes empty ones before it reads their values."""
        self.assertEqual(str(objects.PickerModel()), "PickerModel ()")
        self.assertEqual(str(objects.EmbeddingModel()), "EmbeddingModel ()")

    def testPersistence(self):
        classes = {"PickerModel": objects.PickerModel, "EmbeddingModel": objects.EmbeddingModel}
        mapper = SqliteMapper("models.sqlite", classes)
        mapper.insert(objects.PickerModel(filename="p", pixelSize=4.0, diameter=180.0, summary="s"))
        mapper.insert(objects.EmbeddingModel(filename="e", pixelSize=3.0, boxSize=64, mode="contrastive"))
        mapper.commit()
        mapper.close()
        picker, embedding = SqliteMapper("models.sqlite", classes).selectAll()
        self.assertEqual((picker.getFileName(), picker.getPixelSize(), picker.getDiameter(),
                          picker.getTrainingSummary()), ("p", 4.0, 180.0, "s"))
        self.assertEqual((embedding.getFileName(), embedding.getPixelSize(), embedding.getBoxSize(),
                          embedding.getMode()), ("e", 3.0, 64, "contrastive"))

    def testDiameterInPixels(self):
        self.assertEqual(objects.PickerModel(diameter=180.0).getDiameterPixels(4.5), 40)

    def testFileThatIsGone(self):
        self.assertFalse(objects.modelExists(objects.PickerModel(filename="nowhere")))
        self.assertFalse(objects.modelExists(objects.PickerModel()))
        open("there", "w").close()
        self.assertTrue(objects.modelExists(objects.PickerModel(filename="there")))
