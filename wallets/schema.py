"""Which schema this code was written for."""

# The newest tag in liquibase/changelog.yaml; a test holds the two together.
EXPECTED_TAG = "v7"
