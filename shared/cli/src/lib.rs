//! Command-line manners that every tool shares
