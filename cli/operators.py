"""`cloud-recorder operators`: who may run the service, which is another right than to record with it."""

from cli.customers import commands

command = commands("operator")
command.help = """Manage operators, who look after the service. Their credentials are of no use at the public API.

The first start writes those of the first one into operator.json in the data directory.
"""
