"""The subcommands of `syneg` that join several stages."""
