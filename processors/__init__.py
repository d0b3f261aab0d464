"""The computation (VWAP, bars, depth; pure) and the engine that runs it as Faust agents, exactly
once."""

import sys
from importlib.util import find_spec
from pathlib import Path

# here, since both commands come by before anything imports `schemas`: a name that other packages
# have too
_ours = Path(__file__).resolve().parents[1] / "schemas" / "__init__.py"
_spec = find_spec("schemas")
_found = _spec.origin if _spec else None
if _found is None or Path(_found).resolve() != _ours:
    sys.exit(
        f"infoway-streams: `import schemas` finds {_found or 'no module'}, not the project's "
        f"own package {_ours}: take the other one "
        "off the path, or give infoway-streams an environment of its own"
    )
