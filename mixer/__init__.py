"""Composite pictures and mixed sound from raw planes and samples: numpy only, knows no codec, no network and no clock."""
