"""Looking at a data set: `syneg inspect`."""
