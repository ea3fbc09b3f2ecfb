//! One pod on one node, as a state machine.
