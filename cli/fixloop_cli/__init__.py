"""The command line tool `fixloop`: the local AWS, builds, deployments and management."""
