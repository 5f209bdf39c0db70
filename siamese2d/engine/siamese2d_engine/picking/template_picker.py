"""Picking what looks like given templates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from siamese2d_engine.picking.blob_picker import FLOOR, SEPARATION, is_blob
from siamese2d_engine.picking.blobs import robust_width
from siamese2d_engine.picking.inputs import WORKING_DIAMETER
from siamese2d_engine.picking.oddities import Usual, feature_maps, features, usual
from siamese2d_engine.picking.peaks import find_peaks
from siamese2d_engine.picking.templates import TILE, correlation_map, disc_mask, turned_templates
from siamese2d_engine.picking.unlabeled_view import View


@dataclass(frozen=True)
class TemplatePicker:
    """Templates at the scale of the views, and how candidates usually look.

    Attributes
    ----------
    templates : ndarray
        ``(n, k, k)``, of `turned_templates`.
    usual : Usual or None
        None while that is not known.
    tile : int
        Pixels across one tile of a micrograph.
    """

    templates: np.ndarray
    usual: Usual | None = None
    tile: int = TILE

    def pick(self, view: View) -> np.ndarray:
        """Candidates of a view: see `blob_picker.BlobPicker.pick`; scores are widths of the correlation's noise."""
        candidates = self._candidates(view)
        if self.usual is None:
            return candidates
        return candidates[~self.usual.is_odd(_features(view, candidates))]

    def _candidates(self, view: View) -> np.ndarray:
        scores = correlation_map(view.flat, self.templates, disc_mask(WORKING_DIAMETER), self.tile)
        scores = (scores - np.median(scores)) / np.float32(max(robust_width(scores), np.finfo(np.float32).tiny))
        peaks = find_peaks(scores, SEPARATION * WORKING_DIAMETER, FLOOR)
        peaks = peaks[is_blob(scores, peaks)]
        return np.column_stack([peaks, np.full(len(peaks), WORKING_DIAMETER)])


def learn_templates(views: Sequence[View], images: np.ndarray, factor: float) -> TemplatePicker:
    """A picker for templates ``(n, h, w)``; the best candidates of `views` show what is usual.

    Parameters
    ----------
    views : sequence of View
    images : ndarray
        Bright on dark, as `read_templates` gives them.
    factor : float
        Pixels of the views per pixel of the templates.
    """
    picker = TemplatePicker(turned_templates(images, factor, WORKING_DIAMETER))
    found = [picker.pick(view) for view in views]
    scores = np.concatenate([candidates[:, 2] for candidates in found])
    if not len(scores):
        return picker
    values = np.concatenate([_features(view, candidates) for view, candidates in zip(views, found)])
    return replace(picker, usual=usual(values, scores))


def _features(view: View, candidates: np.ndarray) -> np.ndarray:
    return features(feature_maps(view.flat, view.strength, WORKING_DIAMETER), candidates[:, :2])
