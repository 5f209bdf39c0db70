"""Packaging of the Scipion plugin; the engine's own packaging is in siamese2d/engine/pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
VERSION = re.search(r'^VERSION = "(.+)"', (HERE / "siamese2d" / "constants.py").read_text(), re.MULTILINE).group(1)
README = HERE / "README.rst"

setup(
    name="scipion-em-siamese2d",
    version=VERSION,
    description="Scipion plugin for 2D classification of cryo-EM particles with learnt similarity",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/x-rst",
    url="https://github.com/scipion-em/scipion-em-siamese2d",
    license="GPL-3.0-or-later",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: GNU General Public License v3 or later (GPLv3+)",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Bio-Informatics",
    ],
    keywords="scipion cryo-em image-processing",
    python_requires=">=3.10",
    install_requires=["scipion-pyworkflow", "scipion-em"],
    # The engine is data here, not importable packages: its environment is built from this source.
    packages=find_packages(include=["siamese2d", "siamese2d.*"], exclude=["siamese2d.engine", "siamese2d.engine.*"]),
    include_package_data=True,
    entry_points={"pyworkflow.plugin": "siamese2d = siamese2d"},
)
