"""The schema that this code needs."""

# The newest tag in liquibase/changelog.yaml; a test compares the two.
EXPECTED_TAG = "v8"
