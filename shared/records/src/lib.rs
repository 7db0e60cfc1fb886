//! The records that cross every pipe and file of the suite, with their specs
