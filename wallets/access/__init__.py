"""Who asks, and what they may: `keys` tells one program from another, `rights` says what it may do."""
