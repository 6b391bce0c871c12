//! Configuration: every variable, every kind of bad value, files, rollback flags and `explain()`.
