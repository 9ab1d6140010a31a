"""The command line: one module per command or group of commands.

The docstring of a module declares each command's line, group and position in `bench --help`, as
`bench.discovery.commands` reads them.
"""
