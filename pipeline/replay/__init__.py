"""`aiologs replay`: what was logged before, once more or at last, through the stages and under the ids of today."""
