"""The wheel holds each file of the package that the repository has, its metadata, and nothing else.

python .ci/wheel.py FILE.whl
"""

import subprocess
import sys
from zipfile import ZipFile

tracked = subprocess.run(["git", "ls-files", "snn_bp"], capture_output=True, text=True, check=True).stdout.split()
held = {name for name in ZipFile(sys.argv[1]).namelist() if ".dist-info/" not in name}

missing, beyond = sorted(set(tracked) - held), sorted(held - set(tracked))
if missing or beyond:
    sys.exit(
        f"{sys.argv[1]}: not in it: {missing or 'nothing'}; in it, and not in the repository: {beyond or 'nothing'}"
    )
print(f"{sys.argv[1]}: the {len(held)} files of the package")
