"""Reading the pipeline's topics as another service would."""
