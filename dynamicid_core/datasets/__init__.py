"""Training sets: photos of people, checked and labelled, and the manifest that says what each of them shows."""
