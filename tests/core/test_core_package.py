import pkgutil
import subprocess
import sys

import annspark.core
from tests.helpers import REPOSITORY


def test_importing_the_core_never_imports_spark():
    names = [f"annspark.core.{module.name}" for module in pkgutil.iter_modules(annspark.core.__path__)]
    assert len(names) >= 9
    code = f"import sys, {', '.join(names)}; print([m for m in ('pyspark', 'pyarrow', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
