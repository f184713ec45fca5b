"""Commands: one thin module a subcommand of `syneg`."""
