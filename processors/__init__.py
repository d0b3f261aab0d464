"""The computation (VWAP, bars, depth; pure) and the engine that runs it as Faust agents, exactly once."""
