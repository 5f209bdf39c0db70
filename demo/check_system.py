"""Say in one line what the operating system still needs; silent when all is there. Standard library only."""

import importlib.util
import shutil
import sys

# Scipion 3.11 pins numpy 1.26, which has wheels for these.
OLDEST, NEWEST = (3, 10), (3, 12)


def missing() -> list[str]:
    """Names of what is missing, with the Debian/Ubuntu package that brings it."""
    found = []
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        found.append(f"Python {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]} (this is {sys.version.split()[0]}; "
                     "pass PYTHON=/path/to/python3)")
    packages = {"venv": "python3-venv", "ensurepip": "python3-venv", "tkinter": "python3-tk"}
    found += sorted({package for module, package in packages.items() if importlib.util.find_spec(module) is None})
    found += [program for program in ("git",) if shutil.which(program) is None]
    return found


if __name__ == "__main__":
    needed = missing()
    if needed:
        sys.exit(f"siamese2d needs: {', '.join(needed)}. On Debian or Ubuntu: sudo apt-get install python3-venv "
                 "python3-tk git make")
