"""Scores of vectors against small cases worked out by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest

from siamese2d_engine.cli.main import main
from siamese2d_engine.errors import InputError
from siamese2d_engine.evaluate.embeddings import (
    cluster,
    cosine_matrix,
    diagonal_dominance,
    embedding_scores,
    matched_accuracy,
)
from siamese2d_engine.evaluate.stage import evaluate_embedding_to
from siamese2d_engine.io.atomic import read_json
from siamese2d_engine.io.star import write_star


def test_accuracy_is_the_best_of_all_matchings():
    random = np.random.default_rng(0)
    labels, truth = random.integers(0, 4, 60), random.integers(0, 4, 60)
    best = max(np.mean(np.array(order)[labels] == truth) for order in itertools.permutations(range(4)))
    assert matched_accuracy(labels, truth) == pytest.approx(best)
    assert matched_accuracy(labels + 7, labels * 2) == 1.0


def test_clusters_that_match_no_class_are_wrong():
    # Class 1 in two clusters: only the larger counts, though both are pure.
    assert matched_accuracy(np.array([0, 0, 0, 1, 1, 2]), np.array([1, 1, 1, 1, 1, 2])) == pytest.approx(4 / 6)


def test_cosine_matrix_is_the_mean_over_pairs():
    random = np.random.default_rng(1)
    vectors, labels = random.normal(size=(20, 3)), np.repeat([2, 5, 9], [8, 11, 1])
    classes, matrix = cosine_matrix(vectors, labels)
    centred = vectors - vectors.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    assert classes.tolist() == [2, 5, 9]
    for i, j in itertools.product(range(3), repeat=2):
        pairs = [unit[a] @ unit[b] for a in range(20) for b in range(20)
                 if a != b and labels[a] == classes[i] and labels[b] == classes[j]]
        assert matrix[i, j] == pytest.approx(np.mean(pairs) if pairs else np.nan, nan_ok=True)


def test_dominance_by_hand():
    matrix = np.array([[0.9, 0.1, -0.5], [0.1, 0.4, 0.6], [-0.5, 0.6, np.nan]])
    assert diagonal_dominance(matrix) == pytest.approx(((0.9 - 0.1) + (0.4 - 0.6)) / 2)
    assert diagonal_dominance(np.array([[1.0]])) == 0.0


def groups(n=90, noise=0.1):
    random = np.random.default_rng(0)
    truth = np.arange(n) % 3
    return (np.eye(3)[truth] + noise * random.normal(size=(n, 3))).astype(np.float32), truth


def test_clear_groups_score_full_marks():
    vectors, truth = groups()
    scores = embedding_scores(vectors, truth, cluster(vectors, 3, seed=0))
    assert scores["accuracy"] == scores["ari"] == 1.0 and scores["silhouette"] > 0.7
    assert scores["diagonal_dominance"] > 1.0


def test_over_clustering_follows_groups_that_are_no_clouds():
    # Two rings, one inside the other: k-means to two cuts across both.
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    vectors, truth = np.concatenate([ring, 4 * ring]), np.repeat([0, 1], 200)
    assert matched_accuracy(cluster(vectors, 2, seed=0), truth) < 0.9
    assert matched_accuracy(cluster(vectors, 2, seed=0, centres=60), truth) > 0.99


def files(folder, order=slice(None)):
    vectors, truth = groups()
    names = [f"{i + 1:06d}@stack.mrcs" for i in range(len(truth))]
    write_star(folder / "truth.star", {"particles": pd.DataFrame({
        "rlnImageName": names, "siamese2dSpecies": truth + 1, "view": [f"v{t}" for t in truth]})})
    write_star(folder / "particles.star", {"particles": pd.DataFrame({"rlnImageName": names})[order]})
    np.save(folder / "embeddings.npy", vectors[order])
    return {"particles": folder / "particles.star", "embeddings": folder / "embeddings.npy",
            "truth": folder / "truth.star"}


@pytest.mark.parametrize("label, names", [("siamese2dSpecies", [1, 2, 3]), ("view", ["v0", "v1", "v2"])])
def test_rows_are_matched_by_image_names(tmp_path, label, names):
    paths = files(tmp_path, slice(None, None, -1))
    result = evaluate_embedding_to(tmp_path / "out", label=label, **paths)
    assert (result["particles"], result["clusters"], result["accuracy"]) == (90, 3, 1.0)
    assert result["classes"] == names


def test_the_command(tmp_path, capsys):
    paths = files(tmp_path)
    arguments = [text for name, path in paths.items() for text in (f"--{name}", str(path))]
    assert main(["evaluate", "embedding", *arguments, "--centres", "12", "--out", str(tmp_path / "out")]) == 0
    assert "k-means accuracy   1.000" in capsys.readouterr().out
    assert read_json(tmp_path / "out/evaluation.json")["kind"] == "embedding"


@pytest.mark.parametrize("options, words", [
    ({"label": "shape"}, "no column shape"), ({"label": "view", "classes": 91}, "can't make 91 clusters"),
    ({"label": "view", "centres": 2}, "fewer than the 3 classes"),
])
def test_bad_choices(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        evaluate_embedding_to(tmp_path / "out", **files(tmp_path), **options)


def test_vectors_of_other_particles(tmp_path):
    paths = files(tmp_path)
    np.save(tmp_path / "embeddings.npy", np.zeros((89, 3)))
    with pytest.raises(InputError, match="89 x 3 values.*90 particles"):
        evaluate_embedding_to(tmp_path / "out", label="view", **paths)
    (tmp_path / "embeddings.npy").write_text("what")
    with pytest.raises(InputError, match="NumPy file"):
        evaluate_embedding_to(tmp_path / "out", label="view", **paths)
