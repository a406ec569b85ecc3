"""FairGRAPE's greedy choice as a parallel fixed point, on the device."""
