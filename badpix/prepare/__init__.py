"""From raw ramps: the pipeline's first stage, and a look at its products."""
