//! What is on a device, and making, checking and growing ext4 on it.
