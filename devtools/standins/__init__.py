"""Stand-in model files: the names, inputs, outputs and tensor names of the real ones, small, with seeded weights.

With them every part of the project runs, to the last file, where the real weights are not at hand. Pictures made with
stand-ins are noise, and faces found with them are guesses.
"""
