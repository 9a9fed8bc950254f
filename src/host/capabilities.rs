//! What this process may do, checked before anything is made.
