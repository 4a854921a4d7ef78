"""Reading a candidate's prose: which key points it makes, which numbers it states, which score."""
