//! The languages table
